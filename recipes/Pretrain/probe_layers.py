"""Probes each layer of SSL encoders for speakers and for phones.

    python recipes/Pretrain/probe_layers.py \\
        microsoft/wavlm-base-plus results/pretrain_wavlm/1986/encoder \\
        --manifest results/ltdnn_wavlm/1986/save/train.csv \\
        --output_folder results/probes

The speakers are those of a manifest that a training has prepared, the phones
those of the demo voices, whose alignment is known. Writes probes.json,
probes.png and probes.pdf.
"""

import argparse
from pathlib import Path

from speechbrain_ext.analysis.probing import (
    probe_phones,
    probe_speakers,
    read_phones,
)
from speechbrain_ext.dataio.corpora.demo import build_demo_corpus
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.plots.representations import plot_probes
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors
from speechbrain_ext.utils.files import write_json


def main():
    """Probes each encoder and writes the accuracies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("encoders", nargs="+", help="hub name or local folder")
    parser.add_argument("--manifest", required=True, help="CSV of utterances")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--demo_folder", default="results/demo_corpus")
    add_debug_option(parser)
    options = parser.parse_args()
    output_folder = Path(options.output_folder)

    speakers = read_manifest(options.manifest)
    demo_folder, _ = build_demo_corpus(options.demo_folder)
    paths = prepare_corpus("demo", demo_folder, output_folder / "demo")
    voices = read_manifest(paths["train"])
    unseen_voices = read_manifest(paths["test"])
    phones = read_phones(Path(demo_folder) / "phones.csv")

    accuracies = {}
    for source in options.encoders:
        encoder = load_encoder(source)
        accuracies[source] = {
            "speaker": probe_speakers(encoder, speakers),
            "phone": probe_phones(
                encoder,
                {**voices, **unseen_voices},
                phones,
                {item["speaker"] for item in unseen_voices.values()},
            ),
        }
        write_json(output_folder / "probes.json", accuracies)
    plot_probes(accuracies, output_folder / "probes")


if __name__ == "__main__":
    with one_line_errors():
        main()
