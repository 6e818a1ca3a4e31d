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

import pytest
import speechbrain as sb
import torch
from conftest import ECAPA, TINY, TRAIN, command, patched_train, run
from torch import nn
from trainings import fit, pretraining, speaker_training, state_of

from speechbrain_ext.dataio.datasets import (
    StepSampler,
)
from speechbrain_ext.dataio.manifests import MANIFEST_FIELDS
from speechbrain_ext.training.steps import training_speakers
from speechbrain_ext.utils import signals
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import write_csv
from speechbrain_ext.utils.locks import hold_folder
from speechbrain_ext.utils.signals import stop_request


class Killed(BaseException):
    """Ends a training as a kill would: nothing catches it."""


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
    brain, data = speaker_training(corpus, tmp_path, n_steps, per_epoch)
    brain.hparams.clock._start -= 1e6  # of what was done before, which is no training
    fit(brain, data)
    assert brain.hparams.clock.seconds() < 1e5
    assert brain.optimizer_step == n_steps
    steps = [line[0] for line in log_of(tmp_path)]
    assert steps == [f"step: {step}" for step in validated]
    # The one-cycle rate has come to its end.
    rates = brain.schedulers["optimizer"]
    assert rates.last_epoch == n_steps


def test_rates_that_would_have_no_effect_are_refused(corpus, tmp_path):
    brain, data = speaker_training(corpus, tmp_path, 4, 2)
    die_at(brain, 2, "fit_batch")
    with pytest.raises(Killed):
        fit(brain, data)
    brain, data = speaker_training(corpus, tmp_path, 4, 2)
    schedule = brain.hparams.lr_scheduler
    brain.hparams.lr_scheduler = functools.partial(schedule, max_lr=0.5)
    with pytest.raises(InputError, match="'max_lr': 0.5.* goes on with its own rates"):
        fit(brain, data)


def test_speakers_of_the_checkpoint_are_required(tmp_path):
    checkpointer = AtomicCheckpointer(tmp_path, {"classifier": torch.nn.Linear(1, 2)})
    hparams = {"save_folder": tmp_path, "speeds": [100], "checkpointer": checkpointer}

    def manifest_of(*speakers):
        rows = [(f"{name}/1", "1.wav", name, 1.0) for name in speakers]
        write_csv(tmp_path / "train.csv", MANIFEST_FIELDS, rows)
        return tmp_path / "train.csv"

    assert training_speakers(hparams, manifest_of("a", "b")) == ["a", "b"]
    # Nothing is trained yet.
    assert training_speakers(hparams, manifest_of("a", "c")) == ["a", "c"]
    checkpointer.save_checkpoint()
    assert training_speakers(hparams, manifest_of("c", "a")) == ["a", "c"]
    # As many speakers, so that the classifier would load
    with pytest.raises(InputError, match="of other speakers: b, c are not in both"):
        training_speakers(hparams, manifest_of("a", "b"))


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


def test_readers_go_on_from_epoch_to_epoch(corpus, tmp_path):
    epochs = {}
    for num_workers in (0, 2):
        brain, (dataset, _, loading) = speaker_training(
            corpus, tmp_path, num_workers=num_workers
        )
        loader = brain.make_dataloader(dataset, sb.Stage.TRAIN, **loading)
        seen = []
        for epoch, left_early in ((1, True), (1, False), (2, False)):
            brain.train_sampler.set_epoch(epoch)
            batches = iter(loader)
            first = [next(batches)] if left_early else list(batches)
            seen.append([(batch.id, batch.sig.data) for batch in first])
        epochs[num_workers] = seen
        assert loader.persistent_workers == (num_workers > 0)
    assert [len(seen) for seen in epochs[2]] == [1, 4, 3]
    for own, others in zip(epochs[0], epochs[2]):
        for (ids, sig), (other_ids, other_sig) in zip(own, others, strict=True):
            assert ids == other_ids and torch.equal(sig, other_sig)


@pytest.mark.parametrize("device, pinned", [("cuda:0", True), ("cpu", False)])
def test_batches_for_a_gpu_are_pinned(device, pinned, corpus, tmp_path):
    brain, (dataset, _, loading) = speaker_training(corpus, tmp_path)
    brain.device = device
    loader = brain.make_dataloader(dataset, sb.Stage.TRAIN, **loading)
    assert loader.pin_memory == pinned


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


def test_signal_that_is_handed_on_is_the_same_request():
    with stop_request() as stop:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)  # by torchrun, after Slurm's own
        assert stop.signum == signal.SIGTERM


def test_second_signal_ends_at_once(monkeypatch):
    monkeypatch.setattr(signals, "ONE_REQUEST", 0)
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
        stdout=subprocess.PIPE, text=True,
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
        "number_of_steps": 400, "steps_per_epoch": 150, "ckpt_interval_steps": 3,
        "num_workers": 1,
    }  # fmt: skip
    folders = {name: tmp_path / name for name in ("whole", "killed")}
    whole = run(TRAIN, ECAPA, {**options, "output_folder": folders["whole"]}, tmp_path)
    assert whole.returncode == 0, whole.stderr[-3000:]
    rng = random.Random(0)
    killed = {**options, "output_folder": folders["killed"]}
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, *command(TRAIN, ECAPA, killed)], cwd=tmp_path,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        for line in process.stderr:
            if "train_loss" in line:
                break
        time.sleep(rng.uniform(0, 1))
        assert process.poll() is None, "it ended before the kill"
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    done = run(TRAIN, ECAPA, killed, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
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
