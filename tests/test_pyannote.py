"""Embeddings in the protocol of pyannote.audio."""

import inspect

import numpy as np
import pytest
import torch

from speechbrain_ext.inference.pyannote import PyannoteEmbedding
from speechbrain_ext.inference.speaker import SpeakerRecognition


@pytest.fixture(scope="module")
def embedding(model_folder):
    return PyannoteEmbedding.from_hparams(model_folder, run_opts={"device": "cpu"})


def test_attributes(embedding):
    assert (embedding.sample_rate, embedding.dimension) == (16000, 12)
    assert embedding.metric == "cosine"
    assert embedding.min_num_samples == embedding.model.encoder.receptive_field
    assert embedding.to(torch.device("cpu")) is embedding


def test_masks_keep_what_they_say(embedding, model_folder):
    torch.manual_seed(0)
    waveforms = 0.1 * torch.randn(4, 1, 16000)
    masks = torch.ones(4, 100)
    masks[1, 50:] = 0
    masks[2, ::2] = 0.2
    masks[3] = 0
    vectors = embedding(waveforms, masks)
    assert vectors.shape == (4, 12) and vectors.dtype == np.float32
    assert np.isnan(vectors[3]).all() and np.isfinite(vectors[:3]).all()
    model = SpeakerRecognition.from_hparams(model_folder)
    kept = [
        waveforms[0, 0],
        waveforms[1, 0, :8000],
        waveforms[2, 0].view(100, 160)[1::2].reshape(-1),
    ]
    for vector, wav in zip(vectors, kept):
        alone = model.encode_batch(wav)[0, 0].numpy()
        np.testing.assert_allclose(vector, alone, atol=1e-5)
    whole = embedding(waveforms)
    np.testing.assert_allclose(whole[0], vectors[0], atol=1e-5)
    assert np.isnan(embedding(waveforms[:, :, :300])).all()


def test_protocol_is_that_of_pyannote(embedding):
    verification = pytest.importorskip(
        "pyannote.audio.pipelines.speaker_verification",
        reason="needs pyannote.audio",
    )
    theirs = verification.PyannoteAudioPretrainedSpeakerEmbedding
    for name in ("sample_rate", "dimension", "metric", "min_num_samples", "to"):
        assert hasattr(theirs, name) and hasattr(embedding, name)
    parameters = inspect.signature(theirs.__call__).parameters
    ours = inspect.signature(PyannoteEmbedding.__call__).parameters
    assert list(parameters) == list(ours)
