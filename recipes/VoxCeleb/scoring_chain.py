"""Scores a trained model step by step on several trial lists.

    python recipes/VoxCeleb/scoring_chain.py hparams/verification_chain.yaml \\
        --trained_model results/lap_wavlm/1986/large_margin \\
        --trials_from voxceleb1 --test_folder /data/VoxCeleb1 \\
        --trial_lists='[vox1-o, vox1-e, vox1-h]'

Writes what a verification writes to <output_folder>/<list>/<step>, and all
rows to <output_folder>/chain.md and chain.csv.
"""

import sys
from pathlib import Path

from speechbrain.utils.distributed import if_main_process

from speechbrain_ext.config import read_configuration
from speechbrain_ext.training.recipes import load_verification, verify_by_cosine
from speechbrain_ext.utils.errors import one_line_errors
from speechbrain_ext.utils.tables import write_table


def main(arguments):
    """Loads the model once for each list, and scores each step."""
    configuration = read_configuration(arguments)
    hparams = configuration.values()
    folder = Path(hparams["output_folder"])
    rows = []
    for trial_list in hparams["trial_lists"]:
        name = Path(str(trial_list or "trials")).stem
        own = {"output_folder": str(folder / name)}
        if trial_list is not None:
            own["verification_file"] = trial_list
        list_hparams, *rest, reporting = load_verification(
            configuration.with_values(own)
        )
        for step, settings in hparams["steps"].items():
            output_folder = folder / name / step.replace(" ", "_")
            metrics = verify_by_cosine(
                {**list_hparams, **settings, "output_folder": output_folder},
                *rest,
                {
                    **reporting,
                    "details": {
                        **reporting["details"], "trials": trial_list, "scores": step
                    },
                },
            )  # fmt: skip
            if if_main_process():
                rows.append(
                    {
                        "trials": name,
                        "scores": step,
                        "EER %": f"{100 * metrics['EER']:.2f}",
                        "minDCF 0.01": f"{metrics['minDCF_0.01']:.3f}",
                        "minDCF 0.05": f"{metrics['minDCF_0.05']:.3f}",
                    }
                )
                write_table(folder / "chain", rows)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
