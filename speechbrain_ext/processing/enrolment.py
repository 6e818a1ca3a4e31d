"""Enrolment of a speaker from several utterances."""

from pathlib import Path

import torch

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.scoring import require_enrolled
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import open_text


def read_enrolments(path):
    """Reads `model utterance utterance ...` lines, as Kaldi's spk2utt.

    Arguments
    ---------
    path : str or Path
        File with a model a line.

    Returns
    -------
    dict
        Utterance ids of each model.

    Raises
    ------
    InputError
        If the file is missing, or a model has no utterance, comes twice, or
        has an utterance twice.

    Example
    -------
    >>> path = getfixture("tmpdir") / "enrol.txt"
    >>> path.write_text("anna a/1.wav a/2.wav\\n", "utf-8")
    >>> read_enrolments(path)
    {'anna': ['a/1.wav', 'a/2.wav']}
    """
    if not Path(path).is_file():
        raise InputError(f"there is no enrolment file '{path}'")
    enrolments = {}
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            model, *utterances = line.split() or [None]
            if model is None:
                continue
            if not utterances or model in enrolments:
                raise InputError(
                    f"'{path}', line {number}: model '{model}' "
                    + ("comes twice" if utterances else "has no utterance")
                )
            if len(set(utterances)) < len(utterances):
                raise InputError(
                    f"'{path}', line {number}: model '{model}' has an utterance "
                    "twice; name each once"
                )
            enrolments[model] = utterances
    if not enrolments:
        raise InputError(
            f"'{path}' has no enrolments; a line is 'model utterance utterance ...'"
        )
    return enrolments


def expand_trials(trials, enrolments):
    """One trial for each enrolment utterance, to average scores instead.

    Arguments
    ---------
    trials : Trials
        With models as enrolment ids.
    enrolments : dict
        Utterance ids of each model.

    Returns
    -------
    expanded : Trials
        With utterances as enrolment ids.
    source : torch.Tensor
        For each expanded trial the index of its trial.

    Raises
    ------
    InputError
        If models are missing.
    """
    require_enrolled(trials, enrolments)
    expanded, source = Trials([], [], []), []
    for i, (label, model, test) in enumerate(
        zip(trials.labels, trials.enrol, trials.test)
    ):
        for utterance in enrolments[model]:
            expanded.labels.append(label)
            expanded.enrol.append(utterance)
            expanded.test.append(test)
            source.append(i)
    return expanded, torch.tensor(source)


def mean_scores(scores, source):
    """Mean score of each trial, from those of `expand_trials`.

    Arguments
    ---------
    scores : torch.Tensor
        Of the expanded trials, of shape (n_expanded,).
    source : torch.Tensor
        Of `expand_trials`.

    Returns
    -------
    torch.Tensor
        Of shape (n_trial,).

    Example
    -------
    >>> mean_scores(torch.tensor([0.1, 0.3, 0.5]), torch.tensor([0, 0, 1]))
    tensor([0.2000, 0.5000])
    """
    counts = torch.bincount(source)
    sums = torch.zeros(len(counts), dtype=scores.dtype)
    return sums.index_add_(0, source, scores) / counts
