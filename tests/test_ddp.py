"""Two processes on CPUs train what one process trains with the whole batch.

All of them run in one pair of processes (gloo), started once: importing the
packages takes most of the time.
"""

import datetime
import logging
import os
import time
import traceback
import types

import pytest
import speechbrain as sb
import torch
from conftest import write_corpus, write_voice
from speechbrain.augment.augmenter import Augmenter
from speechbrain.augment.time_domain import AddNoise, DropChunk
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.lobes.models.ECAPA_TDNN import ECAPA_TDNN, Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper
from speechbrain.utils.epoch_loop import EpochCounter
from torch import nn
from trainings import pretraining

from speechbrain_ext.augment.span_drop import SpanDrop
from speechbrain_ext.dataio.datasets import StepSampler, crop_pair_dataset
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.inference.hidden_state_cache import cache_hidden_states
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.lobes.models.mhfa import MHFA
from speechbrain_ext.nnet.batch_norm import synchronise_on_cpus
from speechbrain_ext.nnet.masking import frame_counts, masked_batch_norm
from speechbrain_ext.nnet.pooling import WeightedLayerSum
from speechbrain_ext.training.brains import SpeakerBrain
from speechbrain_ext.training.pretraining import validation_loader
from speechbrain_ext.utils.distributed import (
    in_all_processes,
    on_main_process,
    together,
    union_of_processes,
)
from speechbrain_ext.utils.errors import InputError

WORLD = 2
SECONDS = 120  # after which an exchange that one process does not join fails
CHANNELS, LAYERS = 32, 3  # of the encoder
DURATIONS = (0.4, 0.9, 0.5, 0.7, 0.6)  # seconds, of utterances to embed


# --- What is trained


def ltdnn():
    return LTDNN(
        CHANNELS, LAYERS, conv_channels=16, pooled_channels=16, emb_dim=8,
        n_heads=4, dilations=(2, 3), se_channels=4, dropout=0.0,
    )  # fmt: skip


def lap():
    return LAP_ASTP(
        CHANNELS, LAYERS, pooled_channels=16, emb_dim=8, n_heads=4, dropout=0.0
    )


def mhfa():
    return MHFA(
        WeightedLayerSum(LAYERS), WeightedLayerSum(LAYERS), CHANNELS,
        compressed_channels=8, n_heads=4, emb_dim=8,
    )  # fmt: skip


def ecapa(channels):
    return ECAPA_TDNN(
        channels, lin_neurons=8, channels=[16] * 4 + [48], attention_channels=8,
        se_channels=8, res2net_scale=2,
    )  # fmt: skip


def superb_ecapa():
    return LayerPooled(WeightedLayerSum(LAYERS), ecapa(CHANNELS))


# Embedding model, and what differs from the plain training
SYSTEMS = {
    "L-TDNN": (ltdnn, {}),
    "L-TDNN, span drop": (ltdnn, {"span_drop": True}),
    "L-TDNN, augmentation": (ltdnn, {"augment": True}),
    "L-TDNN, accumulation": (ltdnn, {"span_drop": True, "accumulation": 2}),
    "L-TDNN, encoder trained after a step": (
        ltdnn,
        {"freeze": False, "encoder_frozen_steps": 1, "layer_lr_decay": 0.5},
    ),
    "LAP, span drop": (lap, {"span_drop": True, "freeze": False}),
    "MHFA": (mhfa, {"freeze": False, "accumulation": 2}),
    # SpeechBrain's layers count padding, and its filter banks know no double precision.
    "ECAPA-TDNN": (lambda: ecapa(24), {"encoder": "fbank", "is_plain": True}),
    "SUPERB + ECAPA-TDNN": (superb_ecapa, {"is_plain": True}),
}


class OneByOne:
    """Draws for each utterance by its length, in whatever batch it is.

    Training draws for whole batches, so that one process would draw other
    numbers than two; here they draw the same.

    Arguments
    ---------
    module : torch.nn.Module
        From a batch and lengths to both.
    batch_dim : int
        Where the utterances are; their frames or samples are one further.
    """

    def __init__(self, module, batch_dim):
        self.module = module
        self.dim = batch_dim

    def __call__(self, x, lengths):
        items = []
        for i, count in enumerate(frame_counts(lengths, x.shape[self.dim + 1])):
            item = x.narrow(self.dim, i, 1).narrow(self.dim + 1, 0, int(count))
            with torch.random.fork_rng():
                sb.utils.seed.seed_everything(int(count))
                items.append(self.module(item, torch.ones(1))[0])
        counts = torch.tensor([item.shape[self.dim + 1] for item in items])
        rest = [0, 0] * (x.dim() - self.dim - 2)
        padded = [
            nn.functional.pad(item, (*rest, 0, int(counts.max() - count)))
            for item, count in zip(items, counts)
        ]
        return torch.cat(padded, self.dim), counts / counts.max()

    def replicate_labels(self, labels):
        return labels


class RecordingBrain(SpeakerBrain):
    """Keeps the gradients of each step, and the last validation's numbers."""

    gradients = ()

    def optimizers_step(self):
        self.gradients = (*self.gradients, named(self.modules, "grad"))
        super().optimizers_step()

    def end_validation(self, valid_stats, summary, meta, min_key):
        self.validated = valid_stats


def named(modules, attribute="data"):
    """Of each trained parameter, by a name that has no wrappers in it."""
    return {
        name.replace(".module.", "."): getattr(p, attribute).clone()
        for name, p in modules.named_parameters()
        if p.requires_grad and getattr(p, attribute) is not None
    }


def build(folder, name):
    make_model, settings = SYSTEMS[name]
    settings = {"encoder": "ssl", "freeze": True, **settings}
    torch.manual_seed(0)
    encoder = (
        NormalizedFbank(24)
        if settings["encoder"] == "fbank"
        else SSLEncoder(folder / "wavlm", freeze=settings["freeze"])
    )
    for module in encoder.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    for key in ("hidden_dropout", "attention_dropout", "activation_dropout"):
        if settings["encoder"] == "ssl":
            setattr(encoder.model.config, key, 0.0)
    for layer in getattr(encoder, "transformer_layers", ()):
        layer.attention.dropout = 0.0
    span_drop = OneByOne(SpanDrop(1.0, 0.1, 3), batch_dim=1)
    augment = Augmenter(
        concat_original=False, min_augmentations=2, max_augmentations=2,
        augmentations=[AddNoise(snr_low=5, snr_high=5), DropChunk(200, 400, 1, 3)],
    )  # fmt: skip
    brain = RecordingBrain(
        modules={
            "encoder": encoder,
            "embedding_model": make_model(),
            "classifier": Classifier(8, out_neurons=4),
        },
        opt_class=lambda groups: torch.optim.SGD(groups, lr=0.1),
        hparams={
            "lr_scheduler": lambda o: torch.optim.lr_scheduler.ConstantLR(o, 1.0),
            "encoder_lr_scheduler": lambda o: torch.optim.lr_scheduler.ConstantLR(
                o, 1.0
            ),
            "seed": 1986,
            "number_of_steps": 2,
            "steps_per_epoch": 2,
            "layer_lr_decay": settings.get("layer_lr_decay", 1.0),
            "encoder_frozen_steps": settings.get("encoder_frozen_steps", 0),
            "margin_schedule": None,
            "classifier_weight_decay": None,
            "fea_augment": span_drop if settings.get("span_drop") else None,
            "augment": settings.get("augment", False),
            "wav_augment": OneByOne(augment, batch_dim=0),
            "compute_cost": LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30)),
            "epoch_counter": EpochCounter(1),
        },
        run_opts={
            "device": "cpu",
            "distributed_backend": "gloo",
            "grad_accumulation_factor": settings.get("accumulation", 1),
        },
        valid_trials=Trials([1, 0], ["0", "0"], ["1", "2"]),
    )
    brain.train_sampler = StepSampler(4, 2, 2, batch_size=4)
    return brain


def batch_of(number, rank, world, padding=True, dtype=torch.float32):
    """A rank's share of four utterances; the first half has one length."""
    generator = torch.Generator().manual_seed(number)
    lengths = (8000, 8000, 7000, 5000) if padding else [8000] * 4
    items = [
        {
            "id": str(i),
            "sig": torch.randn(length, generator=generator, dtype=dtype),
            "spk_id_encoded": torch.tensor([i]),
        }
        for i, length in enumerate(lengths)
    ]
    share = len(items) // world
    return PaddedBatch(items[rank * share : (rank + 1) * share])


def in_single_precision(name):
    return SYSTEMS[name][1].get("encoder") == "fbank"


def train(folder, name, rank=0, world=1):
    """Two steps; losses, gradients and what they lead to."""
    brain = build(folder, name)
    # In double precision two ways to the same numbers differ by 1e-10, not 1e-3.
    is_plain = SYSTEMS[name][1].get("is_plain", False)
    dtype = torch.float32 if in_single_precision(name) else torch.float64
    brain.modules.to(dtype)
    brain.on_fit_start()
    brain.modules.train()
    losses = []
    for number in range(2 * brain.grad_accumulation_factor):
        brain.step += 1
        batch = batch_of(number, rank, world, not is_plain, dtype)
        losses.append(float(brain.fit_batch(batch)))
    buffers = brain.modules.named_buffers()
    return {
        "losses": torch.tensor(losses),
        "gradients": brain.gradients,
        "parameters": named(brain.modules),
        "buffers": {n.replace(".module.", "."): b for n, b in buffers},
    }


# --- What else the processes do


def normalise(folder, rank=0, world=1):
    """Batch norm for CPUs, and that for GPUs, whose own forward wants GPUs."""
    return {
        "for CPUs": normalise_with(synchronise_on_cpus, rank, world),
        "for GPUs": normalise_with(
            nn.SyncBatchNorm.convert_sync_batchnorm, rank, world
        ),
    }


def normalise_with(convert, rank, world):
    """Batch norm with padding in the second process only."""
    torch.manual_seed(0)
    x = 3 * torch.randn(4, 6, 3, 10) + 20
    mask = torch.arange(10) < torch.tensor([[10], [10], [7], [1]])
    weights = torch.randn_like(x) * mask[:, None, None]
    share = slice(rank * 4 // world, (rank + 1) * 4 // world)
    norm = nn.BatchNorm2d(6, momentum=None)
    if world > 1:
        norm = convert(norm)
    x = x[share].requires_grad_()
    mask = None if bool(mask[share].all()) else mask[share]
    y = masked_batch_norm(norm, x, mask)
    (y * weights[share]).sum().backward()
    return {
        "y": y.detach(),
        "of_x": x.grad,
        "of_weight": norm.weight.grad,
        "of_bias": norm.bias.grad,
        "buffers": dict(norm.named_buffers()),
    }


def validate(folder, rank=0, world=1):
    """A validation of a model whose attention to layers has collapsed."""
    brain = build(folder, "LAP, span drop")
    brain.on_fit_start()
    pooling = brain.modules.embedding_model
    pooling = getattr(pooling, "module", pooling).layer_pooling
    nn.init.zeros_(pooling.excite_weight)
    warnings = []
    handler = logging.Handler()
    handler.emit = lambda record: warnings.append(record.getMessage())
    logging.getLogger("speechbrain_ext").addHandler(handler)
    brain.on_stage_start(sb.Stage.VALID)
    brain.modules.eval()
    for first in (0, 1):
        brain.evaluate_batch(batch_of(0, first, 2), sb.Stage.VALID)
    brain.train_loss = 0.0
    brain.on_stage_end(sb.Stage.VALID, 0.0, 1)
    return {"warnings": warnings, "validated": brain.validated}


def share_validation(folder, rank=0, world=1):
    """A validation whose processes have different numbers of batches."""
    brain = build(folder, "L-TDNN")
    brain.on_fit_start()
    brain.on_stage_start(sb.Stage.VALID)
    brain.modules.eval()
    numbers = range(4) if world == 1 else [[0], [1, 2, 3]][rank]
    for number in numbers:
        brain.evaluate_batch(batch_of(0, number, 4), sb.Stage.VALID)
    own = list(brain.valid_embeddings)
    brain.train_loss = 0.0
    brain.on_stage_end(sb.Stage.VALID, 0.0, 1)
    return {
        "own": own,
        "embeddings": union_of_processes(brain.valid_embeddings),
        "validated": brain.validated,
    }


def validate_pretraining(folder, rank=0, world=1):
    """Losses of a validation of three batches, which have masks of their own."""
    brain, (train_data, *_) = pretraining(
        folder / "speech", folder / f"pretraining_{rank}_of_{world}"
    )
    brain.train_sampler = StepSampler(8, 3, 2, batch_size=2)
    brain.on_fit_start()
    dataset = crop_pair_dataset(train_data.data, 16000, 0.5)
    brain.modules.eval()
    brain.on_stage_start(sb.Stage.VALID)
    for batch in validation_loader(dataset, batch_size=2):
        brain.step += 1
        brain.evaluate_batch(batch, sb.Stage.VALID)
    own = list(brain.valid_losses)
    brain.train_loss, validated = 0.0, []
    brain.end_validation = lambda *args, **kwargs: validated.append(args)
    brain.on_stage_end(sb.Stage.VALID, 0.0, 1)
    return {"own": own, "validated": validated}


def extract(folder, rank=0, world=1):
    """Embeddings of five utterances, and which of them this process embedded."""
    embedded = []

    class Noted(SpeakerRecognition):
        def encode_batch(self, wavs, lengths):
            embedded.extend((wavs.shape[1] * lengths).round().int().tolist())
            return super().encode_batch(wavs, lengths)

    modules = build(folder, "L-TDNN").modules
    model = Noted(modules.encoder, modules.embedding_model, 16000)
    utterances = {
        str(i): {"wav": str(folder / f"{i}.wav"), "speaker": "a", "duration": duration}
        for i, duration in enumerate(DURATIONS)
    }
    store = extract_embeddings(model, utterances, folder / f"of_{world}.safetensors")
    of_one_core, n_threads = list(embedded), torch.get_num_threads()
    torch.set_num_threads(2)
    path = folder / f"two_cores_of_{world}.safetensors"
    on_two_cores = extract_embeddings(model, utterances, path, max_batch_duration=0.4)
    torch.set_num_threads(n_threads)
    return {
        "ids": store.ids,
        "embeddings": store.embeddings,
        "embedded": of_one_core,
        "on two cores": on_two_cores.embeddings,
    }


def cache(folder, rank=0, world=1):
    """Hidden states of five utterances, which two threads of each process encode."""
    encoded = []

    class Noted(SSLEncoder):
        def encode(self, wav, samples):
            encoded.append(len(wav))
            return super().encode(wav, samples)

    encoder = Noted(folder / "wavlm", freeze=True)
    utterances = {
        str(i): {"wav": str(folder / f"{i}.wav"), "speaker": "a", "duration": duration}
        for i, duration in enumerate(DURATIONS)
    }
    n_threads = torch.get_num_threads()
    torch.set_num_threads(2)
    path = folder / f"states_of_{world}"
    (states,) = cache_hidden_states(encoder, [utterances], path, "cpu", 0.4)
    n_encoded = len(encoded)
    cache_hidden_states(encoder, [utterances], path)
    torch.set_num_threads(n_threads)
    return {
        "encoded": n_encoded,
        "again": len(encoded) - n_encoded,
        "states": {n: states.read(n, 0, states.n_frames(n)) for n in utterances},
    }


def count_exchanges(folder, rank=0, world=1):
    """All-reduces of a step, by the number of batches that it accumulates."""
    counts = {}
    for accumulation in (1, 4):
        brain = build(folder, "MHFA")
        brain.grad_accumulation_factor = accumulation
        brain.on_fit_start()
        brain.modules.train()
        brain.step = accumulation  # DDP's first step has exchanges of its own
        brain.fit_batch(batch_of(0, rank, world))
        with torch.profiler.profile() as profile:
            for number in range(accumulation):
                brain.step += 1
                brain.fit_batch(batch_of(number, rank, world))
        counts[accumulation] = sum(
            "all_reduce" in event.name for event in profile.events()
        )
    return counts


def fail(folder, rank=0, world=1):
    """What each process gets where one of them fails."""

    def fail_with(error):
        raise error

    def on_main(error):
        on_main_process(fail_with, error)

    def on_the_other(error):
        with together():
            if rank == 1:
                raise error

    def lose():
        brain = build(folder, "MHFA")
        brain.checkpointer = types.SimpleNamespace(checkpoints_dir="save")
        brain.check_loss_isfinite(torch.tensor(float("nan") if rank else 1.0))

    raised = {}
    for name, call, arguments in (
        ("main, input", on_main, [InputError("no such corpus")]),
        ("main, file", on_main, [FileNotFoundError(2, "gone", "x.wav")]),
        ("other, bug", on_the_other, [KeyError("bug")]),
        ("other, loss", lose, []),
    ):
        try:
            call(*arguments)
        except Exception as error:
            raised[name] = (type(error).__name__, str(error))
    raised["everywhere"] = in_all_processes(True), in_all_processes(rank == 0)
    called = []
    on_main_process(called.append, rank)
    raised["called"] = called
    return raised


def wait(folder, rank=0, world=1):
    """What two processes find where one works for longer than exchanges may take."""
    seconds = datetime.timedelta(seconds=0.5)
    torch.distributed.distributed_c10d._set_pg_timeout(seconds)
    done = []

    def work():
        time.sleep(1.5)
        done.append(rank)

    on_main_process(work)
    with together():
        if rank == 1:
            work()
    if rank == 0:
        work()
    found = union_of_processes({rank: len(done)})
    try:
        if rank == 0:
            work()
        torch.distributed.barrier()
    except RuntimeError as error:
        return found, str(error)
    return found, None


# Here belongs what ranks must draw differently: crops, augmentation and span
# drop of two processes that share no draw.
JOBS = {
    **{
        name: lambda folder, rank, world, name=name: train(folder, name, rank, world)
        for name in SYSTEMS
    },
    "normalise": normalise,
    "validate": validate,
    "share validation": share_validation,
    "validate pre-training": validate_pretraining,
    "extract": extract,
    "cache": cache,
    "count exchanges": count_exchanges,
    "fail": fail,
    "wait": wait,  # the last, which leaves the group of no use
}


def one_of_two(rank, folder):
    """All jobs in one of the processes; a file of results for each."""
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(WORLD))
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=WORLD,
        timeout=datetime.timedelta(seconds=SECONDS),
    )
    for name, job in JOBS.items():
        try:
            result = job(folder, rank, WORLD)
        except Exception:
            result = traceback.format_exc()
        torch.save(result, folder / f"{name}.{rank}.pt")
        if isinstance(result, str):
            break  # the other process would wait for this one in the next job
    torch.distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    save_small_wavlm(folder / "wavlm", n_layers=2, channels=CHANNELS, n_bands=8)
    for i, duration in enumerate(DURATIONS):
        write_voice(folder / f"{i}.wav", i, 0, duration)
    write_corpus(folder / "speech", n_speakers=7, n_utterances=1)
    torch.multiprocessing.start_processes(
        one_of_two, [folder], nprocs=WORLD, start_method="forkserver"
    )
    return folder


@pytest.fixture
def of_two(folder):
    """Loads what a job gave in both processes."""

    def load(name):
        results = []
        for rank in range(WORLD):
            path = folder / f"{name}.{rank}.pt"
            assert path.is_file(), "a job before this one failed"
            results.append(torch.load(path, weights_only=False))
            assert not isinstance(results[-1], str), results[-1]
        return results

    return load


@pytest.mark.parametrize("name", SYSTEMS)
def test_two_processes_train_as_one(name, folder, of_two):
    first, second = of_two(name)
    one = train(folder, name)
    # The same model in both, to the last bit
    for kind in ("gradients", "parameters", "buffers"):
        torch.testing.assert_close(first[kind], second[kind], rtol=0, atol=0)
    closeness = {"rtol": 1e-5, "atol": 1e-6}
    if in_single_precision(name):
        closeness = {"rtol": 1e-3, "atol": 1e-4}
    losses = (first["losses"] + second["losses"]) / 2
    torch.testing.assert_close(losses, one["losses"], **closeness)
    for kind in ("gradients", "parameters", "buffers"):
        torch.testing.assert_close(first[kind], one[kind], **closeness)
    assert len(one["gradients"]) == 2 and one["gradients"][0]


@pytest.mark.parametrize("kind", ["for CPUs", "for GPUs"])
def test_batch_norm_counts_the_frames_of_both(kind, folder, of_two):
    first, second = (result[kind] for result in of_two("normalise"))
    one = normalise(folder)[kind]
    for key in ("y", "of_x"):
        both = torch.cat([first[key], second[key]])
        if key == "y":
            valid = torch.arange(10) < torch.tensor([[10], [10], [7], [1]])
            assert both[2:].masked_select(~valid[2:, None, None]).abs().max() == 0
        torch.testing.assert_close(both, one[key])
    for key in ("of_weight", "of_bias"):
        torch.testing.assert_close(first[key] + second[key], one[key])
    for result in (first, second):
        torch.testing.assert_close(result["buffers"], one["buffers"])


def test_collapse_is_named(folder, of_two):
    first, second = of_two("validate")
    for result in (first, validate(folder)):
        assert any("has collapsed" in warning for warning in result["warnings"])
    assert second["warnings"] == []  # said once
    assert first["validated"] == second["validated"]


def test_validation_is_shared(folder, of_two):
    first, second = of_two("share validation")
    one = share_validation(folder)
    assert (first["own"], second["own"]) == (["0"], ["1", "2", "3"])
    for result in (first, second):
        assert result["validated"] == one["validated"]
        assert result["embeddings"].keys() == one["embeddings"].keys()
        for name, embedding in one["embeddings"].items():
            torch.testing.assert_close(result["embeddings"][name], embedding)


def test_validation_of_pretraining_is_shared(folder, of_two):
    first, second = of_two("validate pre-training")
    one = validate_pretraining(folder)
    assert one["own"] == [1, 2, 3]
    assert (first["own"], second["own"]) == ([1, 3], [2])
    ((stats, summary, meta),) = one["validated"]
    assert meta["loss"] > 1 and summary.startswith("prediction ")
    for result in (first, second):
        ((stats_of_two, _, meta_of_two),) = result["validated"]
        assert meta_of_two == pytest.approx(meta, rel=1e-5)
        assert stats_of_two == pytest.approx(stats, rel=1e-5)


def test_too_few_utterances_to_validate_pretraining_on():
    with pytest.raises(InputError, match="batch_size: 3, but there are 2 utterances"):
        validation_loader(crop_pair_dataset({"a": {}, "b": {}}, 16000, 0.5), 3)


def test_two_processes_extract_the_embeddings_of_one(folder, of_two):
    first, second = of_two("extract")
    one = extract(folder)
    n_samples = [round(16000 * duration) for duration in DURATIONS]
    assert sorted(one["embedded"]) == sorted(n_samples)
    assert len(first["embedded"]) == 3 and len(second["embedded"]) == 2
    assert sorted(first["embedded"] + second["embedded"]) == sorted(n_samples)
    for result in (first, second):
        assert result["ids"] == one["ids"] == ["0", "1", "2", "3", "4"]
        torch.testing.assert_close(
            result["embeddings"], one["embeddings"], rtol=1e-5, atol=1e-5
        )
        # A batch of one utterance is rounded alike wherever it is computed.
        assert torch.equal(result["on two cores"], one["on two cores"])


def test_two_processes_encode_the_hidden_states_of_one(folder, of_two):
    first, second = of_two("cache")
    one = cache(folder)
    assert (first["encoded"], second["encoded"], one["encoded"]) == (3, 2, 5)
    for result in (first, second, one):
        assert result["again"] == 0 and result["states"].keys() == one["states"].keys()
        for name, states in one["states"].items():
            assert torch.equal(result["states"][name], states)


def test_accumulated_batches_are_not_exchanged(of_two):
    for counts in of_two("count exchanges"):
        assert counts[4] == counts[1] > 0


def test_one_failure_stops_both(of_two):
    first, second = of_two("fail")
    for raised in (first, second):
        assert raised["main, input"] == ("InputError", "no such corpus")
        assert raised["other, loss"][0] == "InputError"
        assert raised["other, loss"][1].startswith("the loss is")
        assert raised["everywhere"] == (True, False)
    assert first["main, file"] == ("FileNotFoundError", "[Errno 2] gone: 'x.wav'")
    assert second["main, file"] == ("OSError", "[Errno 2] gone: 'x.wav'")
    assert first["other, bug"][0] == "RuntimeError"
    assert second["other, bug"][0] == "KeyError"
    assert (first["called"], second["called"]) == ([0], [])


def test_others_wait_as_long_as_the_work_takes(of_two):
    """Which exchanges of a training step do not, as they have no such work."""
    for found, error in of_two("wait"):
        assert found == {0: 2, 1: 1}
        assert error is not None
