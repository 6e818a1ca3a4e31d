"""Processor time of a training step of each system of a grid.

    python recipes/SmallScale/step_cost.py hparams/grids/evidence.yaml \\
        --output_folder results/small/cost -- \\
        --preset hparams/presets/two_minutes.yaml --data_folder results/small/within

What follows `--` goes to every training, as in train_grid.py. Trains each for
--steps steps in this process, without workers, so that all its work is counted;
writes cost.md and cost.csv: the median of the steps after the first, and how many
steps --seconds seconds give.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.training.grids import option_text, read_grid
from speechbrain_ext.training.recipes import init_process_group, start_training
from speechbrain_ext.training.steps import (
    prepare_data,
    speaker_modules,
    training_data,
    training_speakers,
)
from speechbrain_ext.utils.errors import add_debug_option, one_line_errors
from speechbrain_ext.utils.tables import write_table


def main(arguments):
    """Measures one system after the other."""
    split = arguments.index("--") if "--" in arguments else len(arguments)
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("grid")
    parser.add_argument("--output_folder", required=True)
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="names of the grid to measure; all"
    )
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=100)
    add_debug_option(parser)
    options = parser.parse_args(arguments[:split])
    folder = Path(options.output_folder)
    rows = []
    for name, entry in read_grid(options.grid, options.only).items():
        overrides = {
            **entry.overrides,
            "number_of_steps": options.steps,
            "num_workers": 0,
            "output_folder": folder / name,
        }
        given = [f"--{key}={option_text(value)}" for key, value in overrides.items()]
        configuration = read_configuration(
            [entry.hparams, *arguments[split + 1 :], *given]
        )
        init_process_group(configuration.run_opts)
        stage = training_stages(configuration)[0]
        seconds, parameters = step_seconds(stage)
        rows.append(
            {
                "system": name,
                "parameters": parameters,
                "processor seconds a step": f"{seconds:.2f}",
                f"steps in {options.seconds:g} s": round(options.seconds / seconds),
            }
        )
        write_table(folder / "cost", rows)


def step_seconds(configuration):
    """Median processor time of a step, and the parameters of the back end."""
    hparams = start_training(configuration)
    paths = prepare_data(hparams)
    speakers = training_speakers(hparams, paths["train"])
    modules = speaker_modules(hparams, speakers)
    modules, train_data, _ = training_data(
        hparams, paths, speakers, modules, configuration.run_opts
    )
    brain = hparams["brain_class"](
        modules=modules,
        opt_class=hparams["opt_class"],
        hparams=hparams,
        run_opts=configuration.run_opts,
        valid_trials=read_trials(paths["valid_trials"]),
    )
    times = []

    def end_of_step(*_):
        times.append(time.process_time())

    brain.on_fit_batch_end = end_of_step
    brain.fit(
        hparams["epoch_counter"],
        train_data,
        progressbar=False,
        train_loader_kwargs={
            "batch_size": hparams["batch_size"],
            "num_workers": hparams["num_workers"],
        },
    )
    # The first steps set up what the others find.
    seconds = [end - start for start, end in zip(times[1:], times[2:])]
    parameters = sum(p.numel() for p in brain.modules["embedding_model"].parameters())
    return statistics.median(seconds), parameters


if __name__ == "__main__":
    with one_line_errors():
        main(sys.argv[1:])
