"""Plots which layers a trained model attends to, over time and on average.

    python recipes/VoxCeleb/plot_layer_attention.py \\
        results/lap_wavlm/1986/large_margin a.wav b.wav \\
        --phones phones.csv --output_folder figures

Without audio files it takes the first utterances of the model's test trials.
Writes a heatmap for each utterance, layer_usage.png and .pdf, and
layer_usage.json; warns when the attention has collapsed to a constant. Where the
model keeps the maximum over layers (L-TDNN, LAP), also layer_wins.png, .pdf and
.json: how often each layer is the maximum, over all frames and, with phones, for
each class of them.
"""

import argparse
from pathlib import Path

import torch

from speechbrain_ext.analysis.layer_attention import layer_usage
from speechbrain_ext.analysis.layer_wins import (
    find_layer_maximum,
    layer_wins,
    wins_by_phone_class,
)
from speechbrain_ext.analysis.probing import read_phones
from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.inference.sources import add_trust_option, load_model
from speechbrain_ext.plots.attention import (
    plot_layer_attention,
    plot_layer_usage,
    plot_layer_wins,
)
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors
from speechbrain_ext.utils.files import write_json


def main():
    """Plots the attention of one model on some utterances."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("trained_model", help="output_folder of a training")
    parser.add_argument("audio", nargs="*", help="audio files")
    parser.add_argument("--n_utterances", type=int, default=20)
    parser.add_argument("--phones", help="CSV: id, the file's name; start; phone")
    parser.add_argument("--output_folder", required=True)
    add_trust_option(parser)
    add_debug_option(parser)
    options = parser.parse_args()
    output_folder = Path(options.output_folder)

    speaker_model = load_model(
        options.trained_model, "cpu", trust_source=options.trust_source
    )
    if not speaker_model.has_layer_weights:
        raise InputError(f"the model in '{options.trained_model}' has no layers")
    audio = options.audio
    if not audio:
        test = manifest_paths(Path(options.trained_model) / "save")["test"]
        utterances = list(read_manifest(test).values())
        audio = [item["wav"] for item in utterances[: options.n_utterances]]
    phones = read_phones(options.phones) if options.phones else {}
    if options.phones and not any(Path(path).name in phones for path in audio):
        raise InputError(
            f"--phones: '{options.phones}' has none of the recordings; its column id "
            f"must have their file names, such as '{Path(audio[0]).name}'"
        )

    keeps_maximum = find_layer_maximum(speaker_model.embedding_model) is not None
    weights, wins, with_phones = [], [], []
    for path in map(Path, audio):
        wav = speaker_model.load_audio(path)
        weights.append(speaker_model.layer_weights(wav))
        if keeps_maximum:
            batch = wav.unsqueeze(0).to(speaker_model.device)
            with torch.no_grad():
                hidden_states, _ = speaker_model.encoder(batch)
            wins.append(layer_wins(speaker_model.embedding_model, hidden_states))
            if path.name in phones:
                duration = len(wav) / speaker_model.sample_rate
                with_phones.append((wins[-1], phones[path.name], duration))
        plot_layer_attention(
            output_folder / path.stem,
            wav,
            weights[-1],
            speaker_model.sample_rate,
            phones.get(path.name),
        )
    usage = layer_usage(weights)
    write_json(output_folder / "layer_usage.json", usage)
    plot_layer_usage(output_folder / "layer_usage", usage)
    if keeps_maximum:
        frames = torch.cat(wins)
        of_all = frames.mean(dim=0).tolist(), len(frames)
        of_classes = {"all": of_all, **wins_by_phone_class(with_phones)}
        write_json(output_folder / "layer_wins.json", of_classes)
        plot_layer_wins(output_folder / "layer_wins", of_classes)


if __name__ == "__main__":
    with one_line_errors():
        main()
