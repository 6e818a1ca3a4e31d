"""Score files: writing them, and reading also Kaldi's, WeSpeaker's and CSV."""

import math
from pathlib import Path

import torch

from speechbrain_ext.dataio.trials import (
    LABELS,
    WORDS,
    Trials,
    require_both_labels,
    require_one_label,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import (
    read_csv,
    read_fields,
    write_csv,
    write_fields,
)

COLUMNS = ("enrol", "test", "label", "score")
KIND = "score file"


def read_scores(path, need_labels=True):
    """Reads a score file.

    Lines are `enrol test label score` with label 1 or 0, as SpeechBrain and this
    project write; `enrol test score target|nontarget`, as WeSpeaker does, with or
    without the four further numbers of its score normalisation; or, of trials
    without labels, `enrol test score`, as Kaldi does. A file called .csv has a
    header with the columns enrol, test, label and score. Fields are those of
    `speechbrain_ext.utils.fields`.

    Arguments
    ---------
    path : str or Path
        Score file.
    need_labels : bool
        Whether the trials must have labels, as error rates need them.

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
    trials, scores = Trials([], [], []), []
    rows = _csv_rows(path) if _is_csv(path) else _text_rows(path)
    for number, (enrol, test, label, score) in rows:
        if label is None and need_labels:
            raise InputError(
                f"'{path}', line {number}: no label; error rates need one of each trial"
            )
        if label is not None and label not in LABELS:
            raise InputError(
                f"'{path}', line {number}: label '{label}'; use 1 or "
                "target, 0 or nontarget"
            )
        trials.labels.append(LABELS.get(label))
        trials.enrol.append(enrol)
        trials.test.append(test)
        scores.append(_finite(score, path, number))
    if not need_labels and None in trials.labels:
        if set(trials.labels) != {None}:
            raise InputError(f"'{path}' has labels in some lines only")
        trials.labels = None
    else:
        require_both_labels(trials, path)
        require_one_label(trials, path)
    return trials, torch.tensor(scores, dtype=torch.float64)


def write_scores(path, trials, scores):
    """Writes `enrol test label score` lines, as SpeechBrain does, atomically.

    Scores have as many digits as give the same number when read. Trials without
    labels have no such field. A file called .csv has a header.

    Arguments
    ---------
    path : str or Path
        File to write.
    trials : Trials
        Trial list.
    scores : torch.Tensor
        Scores, of shape (n_trial,).

    Example
    -------
    >>> path = getfixture("tmpdir") / "scores.txt"
    >>> scores = torch.tensor([1e8 + 0.9, 3e-7], dtype=torch.float64)
    >>> write_scores(path, Trials([1, 0], ["a", "a"], ["b", "c"]), scores)
    >>> print(path.read_text("utf-8"), end="")
    a b 1 100000000.9
    a c 0 3e-07
    """
    numbers = [repr(score) for score in scores.tolist()]
    if _is_csv(path):
        labels = [""] * len(trials) if trials.labels is None else trials.labels
        rows = zip(trials.enrol, trials.test, labels, numbers)
        write_csv(path, COLUMNS, rows)
    elif trials.labels is None:
        write_fields(path, zip(trials.enrol, trials.test, numbers))
    else:
        write_fields(path, zip(trials.enrol, trials.test, trials.labels, numbers))


def _is_csv(path):
    return Path(path).suffix.lower() == ".csv"


def _finite(score, path, number):
    try:
        value = float(score)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value):
        raise InputError(f"'{path}', line {number}: score '{score}' is no number")
    if math.isinf(value):
        raise InputError(
            f"'{path}', line {number}: score '{score}' is infinite; give "
            "a finite one, higher than all others or lower"
        )
    return value


def _csv_rows(path):
    for number, (enrol, test, label, score) in read_csv(path, KIND, COLUMNS):
        yield number, (enrol, test, label or None, score)


def _text_rows(path):
    for number, (enrol, test, third, *rest) in read_fields(path, KIND, (3, 4, 8)):
        if not rest:
            label, score = None, third
        elif len(rest) > 1 or rest[0] in WORDS:
            label, score = rest[0], third
        else:
            label, score = third, rest[0]
        yield number, (enrol, test, label, score)
