"""Multi-head attention pooling against the authors' code; VGG; masks; ONNX."""

import json
import re

import pytest
import torch
from conftest import ROOT, TINY, TRAIN, run
from processes import run_python

from speechbrain_ext.analysis.frame_attention import frame_weights
from speechbrain_ext.config import read_configuration
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.vgg import ProjectedClassifier, VGGEmbedding
from speechbrain_ext.lobes.official_checkpoints import mha_vgg_from_official
from speechbrain_ext.nnet.losses import speaker_loss
from speechbrain_ext.nnet.pooling import (
    DoubleMultiHeadAttnPooling,
    MaskedStatisticsPooling,
    MultiHeadAttnPooling,
)
from speechbrain_ext.utils.checkpoints import best_checkpoint
from speechbrain_ext.utils.errors import InputError

TOLERANCE = 1e-5
FILES = ["mha_vgg.safetensors", "double_mha_vgg.safetensors"]


def official_parameters(tensors):
    return {
        name.removeprefix("param."): value
        for name, value in tensors.items()
        if name.startswith("param.")
    }


@pytest.mark.parametrize("file", FILES)
def test_every_stage_matches_the_authors_code(reference, file):
    tensors = reference(file)
    model = mha_vgg_from_official(official_parameters(tensors), n_heads=4)
    with torch.no_grad():
        frames, _ = model.encoder(tensors["input"])
        pooled, weights = model.pooling(frames, return_weights=True)
        embedding = model(tensors["input"])
    for ours, name in (
        (frames, "encoded"),
        (weights.transpose(1, 2), "attention"),
        (pooled.squeeze(1), "pooled"),
        (embedding.squeeze(1), "embedding"),
    ):
        assert ours.shape == tensors[name].shape
        assert (ours - tensors[name]).abs().max() < TOLERANCE, name


@pytest.mark.parametrize("file", FILES)
def test_official_checkpoints_that_do_not_fit_are_refused(reference, file):
    official = official_parameters(reference(file))
    with pytest.raises(ValueError, match="has 4 heads"):
        mha_vgg_from_official(official, n_heads=8)
    with pytest.raises(ValueError, match="fc3"):
        mha_vgg_from_official({**official, "fc3.bias": torch.ones(1)}, 4)
    with pytest.raises(ValueError, match="fc2.bias"):
        del official["fc2.bias"]
        mha_vgg_from_official(official, 4)


def numbers(model):
    """Parameters and running statistics, as the authors count them."""
    return sum(
        value.numel()
        for name, value in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    )


def test_values_of_the_two_papers():
    first, later = (
        read_configuration([str(ROOT / f"hparams/{name}.yaml"), "--data_folder=x"])
        for name in ("mha_vgg", "double_mha_vgg")
    )
    values = first.values()
    assert values["n_mels"] == 128 and values["vgg_out_channels"] == 8192
    assert values["lr"] == 0.001 and values["weight_decay"] == 0
    assert values["preemphasis"] == 0
    values = later.values()
    assert values["n_mels"] == 80 and values["vgg_out_channels"] == 5120
    assert values["lr"] == 0.0001 and values["weight_decay"] == 0.001
    assert values["preemphasis"] == 0.97 and values["classifier_dropout"] == 0


def test_dropout_before_the_softmax():
    torch.manual_seed(0)
    classifier = ProjectedClassifier(32, 4, dropout=0.5)
    x = torch.randn(16, 1, 32)
    seen = []
    classifier.dropout.register_forward_hook(lambda *args: seen.append(args[2]))
    logits = classifier(x)
    assert 0.4 < (seen[0] == 0).float().mean() < 0.6
    expected = classifier.speakers(seen[0])
    assert torch.equal(logits.squeeze(1), expected)
    classifier.eval()
    assert torch.equal(classifier(x), classifier(x))


@pytest.mark.parametrize("n_heads", [1, 32, 64])
def test_size_of_vgg3_with_mha(n_heads):
    pooling = MultiHeadAttnPooling(5120, n_heads)
    assert numbers(VGGEmbedding(pooling, pooling.out_channels)) == 6789600


def test_size_of_vgg4_with_double_mha():
    pooling = DoubleMultiHeadAttnPooling(5120, 32)
    model = VGGEmbedding(pooling, pooling.out_channels, channels=(128, 256, 512, 1024))
    assert numbers(model) == 18963584


POOLINGS = {
    "mha": lambda: MultiHeadAttnPooling(24, 4),
    "vanilla": lambda: MultiHeadAttnPooling(24, 1),
    "multi-query": lambda: MultiHeadAttnPooling(24, 4, n_queries=3),
    "statistics": lambda: MultiHeadAttnPooling(24, 4, statistics=True),
    "double": lambda: DoubleMultiHeadAttnPooling(24, 4),
}


@pytest.mark.parametrize("name", POOLINGS)
def test_padded_frames_do_not_count(name):
    torch.manual_seed(0)
    pooling = POOLINGS[name]().eval()
    frames = torch.rand(2, 20, 24)
    pooled, weights = pooling(frames, torch.tensor([1.0, 0.6]), return_weights=True)
    alone = pooling(frames[1:, :12])
    assert pooled.shape == (2, 1, pooling.out_channels)
    assert torch.allclose(pooled[1:], alone, atol=1e-6)
    assert weights[1, :, 12:].abs().max() == 0
    assert torch.allclose(weights.sum(-1), torch.ones(weights.shape[:2]))


def test_equations_one_to_three():
    torch.manual_seed(0)
    pooling = MultiHeadAttnPooling(6, 2)
    frames = torch.rand(1, 5, 6)
    expected = []
    for j in range(2):
        h, u = frames[0, :, 3 * j : 3 * j + 3], pooling.query[j, 0]
        weights = torch.exp(h @ u) / torch.exp(h @ u).sum()
        expected.append((weights[:, None] * h).sum(0))
    assert torch.allclose(pooling(frames)[0, 0], torch.cat(expected))


def test_heads_are_dropped_in_training_only():
    torch.manual_seed(0)
    pooling = DoubleMultiHeadAttnPooling(24, 4, head_dropout=0.9)
    frames = torch.rand(40, 10, 24)
    heads, _ = pooling.of_frames.attend(frames)
    heads = heads.view(40, 4, 6)
    pooled = pooling(frames)
    # Nearly always one head alone is left.
    alone = torch.isclose(pooled, heads, atol=1e-6).all(2).any(1)
    assert alone.float().mean() > 0.5
    pooling.eval()
    assert torch.equal(pooling(frames), pooling(frames))
    assert not torch.isclose(pooling(frames), heads, atol=1e-6).all(2).any()


@pytest.mark.parametrize("name", POOLINGS)
def test_mixed_precision(name):
    frames = torch.randn(2, 30, 24, requires_grad=True)
    lengths = torch.tensor([1.0, 0.5])
    pooling = POOLINGS[name]()
    with torch.autocast("cpu", torch.bfloat16):
        pooled = pooling(frames, lengths).float()
    pooled.sum().backward()
    assert frames.grad.isfinite().all()
    assert torch.allclose(pooled, pooling(frames, lengths), atol=0.05)


@pytest.mark.parametrize("name", POOLINGS)
def test_onnx(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    pooling = POOLINGS[name]().eval()
    path = tmp_path / "pooling.onnx"
    torch.onnx.export(
        pooling, (torch.randn(2, 30, 24),), path, input_names=["frames"],
        dynamic_axes={"frames": {0: "batch", 1: "time"}}, dynamo=False,
    )  # fmt: skip
    session = onnxruntime.InferenceSession(path)
    for shape in ((2, 30, 24), (1, 7, 24), (3, 200, 24)):
        frames = torch.randn(shape)
        (pooled,) = session.run(None, {"frames": frames.numpy()})
        assert (torch.from_numpy(pooled) - pooling(frames)).abs().max() < 1e-5


def test_weights_of_heads_are_found_in_any_model():
    torch.manual_seed(0)
    wav = torch.randn(16000)
    features = NormalizedFbank(20)
    frames, _ = features(wav.unsqueeze(0))
    for pooling in (MultiHeadAttnPooling(48, 4), DoubleMultiHeadAttnPooling(48, 4)):
        vgg = VGGEmbedding(pooling, pooling.out_channels, 20, (4, 8, 16))
        model = SpeakerRecognition(features, vgg, 16000, 0.5)
        with torch.no_grad():
            _, expected = pooling(*vgg.encoder(frames), return_weights=True)
        assert torch.allclose(frame_weights(model, wav), expected[0], atol=1e-6)
    mean = VGGEmbedding(MaskedStatisticsPooling(return_std=False), 48, 20, (4, 8, 16))
    with pytest.raises(InputError, match="no multi-head"):
        frame_weights(SpeakerRecognition(features, mean, 16000, 0.5), wav)


def test_heads_must_divide_the_channels():
    with pytest.raises(ValueError, match="n_heads=5 does not divide"):
        MultiHeadAttnPooling(24, 5)


def test_vgg_embeddings_do_not_depend_on_padding():
    torch.manual_seed(0)
    model = VGGEmbedding(MultiHeadAttnPooling(48, 4), 48, 20, (4, 8, 16))
    model.eval()
    frames = torch.rand(2, 41, 20)
    with torch.no_grad():
        padded = model(frames, torch.tensor([1.0, 25 / 41]))
        alone = model(frames[1:, :25])
    assert (padded[1] - alone[0]).abs().max() < 1e-5


def test_bad_gradients_reach_no_parameter():
    model = VGGEmbedding(DoubleMultiHeadAttnPooling(48, 4), 12, 20, (4, 8, 16))
    model(torch.rand(3, 40, 20), torch.tensor([1.0, 0.5, 0.1])).sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


TINY_VGG = {
    **TINY,
    "number_of_steps": 12,
    "steps_per_epoch": 2,
    "grad_accumulation_factor": 1,
    "vgg_width": 2,
    "n_mels": 32,
    "emb_dim": 16,
    "patience": 1,
}


@pytest.mark.parametrize(
    "name, options",
    [
        ("mha_vgg", {"n_heads": 4}),
        ("mha_vgg", {"n_heads": 1, "loss": "aam-softmax", "margin": 0.2}),
        ("double_mha_vgg", {"n_heads": 4}),
        ("mean_vgg", {}),
        ("statistics_vgg", {}),
    ],
)
def test_recipes(corpus, tmp_path, name, options):
    hparams = ROOT / "hparams" / f"{name}.yaml"
    options = {
        **TINY_VGG, **options, "data_folder": corpus, "output_folder": tmp_path / "out"
    }  # fmt: skip
    done = run(TRAIN, hparams, options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert 0 <= metrics["EER"] <= 1
    log = (tmp_path / "out/train_log.txt").read_text().splitlines()
    eers = [float(re.search(r"EER: ([\d.e+-]+)", line)[1]) for line in log]
    # It stops at the first epoch that is no better, or at the sixth.
    better = [later < earlier for earlier, later in zip(eers, eers[1:])]
    assert all(better[:-1])
    assert len(eers) == 6 or not better[-1]


def test_plots_of_heads(corpus, tmp_path):
    folders = []
    for n_heads in (1, 4):
        options = {
            **TINY_VGG, "n_heads": n_heads, "number_of_steps": 2,
            "data_folder": corpus, "output_folder": tmp_path / str(n_heads),
        }  # fmt: skip
        done = run(TRAIN, ROOT / "hparams/mha_vgg.yaml", options, tmp_path)
        assert done.returncode == 0, done.stderr[-3000:]
        folders.append(tmp_path / str(n_heads))

    def plot(*names):
        return run_python(
            [
                TRAIN.with_name("plot_head_weights.py"),
                *folders,
                "--names",
                *names,
                "--output_folder",
                tmp_path / "plots",
            ]
        )

    done = plot("vanilla", "MHA 4")
    assert done.returncode == 0, done.stderr[-2000:]
    for name in ("head_weights", "cumulative_weights"):
        assert (tmp_path / f"plots/{name}.png").stat().st_size > 5000
    assert "--names: give each model" in plot("same", "same").stderr


def test_unknown_loss_is_an_error():
    with pytest.raises(ValueError, match="softmax, am-softmax, aam-softmax"):
        speaker_loss("triplet")


def test_losses_by_name():
    cosines = torch.tensor([[[0.5, 0.2]], [[-0.1, 0.3]]])
    speakers = torch.tensor([[0], [1]])
    logits = cosines.squeeze(1).clone()
    expected = {"softmax": logits}
    logits = cosines.squeeze(1).clone()
    logits[[0, 1], [0, 1]] -= 0.4
    expected["am-softmax"] = 30 * logits
    logits = cosines.squeeze(1).clone()
    logits[[0, 1], [0, 1]] = torch.cos(torch.acos(logits[[0, 1], [0, 1]]) + 0.4)
    expected["aam-softmax"] = 30 * logits
    for name, values in expected.items():
        loss = speaker_loss(name, margin=0.4)(cosines, speakers)
        cross_entropy = torch.nn.functional.cross_entropy(values, speakers[:, 0])
        assert loss == pytest.approx(cross_entropy.item(), rel=1e-4), name


@pytest.mark.parametrize(
    "name, channels",
    [("ltdnn_wavlm", 16), ("lap_wavlm", 16), ("ecapa_fbank", 48)],
)
def test_mha_pooling_in_other_recipes_by_one_line(corpus, tmp_path, name, channels):
    text = f"extends: {ROOT / 'hparams' / name}.yaml\n" + (
        "frame_pooling: !new:speechbrain_ext.nnet.pooling.MultiHeadAttnPooling "
        f"{{in_channels: {channels}, n_heads: 4}}\n"
    )
    (tmp_path / "mha.yaml").write_text(text)
    options = {
        **TINY, "data_folder": corpus, "output_folder": tmp_path / "out",
        "conv_channels": 16, "pooled_channels": 16, "ecapa_channels": 16,
        "n_heads": 4, "stage": "frozen",
        "ssl_hub": save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32),
    }  # fmt: skip
    known = read_configuration([str(tmp_path / "mha.yaml"), "--data_folder=x"]).entries
    options = {k: v for k, v in options.items() if k in known}
    done = run(TRAIN, tmp_path / "mha.yaml", options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    folder = tmp_path / "out" / ("frozen" if name == "lap_wavlm" else "")
    checkpoint = best_checkpoint(folder / "save").path / "embedding_model.ckpt"
    names = torch.load(checkpoint, weights_only=True)
    (query,) = (value for name, value in names.items() if "pooling.query" in name)
    assert query.shape == (4, 1, channels // 4)
    assert (folder / "test/metrics.json").is_file()
