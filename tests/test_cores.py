"""A batch on each core gives what one after the other does."""

import itertools
import os
import signal
import threading

import pytest
import soundfile
import torch
from processes import forked

from speechbrain_ext.inference import extraction
from speechbrain_ext.inference.cores import on_each_core
from speechbrain_ext.inference.extraction import extract_embeddings, extract_missing
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.teacher_frames import TeacherFrames
from speechbrain_ext.lobes import LTDNN, MaskedXvector, NormalizedFbank, load_encoder
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.nnet.derived import Derived


@pytest.fixture
def two_threads():
    """PyTorch with two threads, as many as before afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


class NotesLength(torch.nn.Module):
    """Notes something on itself in a forward pass, as encoders do."""

    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(4, 4)
        self.doubled = Derived(lambda weight: 2 * weight)
        self.length = 0
        self.gallery = [torch.ones(3)]
        self.linear.register_forward_hook(self.add_length)

    def add_length(self, part, arguments, output):
        """Adds what was noted before another thread could have."""
        return output + self.length

    def forward(self, x, meet=lambda: None):
        """Notes the length."""
        self.length = len(x)
        meet()
        return self.linear(x)


def test_batches_at_once_do_not_see_each_other(two_threads):
    module = NotesLength().eval()
    batches = [torch.rand(n, 4) for n in (5, 4, 3, 2)]
    both = threading.Barrier(2)

    def compute(own, batch):
        assert own.linear.weight is module.linear.weight
        assert own.doubled is module.doubled and own.gallery is module.gallery
        return own(batch, lambda: both.wait(timeout=60)), torch.get_num_threads()

    with torch.no_grad():
        results = list(on_each_core(compute, module, iter(batches), 4))
    assert all(batch is own for batch, (own, _) in zip(batches, results))
    for batch, (output, n_threads) in results:
        assert n_threads == 1
        assert torch.equal(output, module(batch))
        assert not output.requires_grad
    assert torch.get_num_threads() == 2


def test_autocast_and_gradients_hold_on_each_core(two_threads):
    module = torch.nn.Linear(4, 4)
    batches = list(torch.rand(3, 2, 4))
    with torch.autocast("cpu", torch.bfloat16):
        results = list(on_each_core(lambda own, x: own(x), module, batches, 3))
    assert {y.dtype for _, y in results} == {torch.bfloat16}
    assert all(y.requires_grad for _, y in results)


def test_a_batch_that_fails_ends_the_work(two_threads):
    begun = []

    def compute(own, batch):
        begun.append(batch)
        if batch == 1:
            raise ValueError("batch 1")
        return batch

    results = on_each_core(compute, torch.nn.ReLU(), range(100), 100)
    assert next(results) == (0, 0)
    with pytest.raises(ValueError, match="batch 1"):
        list(results)
    assert len(begun) < 10


def test_few_batches_have_all_threads(two_threads):
    compute = lambda own, batch: (own, torch.get_num_threads())  # noqa: E731
    module = torch.nn.ReLU()
    assert list(on_each_core(compute, module, [0], 1)) == [(0, (module, 2))]


def test_embeddings_do_not_depend_on_the_number_of_threads(tmp_path, two_threads):
    encoder = load_encoder("speechbrain_ext/wavlm-small", freeze=True)
    sizes = {"in_channels": encoder.channels, "n_layers": encoder.n_layers}
    back_end = LTDNN(**sizes, conv_channels=16, pooled_channels=16, n_heads=2)
    model = SpeakerRecognition(encoder, back_end, 16000)
    utterances = {}
    for i, seconds in enumerate((6.0, 5.5, 5.2, 2.0, 1.9, 0.5)):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, torch.randn(int(seconds * 16000)) * 0.1, 16000)
        utterances[str(i)] = {"wav": str(path), "speaker": "a", "duration": seconds}
    stores = []
    for n_threads, num_workers in ((2, 0), (1, 0), (2, 2)):
        torch.set_num_threads(n_threads)
        path = tmp_path / f"{n_threads} threads {num_workers}.safetensors"
        store = extract_embeddings(model, utterances, path, num_workers=num_workers)
        stores.append(store.embeddings)
    assert torch.equal(stores[0], stores[1]) and torch.equal(stores[0], stores[2])
    alone = torch.stack(
        [model.encode_file(item["wav"]) for item in utterances.values()]
    )
    assert torch.allclose(stores[0], alone, atol=1e-5)


@pytest.mark.parametrize(
    "family", ["wavlm", "wav2vec2", "hubert", "w2v-bert", "whisper"]
)
def test_an_encoder_on_each_core(family, tmp_path, two_threads):
    encoder = load_encoder(save_random_encoder(family, tmp_path / "encoder"))
    wavs = [torch.randn(3, n) for n in (16000, 12000, 9000)]
    batches = [(wav, torch.tensor([1.0, 0.8, 0.5])) for wav in wavs]
    with torch.inference_mode():
        results = list(
            on_each_core(lambda own, batch: own(*batch), encoder, batches, 3)
        )
        for batch, (states, lengths) in results:
            expected, expected_lengths = encoder(*batch)
            assert torch.allclose(states, expected, atol=1e-5)
            assert torch.equal(lengths, expected_lengths)
            assert states.is_inference()


def fbank_model():
    torch.manual_seed(0)
    model = MaskedXvector(in_channels=24, tdnn_channels=[16] * 5, lin_neurons=8)
    return SpeakerRecognition(NormalizedFbank(24), model, 16000)


def extract_until(signum, utterances, path):
    """In a process of its own, which a signal meets while both cores are busy."""
    torch.set_num_threads(2)
    extraction.SECONDS_BETWEEN_PARTS = -1
    signal.signal(signal.SIGINT, signal.default_int_handler)  # as of a terminal
    calls, both = itertools.count(), threading.Barrier(2)
    encode_batch = SpeakerRecognition.encode_batch

    def signalled(self, *batch):
        embeddings = encode_batch(self, *batch)
        if next(calls) in (4, 5) and both.wait(timeout=60) == 0:
            os.kill(os.getpid(), signum)
        return embeddings

    SpeakerRecognition.encode_batch = signalled
    extract_embeddings(fbank_model(), utterances, path, max_batch_duration=1)


@pytest.mark.parametrize("signum, exit_code", [("SIGKILL", -9), ("SIGINT", 1)])
def test_a_signal_while_both_cores_are_busy(signum, exit_code, tmp_path, two_threads):
    utterances = {}
    for i in range(12):
        path = tmp_path / f"{i}.wav"
        seconds = 1.0 + 0.02 * i
        soundfile.write(path, torch.randn(int(seconds * 16000)) * 0.1, 16000)
        utterances[str(i)] = {"wav": str(path), "speaker": "a", "duration": seconds}
    path = tmp_path / "killed.safetensors"
    process = forked.Process(
        target=extract_until, args=(getattr(signal, signum), utterances, path)
    )
    process.start()
    process.join(300)
    assert process.exitcode == exit_code and not path.exists()
    store, missing = extract_missing(fbank_model(), utterances, path, 1)
    assert 0 < len(missing) < 12
    expected = extract_embeddings(fbank_model(), utterances, tmp_path / "whole", 1)
    assert store.ids == expected.ids
    assert torch.allclose(store.embeddings, expected.embeddings, atol=1e-5)
    assert not path.with_name("killed.safetensors.parts").exists()


def test_layers_of_a_teacher_on_each_core(two_threads):
    teacher = SpeakerRecognition(
        NormalizedFbank(24),
        MaskedXvector(in_channels=24, tdnn_channels=[16] * 4 + [30], lin_neurons=12),
        16000,
    )
    frames = TeacherFrames(teacher, ["blocks.2", "blocks.14"])
    batches = list(torch.randn(6, 2, 8000))
    results = list(on_each_core(lambda own, x: own(x)[0], frames, batches, 6))
    for batch, found in results:
        assert torch.allclose(found, frames(batch)[0], atol=1e-5)
