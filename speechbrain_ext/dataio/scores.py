"""Score files: writing them, and reading also Kaldi's, WeSpeaker's and CSV."""

import csv
import math
from pathlib import Path

import torch

from speechbrain_ext.dataio.trials import (
    LABELS,
    Trials,
    require_both_labels,
    require_one_label,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, open_text

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
        In float64, of shape (n_trial,).

    Raises
    ------
    InputError
        If the file is missing, a line is malformed, a score is not finite,
        one pair has both labels, or there are no target or no non-target
        trials.

    Example
    -------
    >>> path = getfixture("tmpdir") / "scores.txt"
    >>> path.write_text("a b 0.5 target\\nc d 0.1 nontarget\\n", "utf-8")
    >>> trials, scores = read_scores(path)
    >>> trials.labels, scores
    ([1, 0], tensor([0.5000, 0.1000], dtype=torch.float64))
    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no score file '{path}'")
    trials, scores = Trials([], [], []), []
    with open_text(path, newline="") as file:
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
            except (TypeError, ValueError):
                value = math.nan
            if math.isnan(value):
                raise InputError(
                    f"'{path}', line {number}: score '{score}' is no number"
                )
            if math.isinf(value):
                raise InputError(
                    f"'{path}', line {number}: score '{score}' is infinite; give "
                    "a finite one, higher than all others or lower"
                )
            trials.labels.append(LABELS[label])
            trials.enrol.append(enrol)
            trials.test.append(test)
            scores.append(value)
    require_both_labels(trials, path)
    require_one_label(trials, path)
    return trials, torch.tensor(scores, dtype=torch.float64)


def write_scores(path, trials, scores):
    """Writes `enrol test label score` lines, as SpeechBrain does, atomically.

    Scores have as many digits as give the same number when read.

    Arguments
    ---------
    path : str or Path
        File to write.
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Of shape (n_trial,).

    Example
    -------
    >>> path = getfixture("tmpdir") / "scores.txt"
    >>> scores = torch.tensor([1e8 + 0.9, 3e-7], dtype=torch.float64)
    >>> write_scores(path, Trials([1, 0], ["a", "a"], ["b", "c"]), scores)
    >>> print(path.read_text("utf-8"), end="")
    a b 1 100000000.9
    a c 0 3e-07
    """
    with atomic_path(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            for enrol, test, label, score in zip(
                trials.enrol, trials.test, trials.labels, scores.tolist()
            ):
                file.write(f"{enrol} {test} {label} {score!r}\n")


def _csv_rows(file, path):
    # Short rows lack a label or a score, which is then said to be "".
    reader = csv.DictReader(file, restval="")
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
