"""Confidence intervals by resampling speakers."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from speechbrain_ext.metrics.detection import DetectionCurve


def eer_interval(
    scores: torch.Tensor,
    labels: Sequence[int],
    enrol_speakers: Sequence[str],
    test_speakers: Sequence[str],
    level: float = 0.95,
    n_draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
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
    eers = []
    for frr, far in _resampled_rates(
        scores, labels, enrol_speakers, test_speakers, n_draws, seed
    ):
        closest = np.argmin(np.abs(far - frr))
        eers.append((far[closest] + frr[closest]) / 2)
    return _interval(eers, level)


def threshold_interval(
    scores: torch.Tensor,
    labels: Sequence[int],
    enrol_speakers: Sequence[str],
    test_speakers: Sequence[str],
    choose: Callable[[DetectionCurve], float],
    level: float = 0.95,
    n_draws: int = 200,
    seed: int = 0,
) -> tuple[float, float]:
    """Bootstrap interval of a threshold over speakers, as of `eer_interval`.

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
    choose : callable
        Function from a `DetectionCurve` to the threshold.
    level : float
        Confidence level.
    n_draws : int
        Bootstrap draws.
    seed : int
        Seed of the draws.

    Returns
    -------
    tuple of float
        Lower and upper limit of the threshold.

    Example
    -------
    >>> _ = torch.manual_seed(0)
    >>> speakers = [i % 20 for i in range(2000)], [i % 19 for i in range(2000)]
    >>> labels = [int(a == b) for a, b in zip(*speakers)]
    >>> scores = torch.randn(2000) + 2 * torch.tensor(labels)
    >>> low, high = threshold_interval(
    ...     scores, labels, *speakers, lambda curve: curve.eer()[1]
    ... )
    >>> low < 1 < high
    True
    """
    scores = torch.as_tensor(scores).detach().cpu().flatten()
    is_target = torch.as_tensor(labels, dtype=torch.bool)
    thresholds = []
    for weights in _draws(is_target, enrol_speakers, test_speakers, n_draws, seed):
        drawn = scores.repeat_interleave(weights)
        labels_drawn = is_target.repeat_interleave(weights)
        if labels_drawn.all() or not labels_drawn.any():
            continue
        curve = DetectionCurve(drawn[labels_drawn], drawn[~labels_drawn])
        thresholds.append(choose(curve))
    return _interval(thresholds, level)


def _draws(
    is_target: torch.Tensor | Sequence[int],
    enrol_speakers: Sequence[str],
    test_speakers: Sequence[str],
    n_draws: int,
    seed: int,
) -> Iterator[torch.Tensor]:
    """How often each trial counts, in each draw of speakers."""
    rng = np.random.default_rng(seed)
    targets = np.asarray(is_target, dtype=bool)
    speakers, numbers = np.unique(
        np.concatenate([enrol_speakers, test_speakers]), return_inverse=True
    )
    enrol, test = np.split(numbers, 2)
    for _ in range(n_draws):
        drawn = np.bincount(
            rng.integers(len(speakers), size=len(speakers)),
            minlength=len(speakers),
        )
        yield torch.from_numpy(drawn[enrol] * np.where(targets, 1, drawn[test]))


def _resampled_rates(
    scores: torch.Tensor,
    labels: Sequence[int],
    enrol_speakers: Sequence[str],
    test_speakers: Sequence[str],
    n_draws: int,
    seed: int,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """False rejection and false acceptance rates at every score, in each draw."""
    scores = torch.as_tensor(scores).detach().cpu().flatten()
    order = torch.argsort(scores, stable=True).numpy()
    ranked = scores.numpy()[order]
    is_target = np.asarray(labels, dtype=bool)[order]
    # A threshold lies between different scores only.
    last_of_tie = np.append(ranked[1:] != ranked[:-1], True)
    for weights in _draws(labels, enrol_speakers, test_speakers, n_draws, seed):
        counts = weights.numpy()[order]
        missed = np.cumsum(counts * is_target)
        rejected = np.cumsum(counts * ~is_target)
        if missed[-1] == 0 or rejected[-1] == 0:
            continue
        frr = missed[last_of_tie] / missed[-1]
        yield frr, 1 - rejected[last_of_tie] / rejected[-1]


def _interval(values: list[float], level: float) -> tuple[float, float]:
    if not values:
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return float(low), float(high)
