"""Grids of trainings: what to run, and the row of a table for each."""

import csv
import dataclasses
import json
import statistics
import sys
from pathlib import Path
from typing import NamedTuple

from ruamel.yaml import YAML, YAMLError

from speechbrain_ext.config import Configuration, read_configuration
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json


class GridEntry(NamedTuple):
    """What is trained under one name.

    Arguments
    ---------
    hparams : str
        YAML of the system.
    overrides : dict
        Values of its keys.
    scoring_chain : str or None
        YAML of the scoring chain of its scores.
    """

    hparams: str
    overrides: dict
    scoring_chain: str | None = None


def read_grid(path, only=None):
    """Reads what to train.

    Arguments
    ---------
    path : str or Path
        YAML with, for each name, a mapping: hparams, the YAML of the system,
        overrides of its keys, and, where its scores are to go through
        recipes/VoxCeleb/scoring_chain.py too, scoring_chain, the YAML of that.
    only : list of str or None
        Names to take, in this order; None takes all.

    Returns
    -------
    dict
        For each name a `GridEntry`.

    Raises
    ------
    InputError
        If there is no such file, a name has no hparams, or a name of `only` is not in
        the grid.

    Example
    -------
    >>> path = getfixture("tmpdir") / "grid.yaml"
    >>> path.write_text("sum: {hparams: hparams/lap_wavlm.yaml, pool: sum}\\n", "utf-8")
    >>> read_grid(path)["sum"]
    GridEntry(hparams='hparams/lap_wavlm.yaml', overrides={'pool': 'sum'}, ...None)
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no grid '{path}'")
    try:
        content = YAML(typ="safe").load(path.read_text("utf-8"))
    except YAMLError as error:
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"'{path}': this is no YAML ({what})") from None
    if not isinstance(content, dict):
        raise InputError(f"'{path}' names no settings to train")
    grid = {}
    for name, settings in content.items():
        if not isinstance(settings, dict) or "hparams" not in settings:
            raise InputError(f"'{path}': {name} has no hparams, a YAML to train")
        grid[name] = GridEntry(
            settings.pop("hparams"), settings, settings.pop("scoring_chain", None)
        )
    unknown = [name for name in only or () if name not in grid]
    if unknown:
        raise InputError(
            f"'{path}' has no '{unknown[0]}'; it has " + "; ".join(map(repr, grid))
        )
    return grid if only is None else {name: grid[name] for name in only}


@dataclasses.dataclass
class GridRun:
    """One training of a grid.

    Arguments
    ---------
    output_folder : Path
        Output folder of the training.
    command : list of str
        Command that runs it.
    settings : dict
        All that its results depend on, for `check_settings`.
    configuration : Configuration
        What the command will read.
    """

    output_folder: Path
    command: list
    settings: dict
    configuration: Configuration


def grid_run(script, hparams_file, options, overrides):
    """The run of one setting with one seed.

    Arguments
    ---------
    script : str or Path
        Script of the recipe.
    hparams_file : str
        YAML of the system.
    options : list of str
        Options of the command line, for all settings.
    overrides : dict
        Overrides of the setting, with seed and output_folder; they take
        precedence.

    Returns
    -------
    GridRun
        A training, to run where it is not finished.

    Raises
    ------
    InputError
        If an option or a value cannot be used.
    """
    arguments = [
        hparams_file,
        *options,
        *(f"--{key}={option_text(value)}" for key, value in overrides.items()),
    ]
    configuration = read_configuration(arguments, demo=False)
    return GridRun(
        Path(overrides["output_folder"]),
        [sys.executable, str(script), *arguments],
        {"script": str(Path(script).resolve()), **configuration.settings()},
        configuration,
    )


def option_text(value):
    """A value as text that the command line reads as that value.

    Arguments
    ---------
    value : object
        Value of a grid's YAML.

    Returns
    -------
    str
        Text for `--key=value`.

    Example
    -------
    >>> option_text(None), option_text(["a", 1.5]), option_text("001")
    ('null', '["a", 1.5]', '001')
    """
    if isinstance(value, (str, Path)):
        return str(value)
    return json.dumps(value)


def grid_row(name, output_folders):
    """The row of one setting, over its seeds.

    Arguments
    ---------
    name : str
        Name of the setting.
    output_folders : list of Path
        Output folders of its trainings; where one has stages, the last one counts.

    Returns
    -------
    dict
        Columns and their values: means, and the range where there are several
        seeds; the EER with PLDA where all have verification_plda beside test.
    """
    folders = [results_folder(folder) for folder in output_folders]
    runs = [read_metrics(folder) for folder in folders]
    with_plda = [folder.with_name("verification_plda") for folder in folders]
    plda = {}
    if all((folder / "metrics.json").is_file() for folder in with_plda):
        eers = [100 * read_metrics(folder)["EER"] for folder in with_plda]
        plda = {"EER % with PLDA": over_seeds(eers, 2)}
    return {
        "system": name,
        **plda,
        **_errors(runs),
        "parameters": runs[0]["parameters"]["embedding_model"],
        "minutes": over_seeds([run["train_minutes"] for run in runs], 0),
    }


def chain_rows(name, output_folders):
    """The rows of one setting's scoring chain, over its seeds.

    Arguments
    ---------
    name : str
        Name of the setting.
    output_folders : list of Path
        As of `grid_row`.

    Returns
    -------
    list of dict
        For each trial list and step of the chain, columns and their values: as of
        `grid_row`, and for calibrated scores Cllr and the actual cost.
    """
    chains = [chain_folder(folder) for folder in output_folders]
    with open(chains[0] / "chain.csv", newline="", encoding="utf-8") as file:
        steps = [(row["trials"], row["scores"]) for row in csv.DictReader(file)]
    lists = {trials for trials, _ in steps}
    rows = []
    for trials, scores in steps:
        folders = [chain / trials / scores.replace(" ", "_") for chain in chains]
        runs = [read_metrics(folder) for folder in folders]
        of_list = [trials] if len(lists) > 1 else []
        row = {"system": ", ".join([name, *of_list, scores]), **_errors(runs)}
        if "Cllr" in runs[0]:
            row["Cllr"] = over_seeds([run["Cllr"] for run in runs], 3)
            actual = [run["actDCF_0.01"] for run in runs]
            row["actual DCF 0.01"] = over_seeds(actual, 3)
        rows.append(row)
    return rows


def chain_folder(output_folder):
    """Where the scoring chain of a training is.

    Arguments
    ---------
    output_folder : Path
        Output folder of the training; where it has stages, the last one counts.

    Returns
    -------
    Path
        Output folder of scoring_chain.py.
    """
    return results_folder(output_folder).with_name("scoring_chain")


def _errors(runs):
    """Error rates of verifications, one for each seed."""
    low, high = runs[0]["EER_95"]
    return {
        "EER %": over_seeds([100 * run["EER"] for run in runs], 2),
        "95 % over speakers, first seed": f"{100 * low:.1f} to {100 * high:.1f}",
        "EER* %": eer_star_over_seeds(runs),
        "minDCF 0.01": over_seeds([run["minDCF_0.01"] for run in runs], 3),
        "minDCF 0.05": over_seeds([run["minDCF_0.05"] for run in runs], 3),
    }


def eer_star_over_seeds(runs):
    """EER* in per cent, which scores without a threshold of their own lack.

    Arguments
    ---------
    runs : list of dict
        Metrics, one for each seed.

    Returns
    -------
    str
        As of `over_seeds`; empty where it is not known.

    Example
    -------
    >>> eer_star_over_seeds([{"EER_star": 0.021}]), eer_star_over_seeds([{"EER": 0.02}])
    ('2.10', '')
    """
    if not all("EER_star" in run for run in runs):
        return ""
    return over_seeds([100 * run["EER_star"] for run in runs], 2)


def results_folder(output_folder):
    """Where a training left its test results.

    Arguments
    ---------
    output_folder : Path
        Output folder of the training; where it has stages, the last one counts, in the
        order that its metrics.json names them in.

    Returns
    -------
    Path
        The folder of metrics.json and scores.txt.

    Raises
    ------
    InputError
        If there are no test results.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir"))
    >>> for stage in ("joint", "frozen"):
    ...     (folder / stage / "test").mkdir(parents=True)
    ...     metrics = {"stage": stage, "stages": ["frozen", "joint"]}
    ...     file = folder / stage / "test" / "metrics.json"
    ...     _ = file.write_text(json.dumps(metrics))
    >>> results_folder(folder).parent.name
    'joint'
    """
    if (output_folder / "test" / "metrics.json").is_file():
        return output_folder / "test"
    of_stages = {}
    for file in output_folder.glob("*/test/metrics.json"):
        metrics = read_metrics(file.parent)
        if metrics.get("stage") in metrics.get("stages", ()):
            of_stages[metrics["stages"].index(metrics["stage"])] = file.parent
    if not of_stages:
        raise InputError(
            f"'{output_folder}' has no test results (test/metrics.json), or those of "
            "stages that do not say their stage; train again"
        )
    return of_stages[max(of_stages)]


def read_metrics(folder):
    """Reads the results of a verification.

    Arguments
    ---------
    folder : Path
        Folder with metrics.json.

    Returns
    -------
    dict
        The content of metrics.json.
    """
    return read_json(folder / "metrics.json")


def over_seeds(values, digits):
    """Mean and range of a metric over the seeds.

    Arguments
    ---------
    values : list of float
        One for each seed.
    digits : int
        Digits after the point.

    Returns
    -------
    str
        The mean and, where there are several seeds, the range.

    Example
    -------
    >>> over_seeds([1.0, 2.5], 1)
    '1.8 (1.0 to 2.5)'
    """
    mean = f"{statistics.mean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    return f"{mean} ({min(values):.{digits}f} to {max(values):.{digits}f})"
