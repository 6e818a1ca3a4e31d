"""Exports a trained model for onnxruntime, front end and SSL encoder included.

    python recipes/VoxCeleb/export_onnx.py results/ltdnn_wavlm/1986/large_margin \\
        --output_folder exported

Writes model.onnx (float32), model_float16.onnx and model_int8.onnx (dynamic),
from waveforms and relative lengths to embeddings, and model.json with the
threshold. verify_onnx.py uses them.
"""

import argparse

from speechbrain_ext.inference.onnx import export_onnx
from speechbrain_ext.inference.sources import add_trust_option, load_model
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors


def main():
    """Exports a model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "trained_model",
        help="output_folder of a training, or exported folder, or its name on the hub",
    )
    parser.add_argument("--output_folder", required=True)
    add_trust_option(parser)
    add_debug_option(parser)
    options = parser.parse_args()
    speaker_model = load_model(
        options.trained_model, "cpu", trust_source=options.trust_source
    )
    for path in export_onnx(speaker_model, options.output_folder):
        print(path)


if __name__ == "__main__":
    with one_line_errors():
        main()
