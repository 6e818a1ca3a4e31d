"""Manifests: which utterances there are, and where what was prepared stands."""

import csv
from pathlib import Path

from speechbrain_ext.utils.files import atomic_path

SPLITS = ("train", "valid", "test")
MANIFEST_FIELDS = ("id", "wav", "speaker", "duration")


def manifest_paths(save_folder):
    """Paths of what `prepare_corpus` writes.

    Arguments
    ---------
    save_folder : str or Path
        As of `prepare_corpus`.

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
    """Writes utterances as CSV, atomically.

    Arguments
    ---------
    path : str or Path
        File to write.
    utterances : list of Utterance
        Rows.
    """
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(MANIFEST_FIELDS)
            writer.writerows(
                [getattr(u, field) for field in MANIFEST_FIELDS] for u in utterances
            )


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
    """
    with open(path, newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return {
        row["id"]: {
            "wav": row["wav"],
            "speaker": row["speaker"],
            "duration": float(row["duration"]),
        }
        for row in rows
    }
