"""Plots which frames the heads of attention poolings weigh.

    python recipes/VoxCeleb/plot_head_weights.py \\
        results/vanilla_vgg/1986 results/mha_vgg/1986 --names vanilla "MHA 32" \\
        --output_folder figures

Without --audio it takes the first utterance of the first model's test trials.
Writes head_weights.png and .pdf, the first heads over time, and
cumulative_weights.png and .pdf, the weight of all heads of each model.
"""

import argparse
from pathlib import Path

from speechbrain_ext.analysis.frame_attention import frame_weights
from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.inference.sources import add_trust_option, load_model
from speechbrain_ext.plots.attention import plot_cumulative_weights, plot_frame_weights
from speechbrain_ext.training.recipes import model_names
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors


def main():
    """Plots the weights of each model on one utterance."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained_models", nargs="+", help="output_folders")
    parser.add_argument("--names", nargs="+", help="of the models")
    parser.add_argument("--audio", help="audio file")
    parser.add_argument("--n_heads", type=int, default=8, help="to show over time")
    parser.add_argument("--output_folder", required=True)
    add_trust_option(parser)
    add_debug_option(parser)
    options = parser.parse_args()
    names = model_names(options.names, options.trained_models)
    audio = options.audio
    if audio is None:
        test = manifest_paths(Path(options.trained_models[0]) / "save")["test"]
        audio = next(iter(read_manifest(test).values()))["wav"]

    weights = {}
    for name, folder in zip(names, options.trained_models):
        speaker_model = load_model(folder, "cpu", trust_source=options.trust_source)
        wav = speaker_model.load_audio(audio)
        weights[name] = frame_weights(speaker_model, wav)
    folder, sample_rate = Path(options.output_folder), speaker_model.sample_rate
    plot_frame_weights(
        folder / "head_weights", wav, weights, sample_rate, options.n_heads
    )
    plot_cumulative_weights(
        folder / "cumulative_weights", weights, len(wav) / sample_rate
    )


if __name__ == "__main__":
    with one_line_errors():
        main()
