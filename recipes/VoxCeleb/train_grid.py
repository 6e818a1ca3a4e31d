"""Trains a system with several settings, one after the other, and compares.

    python recipes/VoxCeleb/train_grid.py hparams/grids/lap_ablations.yaml \\
        --output_folder results/lap_ablations --seeds 1 2 3 -- \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1

What follows `--` goes to train.py, or to the recipe that --script names. A run
whose results are there is not run again; where it was run with other settings, or
one cannot be trained, the grid stops before it starts anything. A setting that names a
scoring_chain, a YAML of scoring_chain.py, has its trials scored by that too, and a row
for each of its steps. With --only, some settings of the grid alone are trained and in
the table. Writes grid.md and grid.csv, the mean and range over the seeds,
and the DET curves of the first seed, det.png and det.pdf.
"""

import argparse
import itertools
import subprocess
import sys
from pathlib import Path

from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.scores import read_scores
from speechbrain_ext.plots.detection import plot_det
from speechbrain_ext.training.checks import check_trainings
from speechbrain_ext.training.finished import (
    check_settings,
    is_finished,
    mark_finished,
    start_settings,
)
from speechbrain_ext.training.grids import (
    chain_folder,
    chain_rows,
    grid_row,
    grid_run,
    read_grid,
    results_folder,
)
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors
from speechbrain_ext.utils.tables import write_table

TRAIN = Path(__file__).with_name("train.py")
SCORING_CHAIN = Path(__file__).with_name("scoring_chain.py")


def main(arguments):
    """Runs what is not done yet, and writes the table after each run."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", help="YAML: for each name, hparams and overrides")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1986])
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="names of the grid to train; all"
    )
    parser.add_argument("--script", default=TRAIN, help="recipe; train.py")
    add_debug_option(parser)
    options = parser.parse_args(arguments[:split])

    folder = Path(options.output_folder)
    grid = read_grid(options.grid, options.only)
    runs = {
        name: [
            grid_run(
                options.script,
                entry.hparams,
                arguments[split + 1 :],
                {
                    **entry.overrides,
                    "seed": seed,
                    "output_folder": folder / name / str(seed),
                },
            )
            for seed in options.seeds
        ]
        for name, entry in grid.items()
    }
    output_folders = []
    for run in itertools.chain(*runs.values()):
        check_settings(run.output_folder, run.settings)
        output_folders.append(run.output_folder)
    # Seeds alone make no difference.
    first = [run for run, *_ in runs.values() if not is_finished(run.output_folder)]
    check_trainings(
        [stage for run in first for stage in training_stages(run.configuration)],
        to_come=output_folders,
    )
    for entry in grid.values():
        if entry.scoring_chain is not None:
            read_configuration([entry.scoring_chain], demo=False).check()

    rows, systems = [], {}
    for name, runs_of_seeds in runs.items():
        for run in runs_of_seeds:
            take(run)
        folders = [run.output_folder for run in runs_of_seeds]
        rows.append(grid_row(name, folders))
        if grid[name].scoring_chain is not None:
            for output_folder in folders:
                take(chain_run(grid[name].scoring_chain, output_folder))
            rows += chain_rows(name, folders)
        write_table(folder / "grid", rows)
        trials, scores = read_scores(results_folder(folders[0]) / "scores.txt")
        systems[name] = trials.split_by_label(scores)
        plot_det(folder / "det", systems)


def take(run):
    """Takes a run that is not finished."""
    check_settings(run.output_folder, run.settings)
    if not is_finished(run.output_folder):
        start_settings(run.output_folder, run.settings)
        subprocess.run(run.command, check=True)
        mark_finished(run.output_folder)


def chain_run(hparams_file, output_folder):
    """The scoring chain of a training that is finished."""
    folder = chain_folder(output_folder)
    overrides = {
        "trained_model": folder.parent,
        "output_folder": folder,
        # The grid has just run its YAML as a whole.
        "trust_source": True,
    }
    return grid_run(SCORING_CHAIN, hparams_file, [], overrides)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
