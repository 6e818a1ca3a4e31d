"""Metrics of scores that claim to be log-likelihood ratios (natural log)."""

import math

import numpy as np
import torch
from sklearn.isotonic import IsotonicRegression

from speechbrain_ext.metrics.detection import DetectionCurve, checked_scores


def Cllr(positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> float:
    """Cost of log-likelihood ratios, in bits (Bruemmer, 2006).

    Arguments
    ---------
    positive_scores : torch.Tensor
        Log-likelihood ratios of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Log-likelihood ratios of non-target trials, of shape (n_nontarget,).

    Returns
    -------
    float
        0 for a perfect system, 1 for one that always says 0.

    Example
    -------
    >>> Cllr(torch.zeros(3), torch.zeros(5))
    1.0
    """
    positive_scores, negative_scores = checked_scores(positive_scores, negative_scores)
    target = torch.nn.functional.softplus(-positive_scores.double()).mean()
    nontarget = torch.nn.functional.softplus(negative_scores.double()).mean()
    return (target + nontarget).item() / (2 * math.log(2))


def minCllr(positive_scores: torch.Tensor, negative_scores: torch.Tensor) -> float:
    """Cllr after the best monotonic calibration of these very scores.

    The calibration is isotonic regression (pool adjacent violators).

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).

    Returns
    -------
    float
        At most 1 and at most `Cllr`.

    Example
    -------
    >>> minCllr(torch.tensor([2.0, 3.0]), torch.tensor([0.0, 1.0]))
    0.0
    """
    positive_scores, negative_scores = checked_scores(positive_scores, negative_scores)
    scores = torch.cat([positive_scores, negative_scores])
    # Only the order of the scores counts, and infinite ones have one too.
    _, ranks = torch.unique(scores, return_inverse=True)
    n_target, n_nontarget = len(positive_scores), len(negative_scores)
    labels = np.r_[np.ones(n_target), np.zeros(n_nontarget)]
    posterior = IsotonicRegression(y_min=0, y_max=1).fit_transform(
        ranks.double().numpy(), labels
    )
    with np.errstate(divide="ignore"):
        ratios = np.log(posterior) - np.log1p(-posterior)
    ratios = torch.from_numpy(ratios - math.log(n_target / n_nontarget))
    # A target in a pool without targets cannot be: such ratios are never wrong.
    target = torch.nn.functional.softplus(-ratios[:n_target]).mean()
    nontarget = torch.nn.functional.softplus(ratios[n_target:]).mean()
    return (target + nontarget).item() / (2 * math.log(2))


def actDCF(
    positive_scores: torch.Tensor,
    negative_scores: torch.Tensor,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    p_target: float = 0.01,
) -> float:
    """Normalised detection cost at the threshold that Bayes' rule gives.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Log-likelihood ratios of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Log-likelihood ratios of non-target trials, of shape (n_nontarget,).
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false alarm.
    p_target : float
        Prior probability of a target.

    Returns
    -------
    float
        1 for the better system that takes no look at the scores.

    Example
    -------
    >>> actDCF(torch.tensor([9.0]), torch.tensor([-9.0]))
    0.0
    """
    positive_scores, negative_scores = checked_scores(positive_scores, negative_scores)
    miss_cost, fa_cost = c_miss * p_target, c_fa * (1 - p_target)
    threshold = math.log(fa_cost / miss_cost)
    frr = (positive_scores <= threshold).double().mean().item()
    far = (negative_scores > threshold).double().mean().item()
    return (miss_cost * frr + fa_cost * far) / min(miss_cost, fa_cost)


def far_at_frr(
    positive_scores: torch.Tensor, negative_scores: torch.Tensor, frr: float
) -> float:
    """Lowest false acceptance rate whose false rejection rate is at most `frr`.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).
    frr : float
        False rejection rate that is allowed.

    Returns
    -------
    float
        False acceptance rate; 1 if every threshold rejects more.

    Example
    -------
    >>> positive, negative = torch.tensor([1.0, 3.0]), torch.tensor([0.0, 2.0])
    >>> far_at_frr(positive, negative, 0.0), far_at_frr(positive, negative, 0.5)
    (0.5, 0.0)
    """
    return DetectionCurve(positive_scores, negative_scores).far_at_frr(frr)
