"""Grids of trainings: what to run, and the row of a table for each."""

import dataclasses
import json
import statistics
import sys
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from speechbrain_ext.config import read_configuration
from speechbrain_ext.utils.errors import InputError


def read_grid(path):
    """Reads what to train.

    Arguments
    ---------
    path : str or Path
        YAML with, for each name, a mapping: hparams, the YAML of the system,
        and overrides of its keys.

    Returns
    -------
    dict
        For each name, the YAML's path and the overrides.

    Raises
    ------
    InputError
        If there is no such file, or a name has no hparams.

    Example
    -------
    >>> path = getfixture("tmpdir") / "grid.yaml"
    >>> path.write_text("sum: {hparams: hparams/lap_wavlm.yaml, pool: sum}\\n", "utf-8")
    >>> read_grid(path)
    {'sum': ('hparams/lap_wavlm.yaml', {'pool': 'sum'})}
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
        hparams_file = settings.pop("hparams")
        grid[name] = hparams_file, settings
    return grid


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
    """

    output_folder: Path
    command: list
    settings: dict


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
    low, high = runs[0]["EER_95"]
    with_plda = [folder.with_name("verification_plda") for folder in folders]
    plda = {}
    if all((folder / "metrics.json").is_file() for folder in with_plda):
        eers = [100 * read_metrics(folder)["EER"] for folder in with_plda]
        plda = {"EER % with PLDA": over_seeds(eers, 2)}
    return {
        "system": name,
        "EER %": over_seeds([100 * run["EER"] for run in runs], 2),
        **plda,
        "95 % over speakers, first seed": f"{100 * low:.1f} to {100 * high:.1f}",
        "EER* %": over_seeds([100 * run["EER_star"] for run in runs], 2),
        "minDCF 0.01": over_seeds([run["minDCF_0.01"] for run in runs], 3),
        "minDCF 0.05": over_seeds([run["minDCF_0.05"] for run in runs], 3),
        "parameters": runs[0]["parameters"]["embedding_model"],
        "minutes": over_seeds([run["train_minutes"] for run in runs], 0),
    }


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
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


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
