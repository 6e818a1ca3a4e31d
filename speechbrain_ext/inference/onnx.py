"""Export of trained models for onnxruntime: a waveform in, an embedding out."""

import ast
import contextlib
import copy
import logging
import warnings
from pathlib import Path

import torch
from speechbrain.processing.features import STFT
from torch import nn
from torch.nn import functional as F

from speechbrain_ext.inference.onnx_int8 import quantize_products
from speechbrain_ext.lobes.encoders.power_spectrum import PowerSpectrum
from speechbrain_ext.lobes.models.speaker_embedder import SpeakerEmbedder
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json

INPUTS, OUTPUTS = ["waveforms", "lengths"], ["embeddings"]
LARGEST = 2**31  # bytes, of a protobuf and so of an ONNX file
PRODUCTS = {"MatMul", "Gemm", "Conv"}


def export_onnx(speaker_model, folder):
    """Writes a whole model for onnxruntime, in float32, float16 and int8.

    Front end, SSL encoder where there is one, and embedding model are one graph.
    Batch and duration are free, and padding is left out as in PyTorch. Needs
    onnx, onnxscript and onnxruntime (`pip install -e ".[onnx]"`).

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        With filter banks, MFCCs or an `SSLEncoder` as its encoder.
    folder : str or Path
        Gets model.onnx, model_float16.onnx and model_int8.onnx, and model.json
        with sample rate, threshold and the samples of the shortest utterance and,
        of Whisper, of the longest.
        The graphs take `waveforms`, float32 of shape (batch, time), and relative
        `lengths`, float32 of shape (batch,), and give `embeddings`, float32 of
        shape (batch, 1, dim).

    Returns
    -------
    list of Path
        The three graphs: float32, float16, int8.

    Raises
    ------
    InputError
        If the model is larger than an ONNX file can be.

    Example
    -------
    >>> from speechbrain_ext.inference.speaker import SpeakerRecognition
    >>> from speechbrain_ext.lobes import KDStudent, NormalizedFbank
    >>> model = SpeakerRecognition(NormalizedFbank(24), KDStudent(24), 16000, 0.25)
    >>> paths = export_onnx(
    ...     model, getfixture("tmpdir") / "student"
    ... )  # doctest: +SKIP
    >>> [path.name for path in paths]  # doctest: +SKIP
    ['model.onnx', 'model_float16.onnx', 'model_int8.onnx']
    """
    import onnx

    encoder = speaker_model.encoder
    n_bytes = 4 * sum(parameter.numel() for parameter in speaker_model.parameters())
    if n_bytes >= LARGEST:
        raise InputError(
            f"the model has {n_bytes / 2**30:.1f} GiB of weights, and an ONNX file "
            "holds 2 GiB; distil it first (train_kd.py)"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    chain = SpeakerEmbedder(encoder, speaker_model.embedding_model)
    chain = copy.deepcopy(chain).cpu().eval()
    for module in list(chain.modules()):
        for name, child in module.named_children():
            if isinstance(child, STFT):
                setattr(module, name, ConvolvedSTFT(child))
            if isinstance(child, PowerSpectrum):
                setattr(module, name, PowerSpectrumByProducts(child.n_fft))
    shortest = getattr(encoder, "receptive_field", 1)
    float32, float16, int8 = paths = [
        folder / f"model{kind}.onnx" for kind in ("", "_float16", "_int8")
    ]
    # With gradients the recording of a frozen encoder loses its modules' names.
    with _quiet(), torch.no_grad():
        with atomic_path(float32) as partial:
            _export_float32(chain, shortest, speaker_model.sample_rate, partial)
        with atomic_path(float16) as partial:
            onnx.save(_to_float16(onnx.load(float32)), partial)
        with atomic_path(int8) as partial:
            graph = onnx.load(float32)
            onnx.save(quantize_products(graph, _of_samples(graph.graph)), partial)
    write_json(
        folder / "model.json",
        {
            "sample_rate": speaker_model.sample_rate,
            "threshold": speaker_model.threshold,
            "shortest": shortest,
            "longest": getattr(encoder, "longest", None),
        },
    )
    return paths


class CosinesAndSines(nn.Module):
    """The waves of a Fourier transform.

    They are looked up, so that the file holds one period of them and not all.

    Arguments
    ---------
    n_fft : int
        Length of the transform.

    Example
    -------
    >>> cosines, sines = CosinesAndSines(4)()
    >>> cosines.round(), sines.round()[1]
    (tensor([[ 1.,  1.,  1.,  1.],
            [ 1.,  0., -1., -0.],
            [ 1., -1.,  1., -1.]]), tensor([-0., -1., -0.,  1.]))
    """

    def __init__(self, n_fft):
        super().__init__()
        self.n_fft = n_fft
        angle = 2 * torch.pi * torch.arange(n_fft).double() / n_fft
        self.register_buffer("cosine", angle.cos().float())
        self.register_buffer("sine", -angle.sin().float())

    def forward(self):
        """The waves.

        Returns
        -------
        torch.Tensor
            Real parts, of shape (n_fft // 2 + 1, n_fft).
        torch.Tensor
            Imaginary parts, of that shape.
        """
        frequency = torch.arange(self.n_fft // 2 + 1).unsqueeze(1)
        turn = frequency * torch.arange(self.n_fft) % self.n_fft
        return self.cosine[turn], self.sine[turn]


class PowerSpectrumByProducts(nn.Module):
    """An encoder's `PowerSpectrum` as two products of matrices.

    Arguments
    ---------
    n_fft : int
        Length of the transform.

    Example
    -------
    >>> frames = torch.rand(2, 3, 400)
    >>> energies = PowerSpectrumByProducts(512)(frames)
    >>> torch.allclose(energies, PowerSpectrum(512)(frames), rtol=1e-4, atol=1e-4)
    True
    """

    def __init__(self, n_fft):
        super().__init__()
        self.waves = CosinesAndSines(n_fft)

    def forward(self, frames):
        """Transforms frames.

        Arguments
        ---------
        frames : torch.Tensor
            Of shape (..., sample).

        Returns
        -------
        torch.Tensor
            Energies, of shape (..., n_fft // 2 + 1).
        """
        length = frames.shape[-1]
        cosines, sines = (waves[:, :length].T for waves in self.waves())
        return (frames @ cosines) ** 2 + (frames @ sines) ** 2


class ConvolvedSTFT(nn.Module):
    """SpeechBrain's STFT as one convolution.

    onnxruntime's STFT of 400 samples takes ten times as long.

    Arguments
    ---------
    stft : speechbrain.processing.features.STFT
        The one to replace.

    Example
    -------
    >>> stft = STFT(sample_rate=16000)
    >>> wav = torch.rand(2, 1000)
    >>> torch.allclose(ConvolvedSTFT(stft)(wav), stft(wav), atol=1e-4)
    True
    """

    def __init__(self, stft):
        super().__init__()
        self.hop_length, self.pad_mode = stft.hop_length, stft.pad_mode
        self.n_fft = stft.n_fft
        before = (stft.n_fft - len(stft.window)) // 2
        after = stft.n_fft - len(stft.window) - before
        self.register_buffer("window", F.pad(stft.window.cpu(), (before, after)))
        self.waves = CosinesAndSines(stft.n_fft)

    def forward(self, wav):
        """Transforms waveforms.

        Arguments
        ---------
        wav : torch.Tensor
            Of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Real and imaginary parts, of shape (batch, frame, frequency, 2).
        """
        kernel = torch.cat(self.waves()) * self.window
        margin = self.n_fft // 2
        padded = F.pad(wav.unsqueeze(1), (margin, margin), mode=self.pad_mode)
        parts = F.conv1d(padded, kernel.unsqueeze(1), stride=self.hop_length)
        return parts.unflatten(1, (2, -1)).permute(0, 3, 2, 1)


def _export_float32(chain, shortest, sample_rate, path):
    from onnxscript.optimizer import optimize_ir

    # Two utterances, one of them padded: a dimension of one would stay one.
    wavs = torch.rand(2, max(2 * shortest, sample_rate)) - 0.5
    program = torch.onnx.export(
        chain,
        (wavs, torch.tensor([1.0, 0.75])),
        input_names=INPUTS,
        output_names=OUTPUTS,
        dynamic_shapes=({0: "batch", 1: "time"}, {0: "batch"}),
        dynamo=True,
        optimize=False,
        verbose=False,
    )
    # Only what is small: the sines' whole table is not.
    optimize_ir(program.model, output_size_limit=4096)
    program.save(str(path), external_data=False)


def _to_float16(model):
    """Weights and products in half precision, all else in float32.

    As autocast does: sums over time, softmax and norms would overflow or lose
    what tells speakers apart. onnxruntime's own converter rounds between all
    operations.
    """
    from onnx import TensorProto, helper, numpy_helper

    graph, nodes, halves = model.graph, [], {}
    weights = {tensor.name: tensor for tensor in graph.initializer}
    spared = set(_of_samples(graph))
    for node in graph.node:
        if node.op_type not in PRODUCTS or node.name in spared:
            nodes.append(node)
            continue
        for i, name in enumerate(node.input):
            if not name:
                continue
            half = f"{name}_float16"
            if half not in halves and name in weights:
                values = numpy_helper.to_array(weights[name]).astype("float16")
                halves[half] = numpy_helper.from_array(values, half)
            elif half not in halves:
                halves[half] = None
                nodes.append(
                    helper.make_node("Cast", [name], [half], to=TensorProto.FLOAT16)
                )
            node.input[i] = half
        output, half = node.output[0], f"{node.output[0]}_half"
        node.output[0] = half
        nodes.append(node)
        nodes.append(helper.make_node("Cast", [half], [output], to=TensorProto.FLOAT))
    used = {name for node in nodes for name in node.input}
    kept = [tensor for tensor in graph.initializer if tensor.name in used]
    kept += [tensor for tensor in halves.values() if tensor is not None]
    del graph.node[:], graph.initializer[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend(kept)
    return model


def _of_samples(graph):
    """Products that see samples or spectra, which stay in float32.

    Spectra span 80 dB and more, waveforms as much; eight bits or half precision
    are too few for them, and the weights are few. Of an encoder of the wav2vec 2.0
    kind that is its first convolution, of filter banks all there is.
    """
    shapes = {tensor.name: list(tensor.dims) for tensor in graph.initializer}
    names = []
    for node in graph.node:
        if node.op_type not in PRODUCTS:
            continue
        # What an encoder does itself, and not by a module of its own. Within
        # `autocast` the recorder loses the names.
        part, _, inner = _scope(node).partition(".")
        of_encoder = part in ("", "encoder")
        is_spectrum = inner.split(".")[0] in ("", "fbank", "spectrum")
        is_first = (
            node.op_type == "Conv"
            and shapes.get(node.input[1], [0, 0])[1] == 1
            and {a.name: a.i for a in node.attribute}.get("group", 1) == 1
        )
        if of_encoder and (is_spectrum or is_first):
            names.append(node.name)
    return names


def _scope(node):
    """Dotted name of the module that a node computes a part of."""
    for entry in node.metadata_props:
        if entry.key == "pkg.torch.onnx.name_scopes":
            # From the whole model down to the operation, which has a name too.
            scopes = ast.literal_eval(entry.value)
            return scopes[-2] if len(scopes) > 1 else ""
    return ""


@contextlib.contextmanager
def _quiet():
    """Without the exporter's notes on itself, which no user can act on."""
    previous = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(previous)
