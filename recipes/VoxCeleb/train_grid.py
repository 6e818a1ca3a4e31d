"""Trains a system with several settings, one after the other, and compares.

    python recipes/VoxCeleb/train_grid.py hparams/grids/lap_ablations.yaml \\
        --output_folder results/lap_ablations --seeds 1 2 3 -- \\
        --dataset voxceleb1 --data_folder /data/VoxCeleb1

What follows `--` goes to train.py, or to the recipe that --script names. A run
whose results are there is not run again. Writes grid.md and grid.csv, the mean
and range over the seeds, and the DET curves of the first seed, det.png and
det.pdf.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from speechbrain_ext.dataio.scores import read_scores
from speechbrain_ext.plots.detection import plot_det
from speechbrain_ext.training.grids import grid_row, read_grid, results_folder
from speechbrain_ext.utils.errors import one_line_errors
from speechbrain_ext.utils.files import write_json
from speechbrain_ext.utils.tables import write_table

TRAIN = Path(__file__).with_name("train.py")


def main(arguments):
    """Runs what is not done yet, and writes the table after each run."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid", help="YAML: for each name, hparams and overrides")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1986])
    parser.add_argument("--script", default=TRAIN, help="recipe; train.py")
    options = parser.parse_args(arguments[:split])

    folder = Path(options.output_folder)
    grid = read_grid(options.grid)
    rows, systems = [], {}
    for name, (hparams_file, overrides) in grid.items():
        runs = [folder / name / str(seed) for seed in options.seeds]
        for seed, output_folder in zip(options.seeds, runs):
            settings = {**overrides, "seed": seed, "output_folder": output_folder}
            command = [
                sys.executable, str(options.script), hparams_file,
                *arguments[split + 1 :],
                *(f"--{key}={value}" for key, value in settings.items()),
            ]  # fmt: skip
            finished = output_folder / "finished.json"
            if not finished.is_file():
                subprocess.run(command, check=True)
                write_json(finished, {"command": command})
        rows.append(grid_row(name, runs))
        write_table(folder / "grid", rows)
        trials, scores = read_scores(results_folder(runs[0]) / "scores.txt")
        systems[name] = trials.split_by_label(scores)
        plot_det(folder / "det", systems)


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
