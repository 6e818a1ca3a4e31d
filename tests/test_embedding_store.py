"""Embedding stores: atomic, refused across models, resumed after a kill."""

import pytest
import torch
from conftest import write_voice

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference import extraction
from speechbrain_ext.inference.extraction import extract_embeddings, model_fingerprint
from speechbrain_ext.utils.errors import InputError


class MeanModel(torch.nn.Module):
    """Stands for a speaker model: two statistics of the waveform."""

    sample_rate = 16000

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
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(extraction, "if_main_process", lambda: False)
    second = MeanModel()
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(FileNotFoundError):
        # No main process is there to put the parts together.
        extract_embeddings(second, utterances, path)
    assert second.seen == 6
    monkeypatch.setattr(extraction, "if_main_process", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("RANK", "0")
    first = MeanModel()
    store = extract_embeddings(first, utterances, path)
    assert first.seen == 6
    assert sorted(store.ids) == sorted(utterances)


def test_another_model_is_refused(utterances, tmp_path):
    path = tmp_path / "store.safetensors"
    extract_embeddings(MeanModel(), utterances, path)
    other = MeanModel()
    other.scale.data += 1
    with pytest.raises(InputError, match="made by another model"):
        extract_embeddings(other, utterances, path)


def test_no_store(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_text("nothing", encoding="utf-8")
    with pytest.raises(InputError, match="is no embedding store"):
        EmbeddingStore.load(path)
