"""Confidence intervals by resampling speakers."""

import numpy as np
import torch


def eer_interval(
    scores, labels, enrol_speakers, test_speakers, level=0.95, n_draws=1000, seed=0
):
    """Bootstrap interval of the EER over speakers.

    Trials of one speaker resemble each other, so that resampling trials gives
    intervals that are too narrow. Here speakers are drawn with replacement; a
    target trial counts as often as its speaker is drawn, a non-target trial
    as the product of both.

    Arguments
    ---------
    scores : torch.Tensor
        Scores, of shape (n_trial,).
    labels : list of int
        1 for target, 0 for non-target trials.
    enrol_speakers : list of str
        Speaker of each trial's enrolment side.
    test_speakers : list of str
        Speaker of each trial's test side.
    level : float
        Confidence level.
    n_draws : int
        Bootstrap draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    tuple of float
        Lower and upper limit of the EER.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> speakers = [i % 20 for i in range(2000)], [i % 19 for i in range(2000)]
    >>> labels = [int(a == b) for a, b in zip(*speakers)]
    >>> scores = torch.randn(2000) + 2 * torch.tensor(labels)
    >>> low, high = eer_interval(scores, labels, *speakers)
    >>> low < 0.16 < high
    True
    """
    rng = np.random.default_rng(seed)
    order = torch.argsort(torch.as_tensor(scores).flatten(), stable=True)
    ranked = torch.as_tensor(scores).flatten()[order].numpy()
    order = order.numpy()
    is_target = np.asarray(labels, dtype=bool)[order]
    speakers, numbers = np.unique(
        np.concatenate([enrol_speakers, test_speakers]), return_inverse=True
    )
    enrol, test = np.split(numbers, 2)
    enrol, test = enrol[order], test[order]
    # A threshold lies between different scores only.
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    eers = []
    for _ in range(n_draws):
        drawn = np.bincount(
            rng.integers(len(speakers), size=len(speakers)),
            minlength=len(speakers),
        )
        weights = drawn[enrol] * np.where(is_target, 1, drawn[test])
        missed = np.cumsum(weights * is_target)
        rejected = np.cumsum(weights * ~is_target)
        if missed[-1] == 0 or rejected[-1] == 0:
            continue
        frr = missed[last_of_tie] / missed[-1]
        far = 1 - rejected[last_of_tie] / rejected[-1]
        closest = np.argmin(np.abs(far - frr))
        eers.append((far[closest] + frr[closest]) / 2)
    if not eers:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(eers, [tail, 1 - tail])
    return float(low), float(high)
