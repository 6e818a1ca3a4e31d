"""Averages of scores over the enrolment utterances of a model."""

import torch

from speechbrain_ext.dataio.enrolments import require_enrolled
from speechbrain_ext.dataio.trials import Trials


def expand_trials(trials, enrolments):
    """One trial for each enrolment utterance, to average scores instead.

    Arguments
    ---------
    trials : Trials
        Trial list with models as enrolment ids.
    enrolments : dict
        Utterance ids of each model.

    Returns
    -------
    expanded : Trials
        Trial list with utterances as enrolment ids.
    source : torch.Tensor
        For each expanded trial the index of its trial.

    Raises
    ------
    InputError
        If models are missing.
    """
    require_enrolled(trials, enrolments)
    source, enrol = [], []
    for i, model in enumerate(trials.enrol):
        source += [i] * len(enrolments[model])
        enrol += enrolments[model]
    labels = trials.labels and [trials.labels[i] for i in source]
    expanded = Trials(labels, enrol, [trials.test[i] for i in source])
    return expanded, torch.tensor(source)


def mean_scores(scores, source):
    """Mean score of each trial, from those of `expand_trials`.

    Arguments
    ---------
    scores : torch.Tensor
        Scores of the expanded trials, of shape (n_expanded,).
    source : torch.Tensor
        Trial that each expanded trial is of, as `expand_trials` returns it.

    Returns
    -------
    torch.Tensor
        Scores, of shape (n_trial,).

    Example
    -------
    >>> mean_scores(torch.tensor([0.1, 0.3, 0.5]), torch.tensor([0, 0, 1]))
    tensor([0.2000, 0.5000])
    """
    counts = torch.bincount(source)
    sums = torch.zeros(len(counts), dtype=scores.dtype)
    return sums.index_add_(0, source, scores) / counts
