"""Fine-tuned SSL encoders: temporal mean, inserted frame, their recipes."""

import json

import pytest
import torch
from conftest import ROOT, TINY, TRAIN, run
from transformers import WavLMModel

from speechbrain_ext.config import read_configuration
from speechbrain_ext.lobes.encoders.cls_encoder import CLSEncoder, FirstFrame
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.models.layer_mean import LayerMean
from speechbrain_ext.utils.checkpoints import best_checkpoint
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def wavlm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ssl") / "wavlm"
    return save_small_wavlm(folder, n_layers=2, channels=32, n_bands=8)


@pytest.mark.parametrize("norm", ["group", "layer"])
@pytest.mark.parametrize("family", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize(
    "encoder_class, embedding_model",
    [(SSLEncoder, LayerMean()), (CLSEncoder, FirstFrame())],
)
def test_embeddings_do_not_depend_on_padding(
    encoder_class, embedding_model, family, norm, tmp_path
):
    folder = save_random_encoder(
        family, tmp_path / "hub", feat_extract_norm=norm,
        do_stable_layer_norm=norm == "layer",
    )  # fmt: skip
    encoder = encoder_class(folder)
    torch.manual_seed(0)
    wavs = torch.randn(2, 16000)
    lengths = torch.tensor([1.0, 0.6])
    padded = embedding_model(*encoder(wavs, lengths))
    for i, n in enumerate((16000, 9600)):
        alone = embedding_model(*encoder(wavs[i : i + 1, :n]))
        assert (padded[i] - alone[0]).abs().max() < 1e-4


def test_mean_of_any_layer():
    hidden_states = torch.randn(4, 2, 5, 3)
    for layer, expected in ((-1, 3), (0, 0), (2, 2)):
        mean = LayerMean(layer, n_layers=4)(hidden_states)
        torch.testing.assert_close(mean.squeeze(1), hidden_states[expected].mean(1))
    for layer in (4, -5):
        with pytest.raises(InputError, match=f"mean_layer: {layer}, .* states 0 to 3"):
            LayerMean(layer, n_layers=4)


def test_layer_of_the_mean_is_a_key(wavlm):
    options = [f"--ssl_hub={wavlm}", "--mean_layer=1"]
    path = str(ROOT / "hparams" / "ssl_mean_wavlm.yaml")
    hparams = read_configuration([path, *options], demo=False).build()
    assert hparams["embedding_model"].layer == 1
    with pytest.raises(InputError, match="mean_layer: 7"):
        read_configuration([path, *options, "--mean_layer=7"], demo=False).build()


def test_inserted_frame_is_constant_and_sees_the_utterance(wavlm):
    encoder = CLSEncoder(wavlm)
    torch.manual_seed(0)
    wav = torch.randn(1, 16000)
    inputs = []
    encoder.model.encoder.register_forward_hook(
        lambda module, arguments, output: inputs.append(arguments[0])
    )
    first = FirstFrame()(*encoder(wav))
    assert inputs[0].shape[1] == 49 and (inputs[0][:, 0] == 1).all()
    changed = wav.clone()
    changed[:, 12000:] = torch.randn(4000)
    assert (FirstFrame()(*encoder(changed)) - first).abs().max() > 1e-4


@pytest.mark.parametrize("name", ["ssl_mean_wavlm", "ssl_cls_wavlm"])
def test_recipes(corpus, tmp_path, wavlm, name):
    options = {
        **TINY, "data_folder": corpus, "ssl_hub": wavlm,
        "output_folder": tmp_path / "out",
    }  # fmt: skip
    done = run(TRAIN, ROOT / "hparams" / f"{name}.yaml", options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert metrics["parameters"]["embedding_model"] == 0
    # Four of the six steps are frozen with the mean, none with the frame.
    assert changed_layers(tmp_path / "out", wavlm)


def changed_layers(output_folder, wavlm):
    checkpoint = best_checkpoint(output_folder / "save").path / "encoder.ckpt"
    trained = torch.load(checkpoint, weights_only=True)
    before = WavLMModel.from_pretrained(wavlm).state_dict()
    return [
        name
        for name, value in before.items()
        if "encoder.layers" in name
        and not torch.allclose(trained[f"model.{name}"], value, atol=1e-6)
    ]


def test_encoder_is_not_trained_while_frozen(corpus, tmp_path, wavlm):
    options = {
        **TINY, "data_folder": corpus, "ssl_hub": wavlm,
        "output_folder": tmp_path / "out", "encoder_frozen_steps": 6,
    }  # fmt: skip
    done = run(TRAIN, ROOT / "hparams/ssl_mean_wavlm.yaml", options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    assert not changed_layers(tmp_path / "out", wavlm)
