"""Times ONNX Runtime against PyTorch, on an utterance of 3 s.

    python benchmarks/onnx_runtime.py --threads 1

An encoder of WavLM-base's size with random weights and L-TDNN, exported as a whole in
float32 and int8, embed the same utterance in turn. The floor of float32 is that of
PyTorch's matrix product, the one of int8 that of ONNX Runtime's own product of
unsigned by signed bytes, both of this run. Noise stands for speech, so the cosines to
PyTorch's embedding are not those of a trained model, whose error rates are in
`recipes/VoxCeleb/deployment_table.py`.
"""

import sys
import tempfile

import numpy as np
import onnxruntime
import torch
from measure import (
    MATRIX_SIZE,
    ROOT,
    alternate,
    count_flop,
    measure_floors,
    ratio,
    read_options,
    report,
)
from onnx import TensorProto, helper, numpy_helper
from rivals import build_back_end, build_encoder

from speechbrain_ext.inference.onnx import export_onnx
from speechbrain_ext.inference.speaker import SpeakerRecognition

sys.path.insert(0, str(ROOT / "recipes" / "VoxCeleb"))
from verify_onnx import OnnxSpeakerModel  # noqa: E402

SAMPLE_RATE = 16000


def product_of_bytes(size, n_threads):
    """ONNX Runtime's product of unsigned by signed bytes, to be timed."""
    rng = np.random.default_rng(0)
    weight = rng.integers(-63, 64, (size, size)).astype("int8")
    rows = rng.integers(0, 256, (size, size)).astype("uint8")
    graph = helper.make_graph(
        [helper.make_node("MatMulInteger", ["x", "weight"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, [size, size])],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [size, size])],
        [numpy_helper.from_array(weight, "weight")],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda: session.run(None, {"x": rows})


def main():
    """Exports, measures and prints."""
    options = read_options(__doc__, repeats=15, seconds=3.0)
    encoder = build_encoder("tiny" if options.tiny else "base")
    back_end = build_back_end("L-TDNN", encoder, options.tiny)
    model = SpeakerRecognition(encoder, back_end, SAMPLE_RATE, threshold=0.0)
    generator = torch.Generator().manual_seed(0)
    n_samples = int(options.seconds * SAMPLE_RATE)
    wav = 0.1 * torch.randn(n_samples, generator=generator)
    with tempfile.TemporaryDirectory() as folder:
        files = export_onnx(model, folder)
        sizes = [file.stat().st_size for file in files]
        exported = {
            "ONNX Runtime float32": OnnxSpeakerModel(
                folder, files[0].name, options.threads
            ),
            "ONNX Runtime int8": OnnxSpeakerModel(
                folder, files[2].name, options.threads
            ),
        }
    jobs = {"PyTorch float32": lambda: model.encode_batch(wav.unsqueeze(0))[0, 0]}
    for name, onnx_model in exported.items():
        jobs[name] = lambda onnx_model=onnx_model: torch.from_numpy(
            onnx_model.embed(wav.numpy())
        )
    flop = count_flop(jobs["PyTorch float32"])
    floors = measure_floors(tiny=options.tiny)
    size = 64 if options.tiny else MATRIX_SIZE
    bytes_product = alternate({"bytes": product_of_bytes(size, options.threads)}, 5)
    byte_rate = 2 * size**3 / min(bytes_product["bytes"].clock())
    times = alternate(jobs, options.repeats)
    pytorch = times["PyTorch float32"]
    n_bytes = {
        "PyTorch float32": 4 * sum(p.numel() for p in model.parameters()),
        "ONNX Runtime float32": sizes[0],
        "ONNX Runtime int8": sizes[2],
    }
    rates = {"ONNX Runtime int8": byte_rate}
    rows = [
        {
            "form": name,
            "ms": 1000 * result.seconds(),
            "ratio to PyTorch": ratio(pytorch, result),
            "of_floor": flop / rates.get(name, floors.matrix_rate) / result.seconds(),
            "file_bytes": n_bytes[name],
            "cosine to PyTorch": torch.cosine_similarity(
                result.result, pytorch.result, dim=0
            ).item(),
        }
        for name, result in times.items()
    ]
    report(
        "onnx_runtime",
        rows,
        options,
        floors,
        seconds_of_audio=options.seconds,
        gflop=flop / 1e9,
        product_of_bytes_in_gop_a_second=byte_rate / 1e9,
        onnxruntime=onnxruntime.__version__,
    )


if __name__ == "__main__":
    main()
