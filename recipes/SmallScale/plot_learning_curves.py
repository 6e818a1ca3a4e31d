"""Draws the EER of trainings of several lengths over the processor time they take.

    python recipes/SmallScale/plot_learning_curves.py results/small/equal \\
        results/small/curves --cost results/small/cost/cost.csv \\
        --systems "L-TDNN, Whisper" "SUPERB + ECAPA-TDNN, Whisper" \\
        --output_folder figures

Takes the trainings of train_grid.py below the folders whose names begin with that of
a system, the seconds of a step from what step_cost.py wrote for it, and one trial
list of scoring_chain.py beside the test's. Writes learning_curves.png and .pdf.
"""

import argparse
import csv
import sys
from pathlib import Path

from speechbrain_ext.plots.training import plot_learning_curves
from speechbrain_ext.training.grids import read_metrics
from speechbrain_ext.training.results_table import find_trainings
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors


def main(arguments):
    """Collects the points and draws them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+")
    parser.add_argument("--cost", required=True, help="cost.csv of step_cost.py")
    parser.add_argument("--systems", nargs="+", required=True)
    parser.add_argument("--across", default="across", help="list of scoring_chain.py")
    parser.add_argument("--output_folder", required=True)
    add_debug_option(parser)
    options = parser.parse_args(arguments)
    with open(options.cost, newline="", encoding="utf-8") as file:
        seconds = {
            row["system"]: float(row["processor seconds a step"])
            for row in csv.DictReader(file)
        }
    curves = {}
    for folder in options.results:
        for name, runs in find_trainings(folder).items():
            system = next((s for s in options.systems if name.startswith(s)), None)
            if system is None:
                continue
            if system not in seconds:
                raise InputError(f"'{options.cost}' has no cost of {system}")
            steps = read_metrics(runs[0] / "test")["number_of_steps"]
            minutes = steps * seconds[system] / 60
            lists = {
                "within": "test",
                "across": f"scoring_chain/{options.across}/cosine",
            }
            for trials, results in lists.items():
                eers = [read_metrics(run / results)["EER"] for run in runs]
                points = curves.setdefault(trials, {}).setdefault(system, [])
                points.append((minutes, eers))
    plot_learning_curves(curves, Path(options.output_folder) / "learning_curves")


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
