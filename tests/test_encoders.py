"""Every family of encoders keeps the contract, and every system runs on it."""

import copy
import json
import sys
from pathlib import Path

import pytest
import torch
from conftest import SHARED
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, WhisperModel

from speechbrain_ext.lobes import (
    LAP_ASTP,
    LTDNN,
    MHFA,
    Encoder,
    LayerAdapterMFA,
    LayerPooled,
    MaskedECAPA,
    MaskedXvector,
    WeightedLayerSum,
    WhisperEncoder,
    load_encoder,
)
from speechbrain_ext.lobes.encoders.cls_encoder import FirstFrame, load_cls_encoder
from speechbrain_ext.lobes.encoders.random_encoder import FAMILIES, save_random_encoder
from speechbrain_ext.training.brains import layer_groups
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint

N_LAYERS, CHANNELS = 4, 32
SYSTEMS = {
    "L-TDNN": lambda: LTDNN(
        CHANNELS, N_LAYERS, conv_channels=16, pooled_channels=16, emb_dim=8,
        n_heads=2, se_channels=8,
    ),
    "LAP": lambda: LAP_ASTP(
        CHANNELS, N_LAYERS, pooled_channels=16, emb_dim=8, n_heads=2
    ),
    "SUPERB, x-vector": lambda: LayerPooled(
        WeightedLayerSum(N_LAYERS), MaskedXvector(in_channels=CHANNELS)
    ),
    "SUPERB, ECAPA-TDNN": lambda: LayerPooled(
        WeightedLayerSum(N_LAYERS), MaskedECAPA(CHANNELS, lin_neurons=8)
    ),
    "MHFA": lambda: MHFA(
        WeightedLayerSum(N_LAYERS), WeightedLayerSum(N_LAYERS), CHANNELS,
        compressed_channels=8, n_heads=4, emb_dim=8,
    ),
    "layer adapters": lambda: LayerAdapterMFA(
        CHANNELS, N_LAYERS, adapter_channels=8, emb_dim=8
    ),
}  # fmt: skip


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(scope="module")
def folder(family, tmp_path_factory):
    return save_random_encoder(family, tmp_path_factory.mktemp("ssl") / family)


@pytest.fixture(scope="module")
def whisper_folder(tmp_path_factory):
    return save_random_encoder("whisper", tmp_path_factory.mktemp("ssl") / "whisper")


@pytest.fixture
def real_whisper():
    folder = SHARED / "encoders" / "whisper-tiny.en"
    if not folder.is_dir():
        pytest.skip(f"needs the pre-trained encoder {folder}")
    return str(folder)


def batch():
    """Waveforms of different lengths, alone and padded with what is no speech."""
    generator = torch.Generator().manual_seed(0)
    wavs = [0.1 * torch.randn(n, generator=generator) for n in (9600, 6011, 2417)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    padded[1:, 6100:] = 7.0
    lengths = torch.tensor([len(wav) for wav in wavs]) / padded.shape[1]
    return wavs, padded, lengths


def test_use_changes_no_fingerprint(folder):
    encoder = load_encoder(folder)
    before = model_fingerprint(encoder)
    _, padded, lengths = batch()
    encoder(padded, lengths)
    assert model_fingerprint(encoder) == before
    assert model_fingerprint(load_encoder(folder)) == before


def check_invariance(encoder):
    wavs, padded, lengths = batch()
    together, relative = encoder(padded, lengths)
    assert together.shape[::3] == (encoder.n_layers, encoder.channels)
    for i, wav in enumerate(wavs):
        alone, _ = encoder(wav.unsqueeze(0))
        n_frames = alone.shape[2]
        assert round(float(relative[i] * together.shape[2])) == n_frames
        difference = (together[:, i, :n_frames] - alone[:, 0]).abs().max()
        assert difference <= 1e-5 * alone.abs().max().clamp(min=1)


def test_contract(family, folder):
    encoder = load_encoder(folder)
    assert isinstance(encoder, Encoder)
    assert (encoder.n_layers, encoder.channels) == (N_LAYERS, CHANNELS)
    assert len(encoder.transformer_layers) == N_LAYERS - 1
    assert encoder.hop == 320 and encoder.sample_rate == 16000
    encoder.train()
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in encoder.parameters())
    check_invariance(encoder)
    # A crop of stored hidden states has the frames of a crop that is encoded.
    for n_samples in (48000, 48159, 48160, 7999, encoder.receptive_field):
        states, lengths = encoder(torch.rand(1, n_samples))
        assert encoder.frames_of(n_samples) == states.shape[2]
        counts = encoder.frames_of(torch.tensor([n_samples]))
        assert (lengths * states.shape[2]).round().equal(counts.float())
    assert encoder.frames_of(48000) == (150 if family == "whisper" else 149)
    shortest, _ = encoder(torch.rand(1, encoder.receptive_field))
    assert shortest.shape[2] == 1
    with pytest.raises(ValueError, match="is shorter than one frame"):
        encoder(torch.rand(1, encoder.receptive_field - 1))


@pytest.mark.parametrize("with_gradients", [False, True])
def test_layers_above_the_highest_hidden_state_are_skipped(
    with_gradients, family, folder
):
    with torch.set_grad_enabled(with_gradients):
        every, _ = load_encoder(folder, freeze=False).eval()(torch.ones(1, 4000))
        for chosen in ([0], [1, 0], [0, N_LAYERS - 2], [N_LAYERS - 1]):
            encoder = load_encoder(folder, freeze=False, layers=chosen).eval()
            called = []
            for layer in encoder.transformer_layers:
                layer.register_forward_hook(lambda layer, *_: called.append(layer))
            some, _ = encoder(torch.ones(1, 4000))
            assert torch.equal(some, every[chosen])
            # One above it is computed, since the last one may be normalised.
            assert len(called) == min(max(chosen) + 1, N_LAYERS - 1)
            assert len(encoder.transformer_layers) == N_LAYERS - 1


def test_padding_does_not_leak_from_biases(family, folder):
    """As new, biases are zero and norms are one, which would hide a leak."""
    encoder = load_encoder(folder)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, parameter in encoder.model.named_parameters():
            if name.endswith("bias") or "norm" in name:
                parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
        for module in encoder.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.running_mean.normal_(generator=generator)
    check_invariance(encoder)


def test_hidden_states_are_those_of_transformers(family, folder):
    if family == "whisper":
        pytest.skip("tested below: transformers' class takes 30 s only")
    wav = batch()[0][0]
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    theirs = AutoModel.from_pretrained(folder).eval()
    inputs = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    expected = theirs(**inputs, output_hidden_states=True).hidden_states
    hidden_states, _ = load_encoder(folder)(wav.unsqueeze(0))
    expected = torch.stack(expected)[:, :, : hidden_states.shape[2]]
    torch.testing.assert_close(hidden_states, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_runs_on_every_family(family, folder, system):
    torch.manual_seed(0)
    encoder, model = load_encoder(folder), SYSTEMS[system]().eval()
    wavs, padded, lengths = batch()
    with torch.no_grad():
        embeddings = model(*encoder(padded, lengths))
        for embedding, wav in zip(embeddings, wavs):
            alone = model(*encoder(wav.unsqueeze(0)))[0]
            scale = embedding.abs().max().clamp(min=1)
            assert (embedding - alone).abs().max() <= 1e-5 * scale


@pytest.mark.parametrize("freeze", [True, False])
def test_lora_changes_what_it_is_trained_for(family, folder, freeze):
    wav = batch()[0][0].unsqueeze(0)
    plain, _ = load_encoder(folder)(wav)
    encoder = load_encoder(folder, freeze=freeze, lora_rank=2)
    trained = [n for n, p in encoder.named_parameters() if p.requires_grad]
    lora = [name for name in trained if "lora_" in name]
    # A and B of queries and values in three layers
    assert len(lora) == 12 and (trained == lora) == freeze
    torch.testing.assert_close(encoder.eval()(wav)[0].detach(), plain)
    encoder.train()
    encoder(wav)[0].square().sum().backward()
    parameters = dict(encoder.named_parameters())
    assert all(parameters[name].grad is not None for name in trained)
    # The gradient of A is zero as long as B is.
    assert all(parameters[name].grad.any() for name in lora if "lora_B" in name)
    with torch.no_grad():
        for name in lora:
            parameters[name].add_(0.3)
    changed, _ = encoder.eval()(wav)
    for layer in range(1, N_LAYERS):
        assert (changed[layer] - plain[layer]).abs().max() > 1e-3


def test_layers_that_are_not_returned_are_not_trained(family, folder):
    encoder = load_encoder(folder, freeze=False, layers=[0, 1], lora_rank=2).train()
    encoder(batch()[1])[0].square().sum().backward()
    trained = [(n, p.grad) for n, p in encoder.named_parameters() if p.requires_grad]
    assert [name for name, gradient in trained if gradient is None] == []
    assert not any(p.requires_grad for p in encoder.transformer_layers[1].parameters())


@pytest.mark.parametrize("settings", [{"freeze": False}, {"lora_rank": 2}])
def test_gradient_checkpointing_computes_layers_again(family, folder, settings):
    gradients, calls = [], []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        encoder = load_encoder(folder, gradient_checkpointing=checkpointing, **settings)
        for module in encoder.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
            if isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0
        encoder.train()
        inner = next(
            m for m in encoder.transformer_layers[0].modules()
            if isinstance(m, torch.nn.LayerNorm)
        )  # fmt: skip
        calls.append(0)

        def count(*_):
            calls[-1] += 1

        inner.register_forward_pre_hook(count)
        encoder(batch()[1])[0].square().sum().backward()
        gradients.append([p.grad for p in encoder.parameters() if p.requires_grad])
    assert calls == [1, 2]
    # The gradient of a key's bias is zero but for rounding.
    scale = max(gradient.abs().max() for gradient in gradients[0])
    for once, again in zip(*gradients, strict=True):
        torch.testing.assert_close(once, again, atol=1e-5 * float(scale), rtol=1e-3)


def test_rates_fall_from_layer_to_layer(family, folder):
    groups = layer_groups(load_encoder(folder, freeze=False), decay=0.5)
    assert [group["lr_scale"] for group in groups] == [0.125, 0.25, 0.5, 1]


def test_copies_are_independent(family, folder):
    encoder = load_encoder(folder, lora_rank=2)
    _, padded, lengths = batch()
    before, _ = encoder(padded, lengths)
    other = copy.deepcopy(encoder)
    other(padded[:1, :4000])
    assert torch.equal(other(padded, lengths)[0], before)


def test_inserted_frame(family, folder):
    if family == "whisper":
        with pytest.raises(InputError, match="counts positions.*ssl_mean_wavlm"):
            load_cls_encoder(folder)
        return
    encoder = load_cls_encoder(folder)
    plain = load_encoder(folder)
    wavs, padded, lengths = batch()
    assert encoder(padded)[0].shape[2] == plain(padded)[0].shape[2] + 1
    check_invariance(encoder)
    assert FirstFrame()(*encoder(padded, lengths)).shape == (3, 1, CHANNELS)


@pytest.mark.parametrize("n_samples", [400, 9601, 16000])
def test_log_mel_energies_are_those_of_the_feature_extractor(whisper_folder, n_samples):
    encoder = load_encoder(whisper_folder)
    wav = torch.randn(n_samples, generator=torch.Generator().manual_seed(0))
    wav[: n_samples // 2] *= 1e-6  # below the dynamic range
    expected = encoder.feature_extractor(
        wav.numpy(), sampling_rate=16000, return_tensors="pt", padding="do_not_pad"
    ).input_features[0]
    alone = encoder.log_mel(wav.unsqueeze(0), torch.tensor([n_samples]))
    torch.testing.assert_close(alone[0].T, expected, atol=1e-5, rtol=0)
    padded = torch.nn.functional.pad(wav, (0, 1000), value=7.0).repeat(2, 1)
    counts = torch.tensor([n_samples, n_samples + 1000])
    in_batch = encoder.log_mel(padded, counts)[0, : expected.shape[1]]
    torch.testing.assert_close(in_batch.T, expected, atol=1e-5, rtol=0)


def test_real_whisper_gives_the_hidden_states_of_transformers(real_whisper):
    """At 30 s, with every weight of the checkpoint and no other."""
    wav = 0.1 * torch.randn(480000, generator=torch.Generator().manual_seed(0))
    extractor = AutoFeatureExtractor.from_pretrained(real_whisper)
    features = extractor(wav.numpy(), sampling_rate=16000, return_tensors="pt")
    theirs = WhisperModel.from_pretrained(real_whisper, dtype=torch.float32).encoder
    with torch.no_grad():
        expected = theirs.eval()(**features, output_hidden_states=True)
    encoder = load_encoder(real_whisper)
    assert isinstance(encoder, WhisperEncoder)
    loaded = encoder.model.state_dict()
    stored = {
        name.removeprefix("model.encoder."): value.float()
        for name, value in load_file(Path(real_whisper) / "model.safetensors").items()
    }
    assert loaded.keys() == stored.keys()
    assert [n for n in stored if not torch.equal(loaded[n], stored[n])] == []
    hidden_states, lengths = encoder(wav.unsqueeze(0))
    assert hidden_states.shape == (5, 1, 1500, 384) and lengths.tolist() == [1]
    difference = hidden_states - torch.stack(expected.hidden_states)
    assert difference.abs().max() <= 1e-4
    assert torch.equal(expected.hidden_states[-1], expected.last_hidden_state)


def test_real_whisper_on_short_utterances(real_whisper):
    encoder = load_encoder(real_whisper)
    check_invariance(encoder)
    wav = batch()[0][0]
    cut, _ = encoder(wav.unsqueeze(0))
    # transformers' class, told that its windows have the utterance's length
    theirs = WhisperModel.from_pretrained(real_whisper, dtype=torch.float32).encoder
    theirs.eval()
    n_frames = cut.shape[2]
    theirs.config.max_source_positions = n_frames
    positions = torch.nn.Embedding(n_frames, 384)
    positions.weight.data = theirs.embed_positions.weight.data[:n_frames]
    theirs.embed_positions = positions
    with torch.no_grad():
        expected = theirs(
            encoder.log_mel(wav.unsqueeze(0), torch.tensor([len(wav)])).mT,
            output_hidden_states=True,
        ).hidden_states
    assert (cut - torch.stack(expected)).abs().max() <= 1e-4


def test_whisper_encodes_longer_utterances_in_windows(tmp_path):
    source = save_random_encoder("whisper", tmp_path / "w", max_source_positions=20)
    encoder = load_encoder(source)
    # windows of 20 frames, which are 6400 samples
    check_invariance(encoder)
    wav = batch()[0][0].unsqueeze(0)
    hidden_states, _ = encoder(wav)
    assert hidden_states.shape[2] == 30
    mel = encoder.log_mel(wav, torch.tensor([wav.shape[1]]))
    for start, end in ((0, 40), (40, 60)):
        window = encoder.model(mel[:, start:end].mT, torch.tensor([end - start]))
        part = hidden_states[:, :, start // 2 : end // 2]
        torch.testing.assert_close(part, torch.stack(window))


def test_families_that_no_class_takes(tmp_path, whisper_folder):
    folder = Path(save_random_encoder("hubert", tmp_path / "ssl"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "bert"}))
    with pytest.raises(InputError, match="ssl_hub: .* is a bert; the families .*wavlm"):
        load_encoder(folder)
    del config["model_type"]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="config.json .* has no model_type"):
        load_encoder(folder)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        load_encoder("/nowhere/at/all")
    with pytest.raises(InputError, match="lora_targets: .*nowhere"):
        load_encoder(whisper_folder, lora_rank=2, lora_targets=["fc1", "nowhere"])


def test_unreachable_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(OSError, match="nobody/nothing.* give its path as ssl_hub"):
        load_encoder("nobody/nothing", save_path=tmp_path)


def test_lora_without_peft(whisper_folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(InputError, match=r'pip install -e "\.\[lora\]"'):
        load_encoder(whisper_folder, lora_rank=2)
