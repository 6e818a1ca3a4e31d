"""SSL encoders: batch invariance, freezing, errors."""

import pytest
import torch
from transformers import WavLMModel

from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder

FAMILIES = ("wav2vec2", "hubert", "wavlm")


def save_encoder(folder, family, norm):
    return save_random_encoder(
        family,
        folder,
        feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
        conv_bias=norm == "layer",
        layerdrop=0.5,
    )


@pytest.fixture(scope="module")
def wavlm_folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("wavlm"), "wavlm", "group")


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", FAMILIES)
def test_padding_does_not_change_hidden_states(family, norm, tmp_path):
    encoder = SSLEncoder(save_encoder(tmp_path / "hub", family, norm))
    n_samples = [16000, 15999, 9601, 5433, 400]
    wavs = [3 + torch.randn(n) * (i + 1) for i, n in enumerate(n_samples)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    padded[1:, 15999:] = 7.0  # what stands in the padding must not matter
    lengths = torch.tensor(n_samples) / max(n_samples)
    together, frame_lengths = encoder(padded, lengths)
    for i, wav in enumerate(wavs):
        alone, _ = encoder(wav.unsqueeze(0))
        n_frames = alone.shape[2]
        assert round(float(frame_lengths[i]) * together.shape[2]) == n_frames
        difference = (together[:, i, :n_frames] - alone[:, 0]).abs().max()
        assert difference <= 1e-4


def test_matches_transformers_on_one_utterance(wavlm_folder):
    wav = torch.randn(1, 12000)
    expected = WavLMModel.from_pretrained(wavlm_folder).eval()(
        wav, output_hidden_states=True
    )
    hidden_states, lengths = SSLEncoder(wavlm_folder)(wav)
    torch.testing.assert_close(hidden_states, torch.stack(expected.hidden_states))
    assert lengths.tolist() == [1.0]


@pytest.mark.parametrize("norm", ["group", "layer"])
def test_utterances_in_a_row_match_transformers(norm, tmp_path):
    # More than a block of samples, and more than a block of queries
    n_samples = [90_000, 90_000, 40_000, 12_345, 400]
    wavs = [torch.randn(n) * (i + 1) for i, n in enumerate(n_samples)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor(n_samples) / max(n_samples)
    encoder = SSLEncoder(save_encoder(tmp_path / "hub", "wavlm", norm))
    model = WavLMModel(encoder.config).eval()
    # What follows from the weights changes with them.
    for weights in (
        encoder.model.state_dict(),
        WavLMModel(encoder.config).state_dict(),
    ):
        encoder.model.load_state_dict(weights)
        model.load_state_dict(weights)
        hidden_states, frame_lengths = encoder(padded, lengths)
        frames = (frame_lengths * hidden_states.shape[2]).round().long().tolist()
        assert frames == [281, 281, 124, 38, 1]
        for i, wav in enumerate(wavs):
            if encoder.normalize_wav:
                wav = (wav - wav.mean()) / wav.std(correction=0)
            with torch.no_grad():
                expected = model(wav.unsqueeze(0), output_hidden_states=True)
            torch.testing.assert_close(
                hidden_states[:, i, : frames[i]],
                torch.stack(expected.hidden_states)[:, 0],
                atol=1e-5,
                rtol=1e-5,
            )


def test_encoder_made_in_inference_mode(wavlm_folder):
    wavs, lengths = torch.randn(2, 12000), torch.tensor([1.0, 0.5])
    expected, _ = SSLEncoder(wavlm_folder)(wavs, lengths)
    with torch.inference_mode():
        hidden_states, _ = SSLEncoder(wavlm_folder)(wavs, lengths)
    torch.testing.assert_close(hidden_states[:, 0], expected[:, 0])


def test_frozen_encoder_stays_in_eval_mode_and_keeps_no_graph(wavlm_folder):
    encoder = torch.nn.ModuleDict({"ssl": SSLEncoder(wavlm_folder)})
    encoder.train()
    assert not any(m.training for m in encoder["ssl"].modules())
    wav = torch.randn(2, 8000)
    first, _ = encoder["ssl"](wav)
    second, _ = encoder["ssl"](wav)
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert not any(p.requires_grad for p in encoder.parameters())


def test_joint_training_gives_gradients_to_the_transformer_only(wavlm_folder):
    encoder = SSLEncoder(wavlm_folder, freeze=False).train()
    assert encoder.model.encoder.training
    assert not encoder.model.feature_extractor.training
    encoder(torch.randn(2, 8000))[0].sum().backward()
    layers = encoder.model.encoder.layers
    assert all(layer.attention.q_proj.weight.grad is not None for layer in layers)
    assert all(p.grad is None for p in encoder.model.feature_extractor.parameters())


def test_selected_layers(wavlm_folder):
    wav = torch.randn(1, 8000)
    every, _ = SSLEncoder(wavlm_folder)(wav)
    some, _ = SSLEncoder(wavlm_folder, layers=[0, 3])(wav)
    assert torch.equal(some, every[[0, 3]])
    with pytest.raises(ValueError, match="hidden states 0 to 3"):
        SSLEncoder(wavlm_folder, layers=[4])


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_incomplete_folder_is_named(missing, tmp_path):
    folder = save_encoder(tmp_path / "hub", "wavlm", "group")
    (tmp_path / "hub" / missing).unlink()
    wanted = "weights" if missing.startswith("model") else missing
    with pytest.raises(FileNotFoundError, match=f"hub' has no {wanted}"):
        SSLEncoder(folder)


def test_unreachable_hub_says_how_to_give_a_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="give its path as ssl_hub"):
        SSLEncoder("nobody/no-such-encoder", save_path=tmp_path)


def test_too_short_utterance(wavlm_folder):
    with pytest.raises(ValueError, match="399 samples"):
        SSLEncoder(wavlm_folder)(torch.randn(1, 399))


def test_gradient_checkpointing_changes_no_gradient(tmp_path):
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=3, channels=32)
    wavs = torch.randn(2, 8000)
    gradients = []
    for checkpointing in (False, True):
        encoder = SSLEncoder(folder, freeze=False, gradient_checkpointing=checkpointing)
        encoder.model.config.hidden_dropout = 0.0
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        encoder.train()
        assert encoder.model.is_gradient_checkpointing == checkpointing
        hidden_states, _ = encoder(wavs)
        hidden_states.pow(2).sum().backward()
        gradients.append(
            {n: p.grad for n, p in encoder.named_parameters() if p.grad is not None}
        )
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)
