"""Score files of this project, of Kaldi and WeSpeaker, and CSV."""

import csv
import math
from pathlib import Path

import torch

from speechbrain_ext.dataio.trials import LABELS, Trials, require_both_labels
from speechbrain_ext.utils.errors import InputError

COLUMNS = ("enrol", "test", "label", "score")


def read_scores(path):
    """Reads a score file.

    Three forms are told apart line by line: `enrol test label score` with
    label 1 or 0, as SpeechBrain and this project write; `enrol test score
    target|nontarget`, as Kaldi and WeSpeaker do; and CSV with a header that
    has the columns enrol, test, label and score.

    Arguments
    ---------
    path : str or Path
        Score file.

    Returns
    -------
    trials : Trials
        In the order of the file.
    scores : torch.Tensor
        Of shape (n_trial,).

    Raises
    ------
    InputError
        If the file is missing, a line is malformed, or there are no target
        or no non-target trials.

    Example
    -------
    >>> path = getfixture("tmpdir") / "scores.txt"
    >>> path.write_text("a b 0.5 target\\nc d 0.1 nontarget\\n", "utf-8")
    >>> trials, scores = read_scores(path)
    >>> trials.labels, scores
    ([1, 0], tensor([0.5000, 0.1000]))
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no score file '{path}'")
    trials, scores = Trials([], [], []), []
    with open(path, newline="", encoding="utf-8-sig") as file:
        is_csv = path.suffix.lower() == ".csv"
        rows = _csv_rows(file, path) if is_csv else _text_rows(file, path)
        for number, (enrol, test, label, score) in rows:
            if label not in LABELS:
                raise InputError(
                    f"'{path}', line {number}: label '{label}'; use 1 or "
                    "target, 0 or nontarget"
                )
            try:
                value = float(score)
            except ValueError:
                value = math.nan
            if math.isnan(value):
                raise InputError(
                    f"'{path}', line {number}: score '{score}' is no number"
                )
            trials.labels.append(LABELS[label])
            trials.enrol.append(enrol)
            trials.test.append(test)
            scores.append(value)
    require_both_labels(trials, path)
    return trials, torch.tensor(scores)


def _csv_rows(file, path):
    reader = csv.DictReader(file)
    missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
    if missing:
        raise InputError(f"'{path}' lacks the columns {', '.join(missing)}")
    for row in reader:
        yield reader.line_num, [row[column] for column in COLUMNS]


def _text_rows(file, path):
    for number, line in enumerate(file, start=1):
        line = line.strip()
        if not line:
            continue
        fields = line.split("\t") if "\t" in line else line.split()
        if len(fields) != 4:
            raise InputError(
                f"'{path}', line {number}: {len(fields)} fields; a score is "
                "'enrol test label score' or 'enrol test score target'"
            )
        enrol, test, third, fourth = fields
        if fourth in ("target", "nontarget"):
            third, fourth = fourth, third
        yield number, (enrol, test, third, fourth)
