"""Manifests: which utterances there are, and where what was prepared stands."""

from pathlib import Path

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import read_csv, write_csv

SPLITS = ("train", "valid", "test")
MANIFEST_FIELDS = ("id", "wav", "speaker", "duration")


def manifest_paths(save_folder):
    """Paths of what `prepare_corpus` writes.

    Arguments
    ---------
    save_folder : str or Path
        See `prepare_corpus`.

    Returns
    -------
    dict
        Paths of the manifests (train, valid, test) and trial lists
        (valid_trials, test_trials).

    Example
    -------
    >>> manifest_paths("save")["test_trials"]
    'save/test_trials.txt'
    """
    save_folder = Path(save_folder)
    paths = {split: str(save_folder / f"{split}.csv") for split in SPLITS}
    for split in ("valid", "test"):
        paths[f"{split}_trials"] = str(save_folder / f"{split}_trials.txt")
    return paths


def write_manifest(path, utterances):
    """Writes utterances as CSV, atomically, with names of any kind.

    Arguments
    ---------
    path : str or Path
        File to write.
    utterances : list of Utterance
        Rows.
    """
    rows = ([getattr(u, field) for field in MANIFEST_FIELDS] for u in utterances)
    write_csv(path, MANIFEST_FIELDS, rows)


def read_manifest(path):
    """Reads a manifest as `DynamicItemDataset` takes it.

    SpeechBrain's own CSV reader replaces `$` in paths and reserves "ID".

    Arguments
    ---------
    path : str or Path
        CSV file of `write_manifest`.

    Returns
    -------
    dict
        For each id: wav, speaker, duration (seconds).

    Raises
    ------
    InputError
        If the file or a column is missing, or a duration is no number.
    """
    utterances = {}
    for number, row in read_csv(path, "manifest", MANIFEST_FIELDS):
        name, wav, speaker, duration = row
        try:
            utterances[name] = {
                "wav": wav,
                "speaker": speaker,
                "duration": float(duration),
            }
        except ValueError:
            raise InputError(
                f"'{path}', line {number}: duration '{duration}' is no number; "
                "prepare the data again"
            ) from None
    return utterances
