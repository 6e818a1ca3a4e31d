"""Embedding stores: atomic, keyed by all they depend on, resumed after a kill."""

import multiprocessing
import os
import random
import signal

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_voice

from speechbrain_ext.dataio import embedding_store
from speechbrain_ext.dataio.datasets import batches_by_duration
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.prepare import prepare_trials
from speechbrain_ext.inference import extraction, verification
from speechbrain_ext.inference.extraction import extract_embeddings, store_path
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.kd_student import KDStudent
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint


class MeanModel(torch.nn.Module):
    """Stands for a speaker model: two statistics of the waveform."""

    sample_rate = 16000
    fingerprint_ignores = ("n_batches", "fail_after", "seen")

    def __init__(self, fail_after=None):
        super().__init__()
        self.scale = torch.nn.Parameter(torch.ones(1))
        self.n_batches, self.fail_after = 0, fail_after
        self.seen = 0

    @property
    def fingerprint(self):
        return model_fingerprint(self)

    def encode_batch(self, wavs, lengths):
        self.n_batches += 1
        if self.fail_after is not None and self.n_batches > self.fail_after:
            raise KeyboardInterrupt
        self.seen += len(wavs)
        counts = (lengths * wavs.shape[1]).round().long()
        rows = [
            torch.stack([w[:n].mean(), w[:n].abs().mean()])
            for w, n in zip(wavs, counts)
        ]
        return (torch.stack(rows) * self.scale).detach().unsqueeze(1)


@pytest.fixture
def utterances(tmp_path):
    items = {}
    for i in range(12):
        wav = tmp_path / f"{i}.wav"
        write_voice(wav, i % 4, i, duration=0.5 + 0.1 * i)
        items[f"{i % 4}/{i}"] = {
            "wav": str(wav),
            "speaker": str(i % 4),
            "duration": 0.5 + 0.1 * i,
        }
    return items


def test_batches_hold_neighbours_in_duration():
    rng = random.Random(0)
    durations = [rng.uniform(1.5, 20.0) for _ in range(500)] + [90.0]
    batches = batches_by_duration(durations, 60.0)
    assert sorted(sum(batches, [])) == list(range(501))
    assert batches[0] == [500]
    in_batches = [[durations[i] for i in batch] for batch in batches]
    longest = [max(batch) for batch in in_batches]
    assert longest == sorted(longest, reverse=True)
    for batch in in_batches[1:]:
        assert len(batch) * max(batch) <= 60.0
        assert min(batch) >= 0.8 * max(batch)
    padded = sum(len(batch) * max(batch) for batch in in_batches)
    assert padded < 1.05 * sum(durations)


def test_extracted_once(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    model = MeanModel()
    store = extract_embeddings(model, utterances, path, max_batch_duration=3)
    assert store.ids == list(utterances) and model.seen == 12
    assert store.speakers[5] == "1" and store.durations[5] == 1.0
    again = extract_embeddings(model, utterances, path)
    assert model.seen == 12
    assert torch.equal(again.embeddings, store.embeddings)
    some = dict(list(utterances.items())[3:5])
    part = extract_embeddings(model, some, path)
    assert torch.equal(part.embeddings, store.embeddings[3:5])


def test_more_utterances_are_added(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    model = MeanModel()
    some = dict(list(utterances.items())[:5])
    extract_embeddings(model, some, path)
    store = extract_embeddings(model, utterances, path)
    assert model.seen == 12
    assert EmbeddingStore.load(path).speaker_of() == store.speaker_of()


def test_resumes_after_a_kill(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SECONDS_BETWEEN_PARTS", -1)
    path = tmp_path / "store.safetensors"
    killed = MeanModel(fail_after=3)
    with pytest.raises(KeyboardInterrupt):
        extract_embeddings(killed, utterances, path, max_batch_duration=2)
    assert not path.exists() and 0 < killed.seen < 12
    model = MeanModel()
    store = extract_embeddings(model, utterances, path, max_batch_duration=2)
    assert model.seen == 12 - killed.seen
    expected = extract_embeddings(MeanModel(), utterances, tmp_path / "other")
    torch.testing.assert_close(store.embeddings, expected.embeddings)
    assert not path.with_name("store.safetensors.parts").exists()


def test_processes_share_the_work(utterances, tmp_path, monkeypatch):
    path = tmp_path / "store.safetensors"
    monkeypatch.setattr(extraction, "rank_and_processes", lambda: (1, 2))
    monkeypatch.setattr(extraction, "if_main_process", lambda: False)
    second = MeanModel()
    with pytest.raises(FileNotFoundError):
        # No main process is there to put the parts together.
        extract_embeddings(second, utterances, path)
    assert second.seen == 6
    monkeypatch.setattr(extraction, "if_main_process", lambda: True)
    monkeypatch.setattr(extraction, "rank_and_processes", lambda: (0, 1))
    first = MeanModel()
    store = extract_embeddings(first, utterances, path)
    assert first.seen == 6
    assert sorted(store.ids) == sorted(utterances)


def test_another_models_store_is_remade(utterances, tmp_path, caplog):
    path = tmp_path / "store.safetensors"
    extract_embeddings(MeanModel(), utterances, path)
    other = MeanModel()
    other.scale.data += 1
    store = extract_embeddings(other, utterances, path)
    assert "12 of other model (weights): embedded again" in caplog.text
    assert other.seen == 12 and store.fingerprint == other.fingerprint
    fresh = extract_embeddings(other, utterances, tmp_path / "fresh")
    assert torch.equal(store.embeddings, fresh.embeddings)
    assert store_path(other, "train.csv") != store_path(MeanModel(), "train.csv")


def test_audio_overwritten_in_place_is_embedded_again(utterances, tmp_path, caplog):
    path = tmp_path / "store.safetensors"
    before = extract_embeddings(MeanModel(), utterances, path)
    wav = utterances["3/3"]["wav"]
    status = os.stat(wav)
    write_voice(tmp_path / "3.wav", 7, 3, duration=0.8)
    os.utime(wav, ns=(status.st_atime_ns, status.st_mtime_ns + 1))
    assert os.stat(wav).st_size == status.st_size
    model = MeanModel()
    store = extract_embeddings(model, utterances, path)
    assert model.seen == 1 and "1 of other time: embedded again" in caplog.text
    changed = (store.embeddings != before.embeddings).any(dim=1)
    assert changed.nonzero().flatten().tolist() == [3]
    assert extract_embeddings(model, utterances, path) and model.seen == 1


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"start": 0.1}, "start"),
        ({"duration": 0.4}, "duration"),
    ],
)
def test_other_crop_is_embedded_again(utterances, tmp_path, caplog, change, reason):
    path = tmp_path / "store.safetensors"
    crops = {name: {**item, "start": 0.0} for name, item in utterances.items()}
    extract_embeddings(MeanModel(), crops, path)
    crops["0/0"].update(change)
    model = MeanModel()
    store = extract_embeddings(model, crops, path)
    assert model.seen == 1 and f"1 of other {reason}: " in caplog.text
    fresh = extract_embeddings(MeanModel(), crops, tmp_path / "fresh")
    torch.testing.assert_close(store.embeddings, fresh.embeddings)


def test_same_ids_in_another_folder_are_other_rows(utterances, tmp_path, caplog):
    path = tmp_path / "store.safetensors"
    clean = extract_embeddings(MeanModel(), utterances, path)
    noisy = {}
    for i, (name, item) in enumerate(utterances.items()):
        wav = tmp_path / "noisy" / f"{i}.wav"
        write_voice(wav, 9, i, item["duration"])
        noisy[name] = {**item, "wav": str(wav)}
    store = extract_embeddings(MeanModel(), noisy, path)
    assert "12 of other file, size, time" in caplog.text or (
        "12 of other file, time" in caplog.text
    )
    assert (store.embeddings != clean.embeddings).any(dim=1).all()


def test_audio_that_is_gone_keeps_its_embedding(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    before = extract_embeddings(MeanModel(), utterances, path)
    for item in utterances.values():
        os.remove(item["wav"])
    model = MeanModel()
    store = extract_embeddings(model, utterances, path)
    assert model.seen == 0 and torch.equal(store.embeddings, before.embeddings)


def test_store_of_a_former_version_is_remade(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    model = MeanModel()
    store = extract_embeddings(model, utterances, path)
    store.row_keys = None
    store.save(path)
    extract_embeddings(model, utterances, path)
    assert model.seen == 24


def test_speakers_are_those_of_the_manifest(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    extract_embeddings(MeanModel(), utterances, path)
    utterances["0/0"]["speaker"] = "renamed"
    assert extract_embeddings(MeanModel(), utterances, path).speakers[0] == "renamed"


def test_store_goes_elsewhere_from_a_read_only_folder(tmp_path, monkeypatch):
    model, manifest = MeanModel(), tmp_path / "train.csv"
    assert store_path(model, manifest, store_folder="out").parent == tmp_path
    # The superuser, whom tests may run as, can write everywhere.
    monkeypatch.setattr(os, "access", lambda folder, mode: False)
    assert str(store_path(model, manifest, store_folder="out").parent) == "out"


def test_half_written_part_is_no_part(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    parts = tmp_path / "store.safetensors.parts"
    parts.mkdir()
    (parts / ".partial-host-1-abc.safetensors").write_bytes(b"half")
    (parts / "abc.safetensors").write_bytes(b"cut short by a full disk")
    store = extract_embeddings(MeanModel(), utterances, path)
    assert store.ids == list(utterances) and not parts.exists()


def test_kills_at_random_change_nothing(utterances, tmp_path, monkeypatch):
    monkeypatch.setattr(extraction, "SECONDS_BETWEEN_PARTS", -1)
    expected = extract_embeddings(
        MeanModel(), utterances, tmp_path / "whole", max_batch_duration=1
    )
    path = tmp_path / "store.safetensors"
    fork = multiprocessing.get_context("fork")
    rng = random.Random(1986)
    n_kills = 0
    while n_kills < 10:
        process = fork.Process(
            target=extract_embeddings, args=(MeanModel(), utterances, path, 1)
        )
        process.start()
        process.join(rng.uniform(0, 0.1))
        process.kill()
        process.join()
        n_kills += process.exitcode == -signal.SIGKILL
        if path.exists():
            # Another round from the start, or from some rows.
            rng.choice((path.unlink, lambda: drop_rows(path, 7)))()
    model = MeanModel()
    store = extract_embeddings(model, utterances, path, max_batch_duration=1)
    assert store.ids == expected.ids
    assert torch.equal(store.embeddings, expected.embeddings)
    assert not [p.name for p in tmp_path.iterdir() if ".part" in p.name]


def drop_rows(path, n_rows):
    store = EmbeddingStore.load(path)
    EmbeddingStore(
        store.ids[:n_rows],
        store.embeddings[:n_rows],
        store.speakers[:n_rows],
        store.durations[:n_rows],
        store.fingerprint,
        store.row_keys[:n_rows],
    ).save(path)


@pytest.mark.parametrize("n_writes", range(1, 5))
def test_kill_in_any_write_changes_nothing(utterances, tmp_path, monkeypatch, n_writes):
    """As a kill in the middle of a write leaves it: half a file, no clean-up."""
    monkeypatch.setattr(extraction, "SECONDS_BETWEEN_PARTS", -1)
    path = tmp_path / "store.safetensors"
    written = []

    def save_half(tensors, partial, metadata):
        written.append(partial)
        embedding_store_save(tensors, partial, metadata)
        if len(written) == n_writes:
            left = partial.with_name(partial.name.replace(str(os.getpid()), "99999999"))
            left.write_bytes(partial.read_bytes()[:100])
            raise KeyboardInterrupt

    embedding_store_save = embedding_store.save_file
    with monkeypatch.context() as patch:
        patch.setattr(embedding_store, "save_file", save_half)
        with pytest.raises(KeyboardInterrupt):
            extract_embeddings(MeanModel(), utterances, path, max_batch_duration=3)
    model = MeanModel()
    store = extract_embeddings(model, utterances, path, max_batch_duration=3)
    expected = extract_embeddings(MeanModel(), utterances, tmp_path / "whole")
    torch.testing.assert_close(store.embeddings, expected.embeddings)
    assert n_writes == 1 or model.seen < 12
    assert not [p.name for p in tmp_path.iterdir() if ".part" in p.name]


def test_no_store(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match="is no embedding store"):
        EmbeddingStore.load(path)


@pytest.fixture
def recording(tmp_path):
    """Two minutes whose first half is loud."""
    wav = np.random.default_rng(1).normal(size=120 * 16000) * 0.01
    wav[: 60 * 16000] *= 10
    soundfile.write(tmp_path / "long.wav", wav, 16000)
    item = {"wav": str(tmp_path / "long.wav"), "speaker": "a", "duration": 120.0}
    return {"long": item}


def test_windows_are_averaged(recording, utterances, tmp_path, caplog):
    path = tmp_path / "store.safetensors"
    items = {**utterances, **recording}
    whole = extract_embeddings(MeanModel(), items, path)
    model = MeanModel()
    store = extract_embeddings(model, items, path, window_length=20, window_overlap=5)
    # Only what is longer than a window depends on the windows.
    assert "1 of other windows: embedded again" in caplog.text
    assert model.seen == 8 and torch.equal(store.embeddings[:12], whole.embeddings[:12])
    model = MeanModel()
    apart = extract_embeddings(model, items, path, window_length=20)
    assert model.seen == 6
    # Windows that share nothing have the recording's mean as their mean.
    torch.testing.assert_close(apart.embeddings, whole.embeddings)
    model = MeanModel()
    extract_embeddings(model, items, path, window_length=20)
    assert model.seen == 0


def tiny_model():
    torch.manual_seed(0)
    return SpeakerRecognition(
        NormalizedFbank(24, keep_spectrum=True),
        KDStudent(24, 16, 16),
        16000,
        threshold=0.25,
    )


def test_file_in_windows_is_the_stores_embedding(recording, tmp_path):
    model = tiny_model()
    cut = {"window_length": 50, "window_overlap": 10}
    store = extract_embeddings(model, recording, tmp_path / "store.safetensors", **cut)
    wav = recording["long"]["wav"]
    embedding = model.encode_file(wav, **cut)
    torch.testing.assert_close(embedding, store.embeddings[0], atol=1e-4, rtol=1e-4)
    whole = model.encode_file(wav)
    assert torch.equal(whole, model.encode_batch(model.load_audio(wav)[None])[0, 0])
    score, same = model.verify_files(wav, wav, **cut)
    assert score.shape == same.shape == (1,)
    assert score.item() == pytest.approx(1.0) and same


def test_clean_and_then_noisy_into_one_folder(corpus, tmp_path, monkeypatch):
    for plot in ("plot_det", "plot_scores"):
        monkeypatch.setattr(verification, plot, lambda *args: None)
    noisy = tmp_path / "noisy"
    rng = np.random.default_rng(0)
    for wav in corpus.rglob("*.wav"):
        copy = noisy / wav.relative_to(corpus)
        copy.parent.mkdir(parents=True, exist_ok=True)
        samples, rate = soundfile.read(wav)
        soundfile.write(copy, samples + rng.normal(size=len(samples)) * 0.1, rate)

    def scores(data, folder):
        manifest, trials = prepare_trials("folder", data, folder, n_trials=40)
        verification.verify(tiny_model(), manifest, trials, folder)
        return (folder / "scores.txt").read_text("utf-8")

    clean = scores(corpus, tmp_path / "v")
    assert scores(noisy, tmp_path / "v") == scores(noisy, tmp_path / "fresh") != clean


def test_two_hours_are_refused_or_cut(tmp_path, monkeypatch):
    wav = tmp_path / "meeting.wav"
    soundfile.write(wav, np.full(7200 * 1000, 0.25), 1000, "PCM_U8")
    items = {"m": {"wav": str(wav), "speaker": "a", "duration": 7200.0}}
    path = tmp_path / "store.safetensors"
    model = MeanModel()
    model.sample_rate = 1000
    with pytest.raises(InputError, match=r"meeting.wav' has 7200 s.*window_length"):
        extract_embeddings(model, items, path)
    assert model.seen == 0

    longest = 0
    encode_batch = model.encode_batch

    def encode(wavs, lengths):
        nonlocal longest
        longest = max(longest, wavs.numel())
        return encode_batch(wavs, lengths)

    monkeypatch.setattr(model, "encode_batch", encode)
    store = extract_embeddings(model, items, path, window_length=60, window_overlap=10)
    torch.testing.assert_close(store.embeddings, torch.full((1, 2), 0.25))
    assert model.seen == 144 and longest <= 120 * 1000


def test_lack_of_memory_names_the_file(utterances, tmp_path, monkeypatch):
    model = MeanModel()

    def no_memory(wavs, lengths):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")

    monkeypatch.setattr(model, "encode_batch", no_memory)
    with pytest.raises(InputError, match=r"11.wav' \(2 s\); give a smaller max_batch"):
        extract_embeddings(model, utterances, tmp_path / "store.safetensors")


@pytest.mark.parametrize(
    "length, overlap, message",
    [
        (None, 1, "window_overlap 1 has no effect without window_length"),
        (0, 0, "window_length 0"),
        (7200, 0, "window_length 7200"),
        (10, 10, "window_overlap 10"),
        (10, -1, "window_overlap -1"),
    ],
)
def test_windows_that_cannot_be(utterances, tmp_path, length, overlap, message):
    with pytest.raises(InputError, match=message):
        extract_embeddings(
            MeanModel(), utterances, tmp_path / "x",
            window_length=length, window_overlap=overlap,
        )  # fmt: skip
