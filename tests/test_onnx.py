"""Recorded models: ONNX, torch.export and torch.compile give PyTorch's embeddings."""

import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT
from trainings import trained

from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes import KDStudent, MaskedECAPA, MaskedXvector
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.features import NormalizedFbank, NormalizedMFCC
from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.lobes.models.layer_adapters import LayerAdapterMFA
from speechbrain_ext.lobes.models.layer_mean import LayerMean
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.ltdnn import LTDNN, ConvReLUNorm
from speechbrain_ext.lobes.models.mhfa import MHFA
from speechbrain_ext.lobes.models.speaker_embedder import SpeakerEmbedder
from speechbrain_ext.lobes.models.vgg import VGGEmbedding
from speechbrain_ext.nnet.dictionary_encoding import LDEEmbedding
from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.nnet.pooling import (
    DoubleMultiHeadAttnPooling,
    MultiHeadAttnPooling,
    WeightedLayerSum,
)
from speechbrain_ext.utils.errors import InputError

sys.path.insert(0, str(ROOT / "recipes" / "VoxCeleb"))
TOLERANCE = 1e-4
CHANNELS, N_LAYERS, N_MELS = 32, 2, 24  # of tiny encoders with one layer
STABLE = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}


def mha_vgg(pooling):
    return VGGEmbedding(pooling, pooling.out_channels, N_MELS, (4, 8, 16), emb_dim=16)


ON_LAYERS = {
    "ltdnn": lambda: LTDNN(
        CHANNELS, N_LAYERS, 8, 16, 8, 4, dilations=(2, 3), scale=2, se_channels=8
    ),
    "lap": lambda: LAP_ASTP(CHANNELS, N_LAYERS, 16, 8, 4),
    "mhfa": lambda: MHFA(
        WeightedLayerSum(N_LAYERS), WeightedLayerSum(N_LAYERS), CHANNELS, 8, 4, 8, 1
    ),
    "superb-xvector": lambda: LayerPooled(
        WeightedLayerSum(N_LAYERS), MaskedXvector("cpu", tdnn_channels=[16] * 5,
        in_channels=CHANNELS, lin_neurons=8),
    ),
    "superb-ecapa": lambda: LayerPooled(
        WeightedLayerSum(N_LAYERS),
        MaskedECAPA(CHANNELS, channels=[16] * 4 + [48], lin_neurons=8),
    ),
    "layer-adapters": lambda: LayerAdapterMFA(CHANNELS, N_LAYERS, 8, 8),
    "mean": LayerMean,
}  # fmt: skip
ON_FRAMES = {
    "student": lambda: KDStudent(N_MELS, channels=32, emb_dim=16),
    "xvector": lambda: MaskedXvector(in_channels=N_MELS, tdnn_channels=[16] * 5),
    "ecapa": lambda: MaskedECAPA(N_MELS, channels=[16] * 4 + [48]),
    "mha-vgg": lambda: mha_vgg(MultiHeadAttnPooling(48, 4)),
    "double-mha-vgg": lambda: mha_vgg(DoubleMultiHeadAttnPooling(48, 4)),
    "dictionary": lambda: LDEEmbedding(N_MELS, 8, n_components=4, emb_dim=16),
}


def front_end(name, folder, **changes):
    if name == "fbank":
        return NormalizedFbank(N_MELS, preemphasis=0.97, keep_spectrum=True)
    if name == "mfcc":
        return NormalizedMFCC(N_MELS)
    n_layers = "encoder_layers" if name == "whisper" else "num_hidden_layers"
    changes = {n_layers: 1, **changes}
    return load_encoder(save_random_encoder(name, folder / "encoder", **changes))


def trained_system(encoder, embedding_model):
    return trained(SpeakerEmbedder(encoder, embedding_model))


def check(embed, model):
    """Durations of 0.5 s to 20 s, alone and in padded batches."""
    torch.manual_seed(3)
    for n_samples, lengths in (
        (8000, [1.0]),
        (16161, [0.5, 1.0, 0.73]),  # an even number of frames of 10 ms
        (320000, [1.0, 0.04]),
    ):
        wavs = 0.1 * torch.randn(len(lengths), n_samples)
        lengths = torch.tensor(lengths)
        with torch.no_grad():
            expected = model(wavs, lengths)
        assert expected.isfinite().all() and expected.std() > 100 * TOLERANCE
        assert (embed(wavs, lengths) - expected).abs().max() < TOLERANCE


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    "encoder, changes, embedding_model",
    [
        ("fbank", {}, "student"),
        ("wavlm", {}, "ltdnn"),
        ("hubert", {}, "mhfa"),
        slow("wav2vec2", STABLE, "lap"),
        slow("wavlm", STABLE, "superb-xvector"),
        slow("hubert", STABLE, "superb-ecapa"),
        slow("unispeech-sat", {}, "mean"),
        slow("data2vec-audio", {}, "layer-adapters"),
        slow("wav2vec2-conformer", {}, "lap"),
        slow("w2v-bert", {}, "ltdnn"),
        slow("whisper", {}, "ltdnn"),
        slow("mfcc", {}, "ecapa"),
        slow("mfcc", {}, "xvector"),
        slow("fbank", {}, "mha-vgg"),
        slow("fbank", {}, "double-mha-vgg"),
        slow("fbank", {}, "dictionary"),
    ],
)
def test_exported_chain_gives_the_same_embeddings(
    tmp_path, encoder, changes, embedding_model
):
    """About 15 s each on a free core, which is what PyTorch's exporter takes."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from verify_onnx import FILES, OnnxSpeakerModel

    from speechbrain_ext.inference.onnx import export_onnx

    chain = trained_system(
        front_end(encoder, tmp_path, **changes),
        {**ON_LAYERS, **ON_FRAMES}[embedding_model](),
    )
    model = SpeakerRecognition(chain.encoder, chain.embedding_model, 16000, 0.25)
    paths = export_onnx(model, tmp_path)
    assert [path.name for path in paths] == list(FILES.values())
    for path, closest in zip(paths, (1 - 1e-5, 0.9999, 0.99)):
        exported = OnnxSpeakerModel(tmp_path, path.name)
        assert (exported.threshold, exported.sample_rate) == (0.25, 16000)

        def embed(wavs, lengths):
            embeddings = exported.embed_batch(wavs.numpy(), lengths.numpy())
            return torch.from_numpy(embeddings).unsqueeze(1)

        if path.name == "model.onnx":
            check(embed, chain)
        wavs, lengths = 0.1 * torch.randn(2, 48000), torch.tensor([1.0, 0.4])
        expected = model.encode_batch(wavs, lengths)
        cosines = torch.cosine_similarity(embed(wavs, lengths), expected, dim=-1)
        assert cosines.min() > closest
        alone = torch.from_numpy(exported.embed(wavs[0].numpy()))
        assert torch.cosine_similarity(alone, expected[0, 0], dim=0) > closest
    float16, int8 = (onnx.load(path).graph for path in paths[1:])
    assert onnx.TensorProto.FLOAT16 in {t.data_type for t in float16.initializer}
    assert [node for node in int8.node if node.op_type == "MatMulInteger"]
    weights = [onnx.numpy_helper.to_array(tensor) for tensor in int8.initializer]
    weights = [weight for weight in weights if weight.dtype == np.int8]
    # Signed, which VNNI is made for; of seven bits, because without VNNI eight
    # saturate, which no other processor shows.
    assert weights and max(np.abs(weight).max() for weight in weights) == 63
    assert onnx.TensorProto.UINT8 not in {t.data_type for t in int8.initializer}


@pytest.mark.parametrize(
    "weight, settings",
    [
        ((6, 4, 3), {"pads": [1, 1], "strides": [2]}),
        ((6, 4, 2), {}),
        ((6, 4, 1), {"strides": [3]}),
        ((6, 4, 5, 3), {"pads": [4, 2, 4, 2], "dilations": [2, 2]}),
        ((6, 4, 3, 1), {"pads": [0, 1, 2, 1], "strides": [2, 1]}),
        ((6, 4, 1, 1), {}),
    ],
)
def test_convolutions_become_products_of_eight_bits(weight, settings):
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from speechbrain_ext.inference.onnx_int8 import quantize_products

    rng = np.random.default_rng(0)
    n_axes = len(weight) - 2
    shape = ("batch", 4, "height", "width")[: n_axes + 2]
    constants = {
        "weight": rng.standard_normal(weight)
        * rng.uniform(0.1, 10, (6, *[1] * (n_axes + 1))),
        "bias": rng.standard_normal(6),
        "gain": rng.uniform(0.5, 2, 6),
        "shift": rng.standard_normal(6),
        "mean": rng.standard_normal(6),
        "variance": rng.uniform(0.5, 2, 6),
    }
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node("Conv", ["x", "weight", "bias"], ["y"], **settings),
            onnx.helper.make_node(
                "BatchNormalization", ["y", "gain", "shift", "mean", "variance"], ["z"]
            ),
        ],
        "graph",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, shape)],
        [
            onnx.helper.make_tensor_value_info(
                n, onnx.TensorProto.FLOAT, ["a", 6, *shape[2:]]
            )
            for n in "yz"
        ],
        [
            onnx.numpy_helper.from_array(v.astype("float32"), n)
            for n, v in constants.items()
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    x = rng.standard_normal((2, 4, 13, 17)[: n_axes + 2]).astype("float32")

    def outputs():
        session = onnxruntime.InferenceSession(model.SerializeToString())
        return session.run(None, {"x": x})

    expected = outputs()
    quantize_products(model, [])
    assert not {"Conv", "BatchNormalization"} & {n.op_type for n in model.graph.node}
    for result, float32 in zip(outputs(), expected):
        assert result.shape == float32.shape
        per_channel = (0, *range(2, n_axes + 2))
        error = np.abs(result - float32).max(per_channel)
        assert (error < 0.1 * float32.std(per_channel)).all()


def test_products_become_ones_of_eight_bits():
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    from speechbrain_ext.inference.onnx_int8 import quantize_products

    rng = np.random.default_rng(0)
    x, matrix = (rng.standard_normal(s).astype("float32") for s in ((9, 8), (8, 5)))
    bias = rng.standard_normal(5).astype("float32")
    masked = np.array([[False], [True]] * 4 + [[False]])
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Where", ["masked", "zero", "x"], ["kept"]),
            node("MatMul", ["kept", "matrix"], ["product"], name="quantized"),
            node("MatMul", ["x", "matrix"], ["spared"], name="spared"),
            node("Gemm", ["kept", "turned", "bias"], ["sum"], transB=1),
            node("MatMul", ["x", "other"], ["of_two"]),
        ],
        "graph",
        [
            onnx.helper.make_tensor_value_info(n, t, s)
            for n, t, s in (
                ("x", onnx.TensorProto.FLOAT, [9, 8]),
                ("masked", onnx.TensorProto.BOOL, [9, 1]),
                ("other", onnx.TensorProto.FLOAT, [8, 5]),
            )
        ],
        [
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [9, 5])
            for n in ("product", "spared", "sum", "of_two")
        ],
        [
            onnx.numpy_helper.from_array(v, n)
            for n, v in (
                ("zero", np.float32(0)),
                ("matrix", matrix),
                ("turned", matrix.T.copy()),
                ("bias", bias),
            )
        ],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    quantize_products(model, ["spared"])
    session = onnxruntime.InferenceSession(model.SerializeToString())
    product, spared, total, of_two = session.run(
        None, {"x": x, "masked": masked, "other": matrix}
    )
    expected = np.where(masked, 0, x) @ matrix
    np.testing.assert_allclose(spared, x @ matrix, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(of_two, x @ matrix, rtol=1e-5, atol=1e-5)
    assert 0 < np.abs(product - expected).max() < 0.1
    np.testing.assert_allclose(total, product + bias, rtol=1e-5, atol=1e-5)
    operations = [node.op_type for node in model.graph.node]
    assert operations.count("MatMulInteger") == 2
    assert operations.count("DynamicQuantizeLinear") == 1


def test_models_larger_than_a_file_are_refused_before_long_work(tmp_path, monkeypatch):
    pytest.importorskip("onnx")
    from speechbrain_ext.inference import onnx

    monkeypatch.setattr(onnx, "LARGEST", 1000)
    model = SpeakerRecognition(
        NormalizedFbank(N_MELS), ON_FRAMES["student"](), 16000, 0.25
    )
    with pytest.raises(InputError, match="GiB of weights.*distil"):
        onnx.export_onnx(model, tmp_path / "exported")
    assert not (tmp_path / "exported").exists()


@pytest.mark.parametrize("name", [*ON_LAYERS, *ON_FRAMES])
def test_lobes_recorded_without_padding_leave_it_out(name):
    torch.manual_seed(0)
    on_layers = name in ON_LAYERS
    shape = (N_LAYERS, 2, 60, CHANNELS) if on_layers else (2, 60, N_MELS)
    lobe = (ON_LAYERS if on_layers else ON_FRAMES)[name]()
    lobe(torch.randn(shape), torch.tensor([1.0, 0.9]))
    lobe.eval()
    dynamic = torch.export.Dim.DYNAMIC
    axes = {len(shape) - 3: dynamic, len(shape) - 2: dynamic}
    program = torch.export.export(
        lobe, (torch.randn(shape), torch.ones(2)), dynamic_shapes=(axes, {0: dynamic})
    ).module()
    for lengths, n_frames in (([1.0], 75), ([1.0, 0.3, 0.6], 90)):
        shape = (*shape[:-3], len(lengths), n_frames, shape[-1])
        x, lengths = torch.randn(shape), torch.tensor(lengths)
        with torch.no_grad():
            expected = lobe(x, lengths)
        assert (program(x, lengths) - expected).abs().max() < 1e-5


@pytest.mark.parametrize(
    "encoder, embedding_model",
    [
        slow("wavlm", "ltdnn"),
        slow("hubert", "lap"),
        slow("wav2vec2", "mhfa"),
        slow("w2v-bert", "ltdnn"),
        slow("whisper", "ltdnn"),
        slow("mfcc", "ecapa"),
        ("fbank", "student"),
    ],
)
def test_chain_compiles_as_one_graph(tmp_path, encoder, embedding_model):
    chain = trained_system(
        front_end(encoder, tmp_path), {**ON_LAYERS, **ON_FRAMES}[embedding_model]()
    )
    torch._dynamo.reset()
    compiled = torch.compile(chain, backend="eager", fullgraph=True, dynamic=True)
    with torch.no_grad():
        compiled(torch.randn(2, 16000), torch.ones(2))
        check(compiled, chain)


@pytest.mark.parametrize("encoder", ["wavlm", "whisper"])
def test_chain_is_recorded_by_torch_export(tmp_path, encoder):
    chain = trained_system(front_end(encoder, tmp_path), ON_LAYERS["ltdnn"]())
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.export.export(
        chain,
        (torch.randn(2, 16000), torch.ones(2)),
        dynamic_shapes=({0: dynamic, 1: dynamic}, {0: dynamic}),
    ).module()
    # What is recorded leaves no tensor of the recording in the encoder.
    assert getattr(chain.encoder, "frame_mask", None) is None
    check(program, chain)


def test_masks_are_kept_where_they_are_traced():
    def mask_or_ones(lengths):
        mask = frame_mask(lengths, 4)
        return torch.ones(len(lengths), 4) > 0 if mask is None else mask

    traced = torch.jit.trace(mask_or_ones, (torch.ones(2),))
    lengths = torch.tensor([1.0, 0.5])
    assert torch.equal(traced(lengths), frame_mask(lengths, 4))
    assert frame_mask(torch.ones(2), 4) is None


@pytest.mark.parametrize("kernel_size", [(1, 1), (3, 3), (5, 3)])
@pytest.mark.parametrize("dilation", [1, 2, 3, 4])
def test_numbers_pad_as_the_word_same_does(kernel_size, dilation):
    conv = ConvReLUNorm(2, 3, kernel_size, dilation).conv
    same = torch.nn.Conv2d(2, 3, kernel_size, dilation=dilation, padding="same")
    same.load_state_dict(conv.state_dict())
    x = torch.randn(2, 2, 13, 20)
    assert torch.equal(conv(x), same(x))


def test_recordings_that_the_exported_model_does_not_take(tmp_path):
    pytest.importorskip("onnxruntime")
    from verify_onnx import OnnxSpeakerModel

    model = OnnxSpeakerModel.__new__(OnnxSpeakerModel)
    model.sample_rate, model.shortest, model.longest = 16000, 400, 480000
    soundfile.write(tmp_path / "8k.wav", np.zeros(8000), 8000)
    soundfile.write(tmp_path / "stereo.wav", np.zeros((8000, 2)), 16000)
    soundfile.write(tmp_path / "short.wav", np.zeros(399), 16000)
    soundfile.write(tmp_path / "long.wav", np.zeros(480001), 16000)
    soundfile.write(tmp_path / "good.wav", np.zeros(400), 16000)
    (tmp_path / "text.wav").write_text("no audio")
    for name, message in {
        "8k.wav": "mono at 8000 Hz.*ffmpeg",
        "stereo.wav": "2 channels at 16000 Hz.*-ac 1",
        "short.wav": "399 samples.*400 or more",
        "long.wav": "480001 samples.*at most 480000.*-t 30",
        "text.wav": "cannot be read",
        "missing.wav": "cannot be read",
    }.items():
        with pytest.raises(SystemExit, match=message):
            model.load_audio(tmp_path / name)
    assert model.load_audio(tmp_path / "good.wav").shape == (400,)


def test_folders_of_earlier_exports_are_named(tmp_path):
    pytest.importorskip("onnxruntime")
    from verify_onnx import OnnxSpeakerModel

    with pytest.raises(SystemExit, match="there is no.*export_onnx.py"):
        OnnxSpeakerModel(tmp_path)
    (tmp_path / "model.onnx").touch()
    (tmp_path / "model.json").write_text('{"sample_rate": 16000, "threshold": 0.2}')
    with pytest.raises(SystemExit, match="earlier version"):
        OnnxSpeakerModel(tmp_path)


ALONE = """
import sys
NEEDED = {"numpy", "onnxruntime", "soundfile", "_soundfile", "_soundfile_data"}
NEEDED |= {"cffi", "_cffi_backend", "typing_extensions"}  # of soundfile
class Nothing:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in NEEDED | set(sys.stdlib_module_names):
            raise ImportError("not installed: " + name)
sys.meta_path.insert(0, Nothing())
import runpy
script, *sys.argv[1:] = sys.argv[1:]
runpy.run_path(script, run_name="__main__")
"""


def test_verification_needs_numpy_onnxruntime_and_soundfile_alone(tmp_path):
    """In a process of its own, in which every other package is as not installed."""
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    constants = {"axis": [1], "start": [0], "end": [4]}
    graph = onnx.helper.make_graph(
        [
            onnx.helper.make_node(
                "Slice", ["waveforms", "start", "end", "axis"], ["few"]
            ),
            onnx.helper.make_node("Unsqueeze", ["few", "axis"], ["embeddings"]),
        ],
        "first samples",
        [
            onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, s)
            for n, s in (("waveforms", ["batch", "time"]), ("lengths", ["batch"]))
        ],
        [
            onnx.helper.make_tensor_value_info(
                "embeddings", onnx.TensorProto.FLOAT, ["batch", 1, 4]
            )
        ],
        [onnx.numpy_helper.from_array(np.array(v), n) for n, v in constants.items()],
    )
    model = onnx.helper.make_model(
        graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9
    )
    onnx.save(model, tmp_path / "model_int8.onnx")
    about = {"sample_rate": 16000, "threshold": 0.5, "shortest": 4, "longest": None}
    (tmp_path / "model.json").write_text(json.dumps(about))
    wav = np.linspace(0.1, 0.9, 8)
    for name, signal in {"a": wav, "same": wav, "other": -wav}.items():
        soundfile.write(tmp_path / f"{name}.wav", signal, 16000, subtype="FLOAT")

    def verify(test):
        script = ROOT / "recipes" / "VoxCeleb" / "verify_onnx.py"
        files = [tmp_path, tmp_path / "a.wav", tmp_path / f"{test}.wav"]
        run = subprocess.run(
            [sys.executable, "-c", ALONE, script, *files, "--precision", "int8"],
            capture_output=True,
            text=True,
        )
        assert run.returncode == 0, run.stderr
        return run.stdout

    assert verify("same") == "1.0000 same speaker\n"
    assert verify("other") == "-1.0000 different speakers\n"
