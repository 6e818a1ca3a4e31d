"""How much a teacher's targets have in common, by linear CKA.

    python recipes/VoxCeleb/compare_targets.py \\
        results/xvector_teacher/1986/targets --output_folder figures

Takes the stores that train_kd.py has made. Writes cka.json, cka.png, cka.pdf.
"""

import argparse
from pathlib import Path

from speechbrain_ext.analysis.cka import linear_cka
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.plots.representations import plot_similarities
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors
from speechbrain_ext.utils.files import write_json


def main():
    """Compares all targets in a folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets_folder")
    parser.add_argument("--output_folder", required=True)
    add_debug_option(parser)
    options = parser.parse_args()
    stores = {
        path.stem: EmbeddingStore.load(path)
        for path in sorted(Path(options.targets_folder).glob("*.safetensors"))
    }
    if len(stores) < 2:
        raise InputError(
            f"'{options.targets_folder}' has fewer than two targets; "
            "recipes/VoxCeleb/train_kd.py makes them"
        )
    ids = next(iter(stores.values())).ids
    embeddings = {}
    for name, store in stores.items():
        if set(store.ids) != set(ids):
            raise InputError(f"{name} is of other utterances than the first target")
        row_of = {utterance: row for row, utterance in enumerate(store.ids)}
        embeddings[name] = store.embeddings[[row_of[u] for u in ids]]
    similarities = {
        first: {second: linear_cka(x, y) for second, y in embeddings.items()}
        for first, x in embeddings.items()
    }
    folder = Path(options.output_folder)
    write_json(folder / "cka.json", similarities)
    plot_similarities(similarities, folder / "cka")


if __name__ == "__main__":
    with one_line_errors():
        main()
