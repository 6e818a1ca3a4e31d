"""Which trainings are finished, and what their results depend on."""

from pathlib import Path

from speechbrain_ext.config import without_places
from speechbrain_ext.utils.cache_keys import differences
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json, write_json

SETTINGS = "settings.json"
FINISHED = "finished.json"


def check_settings(output_folder, settings):
    """Refuses a folder whose training was started with other settings.

    Arguments
    ---------
    output_folder : str or Path
        Output folder of the training; a folder without a record of settings passes.
    settings : dict
        All that its results depend on.

    Raises
    ------
    InputError
        If they are not those that the folder has on record.

    Example
    -------
    >>> folder = Path(getfixture("tmpdir")) / "run"
    >>> check_settings(folder, {"lr": "0.1"})
    >>> start_settings(folder, {"lr": "0.1"})
    >>> check_settings(folder, {"lr": "0.2"})
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: ... (lr ("0.1", not "0.2")); ...
    """
    path = Path(output_folder) / SETTINGS
    if not path.is_file():
        return
    before = read_json(path)
    # Earlier releases have the places of caches on record.
    changed = differences(*map(without_places, (before, settings)))
    if changed:
        shown = ", ".join(changed[:3])
        more = f" and {len(changed) - 3} more" if len(changed) > 3 else ""
        moved = ""
        if all(difference.startswith("data_folder ") for difference in changed):
            moved = "; where the corpus has only moved, leave a link at its old place"
        raise InputError(
            f"'{output_folder}' was trained with other settings ({shown}{more}); "
            f"delete the folder to train again, or give another one{moved}"
        )


def start_settings(output_folder, settings):
    """Puts on record what the results of a training will depend on.

    Arguments
    ---------
    output_folder : str or Path
        Output folder of the training.
    settings : dict
        All that its results depend on.
    """
    write_json(Path(output_folder) / SETTINGS, settings)


def mark_finished(output_folder):
    """Puts on record that a training has all its results.

    Arguments
    ---------
    output_folder : str or Path
        Output folder of the training.
    """
    write_json(Path(output_folder) / FINISHED, {})


def is_finished(output_folder):
    """Whether a training has all its results.

    Arguments
    ---------
    output_folder : str or Path
        Output folder of the training.

    Returns
    -------
    bool
        Whether `mark_finished` has marked the folder.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> before = is_finished(folder)
    >>> mark_finished(folder)
    >>> before, is_finished(folder)
    (False, True)
    """
    return (Path(output_folder) / FINISHED).is_file()
