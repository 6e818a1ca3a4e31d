"""Resuming: a killed training ends where an uninterrupted one ends."""

import csv
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import speechbrain as sb
import torch
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, AddReverb, DropChunk
from speechbrain.dataio.dataloader import make_dataloader
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.utils.epoch_loop import EpochCounter
from speechbrain.utils.train_logger import FileTrainLogger
from test_recipe import (
    ECAPA,
    ENVIRONMENT,
    TINY,
    TRAIN,
    command,
    patched_train,
    run,
)
from torch import nn

from speechbrain_ext.augment.rooms import write_rooms_table
from speechbrain_ext.augment.span_drop import SpanDrop
from speechbrain_ext.augment.utterance_mixing import UtteranceMixing
from speechbrain_ext.augment.vocal_tract import VocalTractPerturb
from speechbrain_ext.dataio.datasets import (
    StepSampler,
    crop_pair_dataset,
    embedding_loader,
    speaker_classes,
    training_dataset,
)
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.lobes.encoders.small_wavlm import small_wavlm
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.masked_prediction import MaskedPrediction
from speechbrain_ext.lobes.units import KMeansUnits, MFCCFeatures
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.training.distillation import (
    DistillationBrain,
    DistillationHeads,
    DistillationLoss,
    TargetEmbeddings,
    distillation_dataset,
)
from speechbrain_ext.training.pretraining import PretrainingBrain
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer, TrainingClock
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.locks import hold_folder
from speechbrain_ext.utils.signals import stop_request


class Killed(BaseException):
    """Ends a training as a kill would: nothing catches it."""


class TwoLayers(nn.Module):
    """Filter banks as if they were the two layers of an encoder."""

    def __init__(self):
        super().__init__()
        self.fbank = NormalizedFbank(n_mels=8)
        self.scale = nn.Parameter(torch.ones(8))

    def forward(self, wavs, lengths):
        features, lengths = self.fbank(wavs, lengths)
        features = features.reshape(1, *features.shape[-3:]) * self.scale
        return features.repeat(2, 1, 1, 1), lengths


class Embedding(nn.Module):
    """With what keeps a state or draws: batch norm and dropout."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(8, 6), nn.BatchNorm1d(6), nn.Dropout(0.2), nn.Linear(6, 6)
        )

    def forward(self, features, lengths):
        return self.layers(features.mean(2).mean(0)).unsqueeze(1)


def utterances_of(corpus):
    return {
        f"{path.parent.name}/{path.name}": {
            "wav": str(path),
            "speaker": path.parent.name,
            "duration": soundfile.info(path).duration,
        }
        for path in sorted(corpus.rglob("*.wav"))
    }


def augmentations(folder):
    """Recordings that SpeechBrain reads in turn, noise that is drawn."""
    rng = np.random.default_rng(0)
    paths = [folder / f"recording{i}.wav" for i in range(5)]
    for path in paths:
        decay = np.exp(-np.arange(1600) / 200)
        soundfile.write(path, decay * rng.standard_normal(1600) / 5, 16000)
    table = folder / "recordings.csv"
    write_rooms_table(table, [(path, 0.1) for path in paths])
    return Augmenter(
        parallel_augment=False,
        concat_original=False,
        min_augmentations=1,
        max_augmentations=3,
        shuffle_augmentations=True,
        augment_prob=0.8,
        augmentations=[
            AddReverb(str(table)),
            AddNoise(str(table), snr_low=5, snr_high=20, pad_noise=True),
            DropChunk(drop_length_low=100, drop_length_high=400),
        ],
    )


def schedule(n_steps):
    return functools.partial(
        torch.optim.lr_scheduler.OneCycleLR,
        max_lr=0.01,
        total_steps=n_steps,
        pct_start=0.3,
    )


def settings(folder, n_steps, per_epoch, modules):
    """What the YAML of every training says, and its checkpointer."""
    folder.mkdir(exist_ok=True)
    counter, clock = EpochCounter(-(-n_steps // per_epoch)), TrainingClock()
    tensorboard = type("Silent", (), {"log_stats": lambda self, **stats: None})
    hparams = {
        "seed": 1986,
        "number_of_steps": n_steps,
        "steps_per_epoch": per_epoch,
        "validate_after": 0,
        "epoch_counter": counter,
        "clock": clock,
        "lr_scheduler": schedule(n_steps),
        "train_logger": FileTrainLogger(str(folder / "train_log.txt")),
        "tensorboard_logger": tensorboard(),
        "keep_checkpoints": 1,
        "wav_augment": augmentations(folder),
    }
    checkpointer = AtomicCheckpointer(
        folder / "save", {**modules, "counter": counter, "clock": clock}
    )
    return hparams, checkpointer


def run_options(accumulation):
    return {
        "device": "cpu",
        "noprogressbar": True,
        "ckpt_interval_minutes": 0,
        "ckpt_interval_steps": 2,
        "grad_accumulation_factor": accumulation,
    }


def speaker_training(
    corpus, folder, n_steps=7, per_epoch=4, batch_size=4, accumulation=1,
    distil=False, num_workers=0,
):  # fmt: skip
    """A Brain and what its `fit` takes."""
    torch.manual_seed(0)
    utterances = utterances_of(corpus)
    speeds = [100] if distil else [90, 100, 110]
    speakers = speaker_classes(utterances, speeds)
    labels = sb.dataio.encoder.CategoricalEncoder()
    labels.update_from_iterable(speakers)
    labels.expect_len(len(speakers))
    modules = {"encoder": TwoLayers(), "embedding_model": Embedding()}
    if distil:
        store = EmbeddingStore(
            list(utterances), torch.randn(len(utterances), 5),
            ["s"] * len(utterances), [1.0] * len(utterances), "f00",
        )  # fmt: skip
        folder.mkdir(exist_ok=True)
        store.save(folder / "utterance.safetensors")
        targets = TargetEmbeddings(folder, ["utterance"])
        modules["classifier"] = DistillationHeads(6, len(speakers), targets.sizes)
        cost = DistillationLoss(mse_weight=0.1)
        brain_class, own = DistillationBrain, {"target_embeddings": targets}
        dataset = distillation_dataset(utterances, labels, 16000, 0.5, speeds, targets)
    else:
        modules["classifier"] = Classifier(6, out_neurons=len(speakers))
        cost = LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30))
        brain_class, own = SpeakerBrain, {}
        dataset = training_dataset(utterances, labels, 16000, 0.5, speeds)
    hparams, checkpointer = settings(folder, n_steps, per_epoch, modules)
    names = list(utterances)[:6]
    brain = brain_class(
        modules=modules,
        opt_class=torch.optim.Adam,
        hparams={
            **hparams,
            **own,
            "compute_cost": cost,
            "encoder_lr_scheduler": schedule(n_steps),
            "encoder_frozen_steps": 1,
            "layer_lr_decay": 1.0,
            "margin_schedule": None,
            "classifier_weight_decay": None,
            "fea_augment": SpanDrop(utterance_prob=0.5),
            "augment": True,
        },
        run_opts=run_options(accumulation),
        checkpointer=checkpointer,
        valid_trials=Trials([1, 0, 0], names[:3], [names[1], *names[4:]]),
    )
    valid = embedding_loader({n: utterances[n] for n in names}, 16000, 10)
    loading = {"batch_size": batch_size, "num_workers": num_workers}
    return brain, (dataset, valid, loading)


def pretraining(corpus, folder, n_steps=3, per_epoch=2, accumulation=1):
    """Like `speaker_training`, of masked prediction."""
    torch.manual_seed(0)
    utterances = utterances_of(corpus)
    model = MaskedPrediction(
        small_wavlm(n_layers=2, channels=32, n_bands=8), n_units=3,
        contrast_layer=1,
    )  # fmt: skip
    units = KMeansUnits(MFCCFeatures(receptive_field=760), n_units=3)
    units.fit([torch.randn(2, 16000)])
    hparams, checkpointer = settings(folder, n_steps, per_epoch, {"model": model})
    brain = PretrainingBrain(
        modules={"model": model},
        opt_class=torch.optim.AdamW,
        hparams={
            **hparams,
            "utterance_mixing": UtteranceMixing(prob=0.5),
            "contrast_weight": 1.0,
            "history": folder / "losses.csv",
        },
        run_opts=run_options(accumulation),
        checkpointer=checkpointer,
        units=units,
    )
    dataset, valid = (
        crop_pair_dataset(utterances, 16000, 0.5, voice)
        for voice in (VocalTractPerturb(0.9, 1.1), None)
    )
    loading = {"batch_size": 2, "num_workers": 0}
    return brain, (dataset, make_dataloader(valid, batch_size=20), loading)


def fit(brain, data):
    dataset, valid, loading = data
    brain.fit(brain.hparams.epoch_counter, dataset, valid, train_loader_kwargs=loading)
    return brain


def die_at(brain, batch, stage):
    """Lets a training end in a batch, in a validation or in a checkpoint."""
    if stage == "checkpoint":
        # Files are there, but not all of them.
        def dying(obj, path):
            raise Killed

        brain.checkpointer.custom_save_hooks["clock"] = dying
        return
    original = getattr(brain, stage)
    calls = iter(range(1000))

    def method(*args, **kwargs):
        result = original(*args, **kwargs)
        if next(calls) == batch:
            raise Killed
        return result

    setattr(brain, stage, method)


def state_of(brain):
    return {
        f"{name}.{key}": value
        for name, module in brain.modules.items()
        for key, value in module.state_dict().items()
    }


def log_of(folder):
    """The lines of the log, without the minutes."""
    lines = (folder / "train_log.txt").read_text().splitlines()
    return [
        [part for part in line.replace(" - ", ", ").split(", ") if "min" not in part]
        for line in lines
    ]


def assert_same(state, other):
    assert state.keys() == other.keys()
    different = [name for name in state if not torch.equal(state[name], other[name])]
    assert not different


TRAININGS = {
    "speakers": speaker_training,
    "accumulated": functools.partial(speaker_training, accumulation=3, n_steps=5),
    "distillation": functools.partial(speaker_training, distil=True),
    "pre-training": pretraining,
    "accumulated pre-training": functools.partial(pretraining, accumulation=2),
}


@pytest.mark.parametrize("kind", TRAININGS)
def test_killed_training_ends_as_an_uninterrupted_one(kind, corpus, tmp_path):
    training = TRAININGS[kind]
    whole = fit(*training(corpus, tmp_path / "whole"))
    rng = random.Random(kind)
    kills = [("fit_batch", rng.randrange(4)) for _ in range(3)]
    kills += [("evaluate_batch", 0), ("checkpoint", None)]
    rng.shuffle(kills)
    for stage, batch in kills:
        brain, data = training(corpus, tmp_path / "killed")
        die_at(brain, batch, stage)
        try:
            fit(brain, data)
        except Killed:
            pass
    killed = fit(*training(corpus, tmp_path / "killed"))
    assert killed.optimizer_step == whole.optimizer_step
    assert_same(state_of(killed), state_of(whole))
    assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")
    folders = (tmp_path / "killed" / "save").glob("CKPT*")
    assert all((folder / "CKPT.yaml").is_file() for folder in folders)
    if (tmp_path / "whole" / "losses.csv").is_file():
        whole_losses, killed_losses = (
            list(csv.reader(open(tmp_path / name / "losses.csv")))
            for name in ("whole", "killed")
        )
        assert killed_losses == whole_losses


@pytest.mark.parametrize("killed_at", [None, 1, 2])
def test_nothing_is_validated_before_its_time(killed_at, corpus, tmp_path):
    """Neither is a checkpoint of that time the best, nor is the training lost."""
    training = functools.partial(speaker_training, n_steps=6, per_epoch=2)

    def late(folder):
        brain, data = training(corpus, folder)
        brain.hparams.validate_after = 2
        return brain, data

    whole = fit(*late(tmp_path / "whole"))
    assert [line[0] for line in log_of(tmp_path / "whole")] == ["step: 4", "step: 6"]
    if killed_at is not None:
        brain, data = late(tmp_path / "killed")
        die_at(brain, killed_at, "fit_batch")
        with pytest.raises(Killed):
            fit(brain, data)
        checkpoints = brain.checkpointer.list_checkpoints()
        assert not any("EER" in checkpoint.meta for checkpoint in checkpoints)
        killed = fit(*late(tmp_path / "killed"))
        assert_same(state_of(killed), state_of(whole))
        assert log_of(tmp_path / "killed") == log_of(tmp_path / "whole")


@pytest.mark.parametrize("before, after", [((4, 1), (2, 2)), ((2, 2), (4, 1))])
def test_other_accumulation_trains_all_steps(before, after, corpus, tmp_path):
    brain, data = speaker_training(corpus, tmp_path, 7, 7, *before)
    die_at(brain, 4 * before[1] - 1, "fit_batch")
    with pytest.raises(Killed):
        fit(brain, data)
    steps = []
    brain, data = speaker_training(corpus, tmp_path, 7, 7, *after)
    end = brain.on_fit_batch_end
    brain.on_fit_batch_end = lambda batch, outputs, loss, should_step: (
        end(batch, outputs, loss, should_step),
        steps.append(brain.optimizer_step),
    )
    fit(brain, data)
    assert brain.optimizer_step == 7
    assert len(steps) % after[1] == 0 and steps[-1] == 7
    assert [line[0] for line in log_of(tmp_path)] == ["step: 7"]


@pytest.mark.parametrize(
    "before, after, killed_after",
    [(4, 3, 2), (4, 3, 4), (4, 3, 6), (3, 4, 5), (2, 9, 2), (4, 3, None)],
)
def test_other_steps_per_epoch_train_all_steps(
    before, after, killed_after, corpus, tmp_path
):
    brain, data = speaker_training(corpus, tmp_path, 7, before)
    if killed_after is not None:
        die_at(brain, killed_after, "fit_batch")
        with pytest.raises(Killed):
            fit(brain, data)
    else:
        fit(brain, data)
    done = fit(*speaker_training(corpus, tmp_path, 7, after))
    assert done.optimizer_step == 7
    steps = [line[0] for line in log_of(tmp_path)]
    assert steps[-1] == "step: 7" and len(set(steps)) == len(steps)


@pytest.mark.parametrize(
    "n_steps, per_epoch, validated",
    [(7, 3, [3, 6, 7]), (2, 5, [2]), (6, 3, [3, 6]), (1, 1, [1])],
)
def test_all_steps_are_trained(n_steps, per_epoch, validated, corpus, tmp_path):
    brain = fit(*speaker_training(corpus, tmp_path, n_steps, per_epoch))
    assert brain.optimizer_step == n_steps
    steps = [line[0] for line in log_of(tmp_path)]
    assert steps == [f"step: {step}" for step in validated]
    # The one-cycle rate has come to its end.
    rates = brain.schedulers["optimizer"]
    assert rates.last_epoch == n_steps


def test_too_few_epochs_are_refused(corpus, tmp_path):
    brain, data = speaker_training(corpus, tmp_path, 7, 3)
    brain.hparams.epoch_counter.limit = 7 // 3
    with pytest.raises(InputError, match="number_of_steps: 7 are more than the 2"):
        fit(brain, data)


def test_crops_do_not_depend_on_the_workers(corpus, tmp_path):
    crops = []
    for num_workers in (0, 2, 4):
        brain, (dataset, _, loading) = speaker_training(
            corpus, tmp_path, num_workers=num_workers
        )
        loader = brain.make_dataloader(dataset, sb.Stage.TRAIN, **loading)
        random.seed(num_workers)  # what went before does not matter
        crops.append([(batch.id, batch.sig.data) for batch in loader])
    for others in crops[1:]:
        for (ids, sig), (other_ids, other_sig) in zip(crops[0], others):
            assert ids == other_ids and torch.equal(sig, other_sig)
    (_, first), (_, second), *_ = crops[0]
    assert not torch.equal(first, second)


def test_an_item_is_another_crop_at_each_draw(corpus, tmp_path):
    _, (dataset, *_) = speaker_training(corpus, tmp_path)
    draws = [dataset[0, 1986, position]["sig"] for position in range(3)]
    assert torch.equal(draws[0], dataset[0, 1986, 0]["sig"])
    assert not torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], dataset[0, 1987, 0]["sig"])


def test_processes_have_the_batches_of_one():
    whole = StepSampler(10, 4, 4, batch_size=6, seed=3)
    parts = [
        StepSampler(10, 4, 4, batch_size=3, seed=3, rank=rank, n_processes=2)
        for rank in range(2)
    ]
    for batch, *halves in zip(whole, *parts):
        assert batch == halves[0] + halves[1]
    accumulated = StepSampler(10, 4, 4, 3, grad_accumulation_factor=2, seed=3)
    assert sum(accumulated, []) == sum(whole, [])
    keys = sum(whole, [])
    # A round is the whole set.
    assert sorted(index for index, *_ in keys[:10]) == list(range(10))
    assert len(set(keys)) == len(keys) == 24


@pytest.mark.parametrize("name, code", [("SIGTERM", 143), ("SIGINT", 130)])
def test_signal_saves_and_the_same_command_goes_on(
    name, code, corpus, tmp_path, capsys
):
    whole = fit(*speaker_training(corpus, tmp_path / "whole", accumulation=2))
    brain, data = speaker_training(corpus, tmp_path / "out", accumulation=2)
    brain.ckpt_interval_steps = 0
    batches = []
    forward = brain.compute_forward

    def signalled(batch, stage):
        batches.append(stage)
        if len(batches) == 3:
            signal.raise_signal(getattr(signal, name))
        return forward(batch, stage)

    brain.compute_forward = signalled
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as ended:
        fit(brain, data)
    assert ended.value.code == code
    # The step was ended: its second batch came, and no further one.
    assert len(batches) == 4 and brain.optimizer_step == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert last.startswith(f"{name} after 2 of 7 steps")
    assert "To go on: python " in last
    assert before == (
        signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    )  # fmt: skip
    again = fit(*speaker_training(corpus, tmp_path / "out", accumulation=2))
    assert_same(state_of(again), state_of(whole))
    assert log_of(tmp_path / "out") == log_of(tmp_path / "whole")


def test_signal_in_a_validation_ends_after_it(corpus, tmp_path):
    brain, data = speaker_training(corpus, tmp_path)
    evaluate = brain.evaluate_batch

    def signalled(batch, stage):
        signal.raise_signal(signal.SIGTERM)
        brain.evaluate_batch = evaluate
        return evaluate(batch, stage)

    brain.evaluate_batch = signalled
    with pytest.raises(SystemExit) as ended:
        fit(brain, data)
    assert ended.value.code == 143 and brain.optimizer_step == 4
    assert brain.checkpointer.find_checkpoint(min_key="EER").meta["step"] == 4


def test_second_signal_ends_at_once():
    with pytest.raises(SystemExit) as ended:
        with stop_request() as stop:
            signal.raise_signal(signal.SIGINT)
            assert stop.signum == signal.SIGINT
            signal.raise_signal(signal.SIGINT)
    assert ended.value.code == 130


def test_folder_of_another_run_is_refused_until_it_is_dead(tmp_path):
    code = (
        "import sys, time\n"
        "from speechbrain_ext.utils.locks import hold_folder\n"
        "hold_folder(sys.argv[1]); print('held', flush=True); time.sleep(60)\n"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)],
        stdout=subprocess.PIPE, text=True, env=ENVIRONMENT,
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=f"in use by process {other.pid} on"):
        hold_folder(tmp_path)
    other.kill()
    other.wait()
    hold_folder(tmp_path)
    hold_folder(tmp_path)  # of this process already


class TooLarge(nn.Linear):
    """PyTorch's error when a file cannot grow, or the system's."""

    error = None

    def state_dict(self, *args, **kwargs):
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        OSError(28, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:664] . unexpected pos"),
    ],
)
def test_full_disk_is_one_line_and_keeps_what_was(error, tmp_path):
    good = nn.Linear(1, 1)
    AtomicCheckpointer(tmp_path, {"model": good}).save_checkpoint()
    full = TooLarge(1, 1)
    full.error = error
    with pytest.raises(InputError, match="cannot be written .* Make room"):
        AtomicCheckpointer(tmp_path, {"model": full}).save_checkpoint()
    assert len(list(tmp_path.glob("CKPT*"))) == 1
    checkpointer = AtomicCheckpointer(tmp_path, {"model": nn.Linear(1, 1)})
    checkpointer.recover_if_possible()
    assert_same(checkpointer.recoverables["model"].state_dict(), good.state_dict())


def test_other_errors_of_a_save_stay_what_they_are(tmp_path):
    broken = TooLarge(1, 1)
    broken.error = RuntimeError("no such parameter")
    with pytest.raises(RuntimeError, match="no such parameter"):
        AtomicCheckpointer(tmp_path, {"model": broken}).save_checkpoint()


def test_full_disk_stops_a_recipe_which_goes_on_with_room(corpus, tmp_path):
    """The system's limit of a file's size stands for the disk's."""
    options = {
        **TINY, "ecapa_channels": 16, "data_folder": corpus,
        "output_folder": tmp_path / "out",
    }  # fmt: skip
    script = patched_train(
        tmp_path,
        "import resource, signal\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000,) * 2)\n",
    )
    full = run(script, ECAPA, options, tmp_path)
    assert full.returncode == 1
    last = full.stderr.strip().splitlines()[-1]
    assert last.startswith("error: a checkpoint cannot be written to")
    assert "Traceback" not in full.stderr
    assert not list((tmp_path / "out" / "save").glob("CKPT*"))
    done = run(TRAIN, ECAPA, options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_twenty_kills_of_a_recipe_change_nothing(corpus, tmp_path):
    options = {
        **TINY, "ecapa_channels": 16, "data_folder": corpus, "augment": True,
        "number_of_steps": 110, "steps_per_epoch": 30, "ckpt_interval_steps": 3,
        "num_workers": 1,
    }  # fmt: skip
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    whole = run(TRAIN, ECAPA, {**options, "output_folder": folders["whole"]}, tmp_path)
    assert whole.returncode == 0, whole.stderr[-3000:]
    rng = random.Random(0)
    killed = {**options, "output_folder": folders["killed"]}
    n_kills = 0
    while n_kills < 20:
        process = subprocess.Popen(
            command(TRAIN, ECAPA, killed), cwd=tmp_path, env=ENVIRONMENT,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for _ in process.stderr:
            if "train_loss" in _ or "Resumed" in _:
                break
        time.sleep(rng.uniform(0, 2))
        if process.poll() is not None:
            break
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        n_kills += 1
    done = run(TRAIN, ECAPA, killed, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert n_kills == 20
    last = [
        max(
            (p.parent for p in folder.glob("save/CKPT*/CKPT.yaml")),
            key=lambda path: path.name,
        )
        for folder in folders.values()
    ]
    for name in ("embedding_model", "classifier", "optimizer"):
        states = [torch.load(path / f"{name}.ckpt") for path in last]
        torch.testing.assert_close(*states, atol=0, rtol=0)
    assert log_of(folders["killed"]) == log_of(folders["whole"])
    metrics = [
        json.loads((Path(folder) / "test/metrics.json").read_text())["EER"]
        for folder in folders.values()
    ]
    assert metrics[0] == metrics[1]
