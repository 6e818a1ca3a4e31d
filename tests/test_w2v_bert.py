"""w2v-BERT 2.0: features, padding, LoRA, layer adapters, its three stages."""

import json
import sys

import numpy as np
import pytest
import torch
from conftest import ROOT, TINY, TRAIN, run
from speechbrain.integrations.huggingface.w2v_bert import W2VBert

from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes import LayerAdapterMFA
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.encoders.w2v_bert import W2VBertEncoder
from speechbrain_ext.utils.checkpoints import best_checkpoint
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_random_encoder("w2v-bert", tmp_path_factory.mktemp("ssl") / "tiny")


def speech(n_samples, seed=0):
    """A waveform with silence, whose filter banks are at their floor."""
    rng = np.random.default_rng(seed)
    wav = 0.1 * rng.standard_normal(n_samples)
    wav[: n_samples // 10] = 0
    return torch.tensor(wav, dtype=torch.float32)


@pytest.mark.parametrize("n_samples", [560, 16000, 16160, 24321])
def test_features_are_those_of_hugging_face(folder, n_samples):
    encoder = W2VBertEncoder(folder)
    wav = speech(n_samples)
    expected = encoder.feature_extractor(
        wav.numpy(), sampling_rate=16000, return_tensors="pt"
    )
    n_frames = int(expected.attention_mask.sum())
    padded = torch.nn.functional.pad(wav, (0, 1000), value=7.0).repeat(2, 1)
    features, counts = encoder.filter_banks(
        padded, torch.tensor([n_samples, n_samples + 1000])
    )
    assert counts[0] == n_frames and features.shape[1:] == (counts[1], 160)
    difference = features[0, :n_frames] - expected.input_features[0, :n_frames]
    assert difference.abs().max() < 1e-3


def test_hidden_states_are_those_of_speechbrain(folder):
    wavs = torch.stack([speech(16160), speech(16160, seed=1)])
    theirs = W2VBert(folder, "unused", output_all_hiddens=True).eval()
    hidden_states, lengths = W2VBertEncoder(folder)(wavs)
    assert hidden_states.shape == (4, 2, 49, 32)
    # Theirs keeps an odd last frame, which it masks.
    expected = theirs(wavs)[:, :, :49]
    torch.testing.assert_close(hidden_states, expected, atol=1e-3, rtol=1e-3)
    assert lengths.tolist() == [1, 1]


def test_padding_changes_no_embedding(folder):
    torch.manual_seed(0)
    encoder = W2VBertEncoder(folder)
    model = LayerAdapterMFA(32, 4, adapter_channels=8, emb_dim=16).eval()
    n_samples = [16000, 9601, 560]
    wavs = [speech(n, seed=n) for n in n_samples]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    padded[1:, 9700:] = 7.0  # what stands in the padding must not matter
    lengths = torch.tensor(n_samples) / 16000
    with torch.no_grad():
        embeddings = model(*encoder(padded, lengths))
        for embedding, wav in zip(embeddings, wavs):
            alone = model(*encoder(wav.unsqueeze(0)))[0]
            assert (embedding - alone).abs().max() < 1e-4
    with pytest.raises(ValueError, match="559 samples is shorter"):
        encoder(torch.rand(1, 559))


@pytest.mark.parametrize("freeze", [True, False])
def test_lora_is_trained_alone_or_with_the_rest(folder, freeze):
    encoder = W2VBertEncoder(folder, freeze=freeze, lora_rank=4).train()
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    lora = [name for name in trained if "lora_" in name]
    # A and B of queries and values in three layers
    assert len(lora) == 12 and all("linear_" in name for name in lora)
    assert (trained == lora) == freeze
    hidden_states, _ = encoder(torch.rand(1, 8000))
    hidden_states[-1].sum().backward()
    parameters = dict(encoder.named_parameters())
    assert all(parameters[name].grad is not None for name in lora)


def test_lora_starts_as_the_encoder_itself(folder):
    wav = speech(8000).unsqueeze(0)
    plain, _ = W2VBertEncoder(folder)(wav)
    with_lora, _ = W2VBertEncoder(folder, lora_rank=4)(wav)
    torch.testing.assert_close(plain, with_lora)
    assert not W2VBertEncoder(folder)(wav)[0].requires_grad


def test_errors(folder, tmp_path, monkeypatch):
    wavlm = save_small_wavlm(tmp_path / "wavlm", n_layers=1)
    with pytest.raises(InputError, match="wavlm' is a wavlm; W2VBertEncoder takes"):
        W2VBertEncoder(wavlm)
    with pytest.raises(InputError, match="SSLEncoder takes wav2vec2.*all families"):
        SSLEncoder(folder)
    with pytest.raises(InputError, match="lora_targets: .*nowhere"):
        W2VBertEncoder(folder, lora_rank=4, lora_targets=["nowhere"])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="nobody/nothing.* no local folder"):
        W2VBertEncoder("nobody/nothing")
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[lora\]"'):
        W2VBertEncoder(folder, lora_rank=4)


def test_recipe_in_three_stages(corpus, tmp_path, folder):
    few = {"number_of_steps": 2, "steps_per_epoch": 1, "speeds": [100]}
    stages = {
        "frozen": {**few, "freeze": True},
        "joint": {**few, "freeze": False},
        "large_margin": {**few, "freeze": False, "margin": 0.5},
    }
    options = {
        **{k: v for k, v in TINY.items() if k not in few},
        "data_folder": corpus, "ssl_hub": folder, "augment": False,
        "lora_rank": 4, "adapter_channels": 8, "stages": json.dumps(stages),
        "output_folder": tmp_path / "out", "grad_accumulation_factor": 1,
    }  # fmt: skip
    done = run(TRAIN, ROOT / "hparams/w2v_bert_mfa.yaml", options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    before = W2VBertEncoder(folder, lora_rank=4).state_dict()
    for stage in stages:
        checkpoint = best_checkpoint(tmp_path / "out" / stage / "save").path
        trained = torch.load(checkpoint / "encoder.ckpt", weights_only=True)
        changed = {n for n in before if not torch.equal(before[n], trained[n])}
        assert any("lora_B" in name for name in changed)
        assert any("lora_" not in name for name in changed) == (stage != "frozen")
    model = SpeakerRecognition.from_training(tmp_path / "out/large_margin")
    assert model.encode_batch(torch.rand(1, 16000)).shape == (1, 1, 256)
