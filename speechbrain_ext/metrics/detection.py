"""Verification metrics in O(n log n) time and O(n) memory.

`EER` and `minDCF` have the signatures, threshold convention and numbers of
`speechbrain.utils.metric_stats`, whose loops and (threshold x trial) matrices
do not reach the size of VoxCeleb1-E. A score above the threshold is accepted:
FRR is the share of target scores <= threshold, FAR the share of non-target
scores > threshold.
"""

from collections.abc import Sequence

import numpy as np
import torch

from speechbrain_ext.utils.errors import InputError


class DetectionCurve:
    """Error rates at every threshold, from one sort of the scores.

    All metrics of a trial list are read off one curve.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> curve = DetectionCurve(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))
    >>> curve.thresholds
    tensor([1.0000, 1.5000, 2.0000, 2.5000, 3.0000])
    >>> curve.far
    tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])
    >>> curve.frr
    tensor([0.0000, 0.0000, 0.5000, 0.5000, 1.0000])
    >>> curve.eer()
    (0.25, 1.0)
    """

    def __init__(
        self, positive_scores: torch.Tensor, negative_scores: torch.Tensor
    ) -> None:
        positive, negative = (
            np.sort(scores.numpy())
            for scores in checked_scores(positive_scores, negative_scores)
        )
        # The stable sort merges two sorted runs, which is no sort any more.
        scores = np.concatenate([positive, negative])
        order = np.argsort(scores, kind="stable")
        scores = scores[order]
        last_of_tie = np.append(scores[1:] != scores[:-1], True)
        scores = scores[last_of_tie]
        rejected_targets = np.cumsum(order < len(positive))[last_of_tie]
        rejected = np.flatnonzero(last_of_tie) + 1
        rejected_nontargets = rejected - rejected_targets
        with np.errstate(over="ignore", invalid="ignore"):
            midpoints = (scores[:-1] + scores[1:]) / 2
        # Where neighbours are so near that the midpoint is the upper one, or
        # one of them is infinite, the upper one stands for it.
        of_upper = ~(midpoints < scores[1:])
        midpoints[of_upper] = scores[1:][of_upper]
        at = np.arange(len(midpoints)) + of_upper

        def interleaved(
            at_scores: np.ndarray, at_midpoints: np.ndarray
        ) -> torch.Tensor:
            both = np.empty(2 * len(at_scores) - 1, dtype=at_scores.dtype)
            both[::2], both[1::2] = at_scores, at_midpoints
            return torch.from_numpy(both)

        self.thresholds = interleaved(scores, midpoints)
        missed = interleaved(rejected_targets, rejected_targets[at])
        refused = interleaved(rejected_nontargets, rejected_nontargets[at])
        self.frr = missed.float() / len(positive)
        self.far = (len(negative) - refused).float() / len(negative)

    def eer(self) -> tuple[float, float]:
        """Equal error rate and its threshold, as of `EER`."""
        index = _closest_point(self.far, self.frr)
        eer = (self.far[index].item() + self.frr[index].item()) / 2
        return eer, self.thresholds[index].item()

    def min_dcf(
        self, c_miss: float = 1.0, c_fa: float = 1.0, p_target: float = 0.01
    ) -> tuple[float, float]:
        """Minimum cost and its threshold, as of `minDCF`."""
        cost = c_miss * self.frr * p_target + c_fa * self.far * (1 - p_target)
        min_cost, index = torch.min(cost, dim=0)
        return min_cost.item(), self.thresholds[index].item()

    def normalized_min_dcf(
        self, c_miss: float = 1.0, c_fa: float = 1.0, p_target: float = 0.01
    ) -> float:
        """Normalised minimum cost, as of `normalized_minDCF`."""
        miss_cost, fa_cost = c_miss * p_target, c_fa * (1 - p_target)
        cost = miss_cost * self.frr.double() + fa_cost * self.far.double()
        return min(cost.min().item() / min(miss_cost, fa_cost), 1.0)

    def far_at_frr(self, frr: float) -> float:
        """False acceptance rate, as of `far_at_frr`."""
        allowed = self.far[self.frr <= frr]
        return allowed.min().item() if len(allowed) else 1.0

    def threshold_at_far(self, far: float) -> float:
        """Lowest threshold whose false acceptance rate is no higher."""
        return self.thresholds[self.far <= far][0].item()


def EER(
    positive_scores: torch.Tensor, negative_scores: torch.Tensor
) -> tuple[float, float]:
    """Equal error rate and its threshold.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).

    Returns
    -------
    EER : float
        (FAR + FRR) / 2 where FAR and FRR are closest, between 0 and 1.
    threshold : float
        The threshold of that point.

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.5])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> eer, threshold = EER(positive_scores, negative_scores)
    >>> eer
    0.0
    """
    return DetectionCurve(positive_scores, negative_scores).eer()


def _closest_point(far: torch.Tensor, frr: torch.Tensor) -> int:
    """Index at which SpeechBrain's loop over the thresholds ends.

    The loop compares a float32 difference with a float64 one, so that on
    ties its choice depends on rounding: it is repeated on the near ties.
    """
    rounded = (far - frr).abs()
    near_ties = torch.nonzero(rounded <= rounded.min() + 1e-6).flatten()
    exact = (far[near_ties].double() - frr[near_ties].double()).abs().tolist()
    near = rounded[near_ties].tolist()
    closest = 0
    for index in range(1, len(near_ties)):
        if near[index] < exact[closest]:
            closest = index
    return int(near_ties[closest])


def minDCF(
    positive_scores: torch.Tensor,
    negative_scores: torch.Tensor,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    p_target: float = 0.01,
) -> tuple[float, float]:
    """Minimum of the detection cost, not normalised, as SpeechBrain's.

    C_det = c_miss * FRR * p_target + c_fa * FAR * (1 - p_target)

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false alarm.
    p_target : float
        Prior probability of a target.

    Returns
    -------
    minDCF : float
        The minimum cost.
    threshold : float
        The threshold that gives it.

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.5])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> min_dcf, threshold = minDCF(positive_scores, negative_scores)
    >>> min_dcf
    0.0
    """
    curve = DetectionCurve(positive_scores, negative_scores)
    return curve.min_dcf(c_miss, c_fa, p_target)


def normalized_minDCF(
    positive_scores: torch.Tensor,
    negative_scores: torch.Tensor,
    c_miss: float = 1.0,
    c_fa: float = 1.0,
    p_target: float = 0.01,
) -> float:
    """minDCF divided by the cost of the better trivial system, as NIST's.

    Papers report this one. A system that accepts all trials is considered
    too, which SpeechBrain's thresholds leave out, so 1 is never exceeded.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).
    c_miss : float
        Cost of a missed target.
    c_fa : float
        Cost of a false alarm.
    p_target : float
        Prior probability of a target.

    Returns
    -------
    float
        The normalised minimum cost, between 0 and 1.

    Example
    -------
    >>> scores = torch.tensor([0.5, 0.5])
    >>> normalized_minDCF(scores, scores)
    1.0
    """
    curve = DetectionCurve(positive_scores, negative_scores)
    return curve.normalized_min_dcf(c_miss, c_fa, p_target)


def EER_star(
    positive_scores: torch.Tensor, negative_scores: torch.Tensor, threshold: float
) -> float:
    """(FAR + FRR) / 2 at a threshold set on other trials.

    Equation 5 of arXiv 2409.07770, where the threshold is that of the EER of
    the validation trials.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).
    threshold : float
        The threshold of the validation trials.

    Returns
    -------
    float
        EER*, between 0 and 1.

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> positive_scores = torch.tensor([0.6, 0.7, 0.8, 0.5])
    >>> negative_scores = torch.tensor([0.4, 0.3, 0.2, 0.1])
    >>> EER_star(positive_scores, negative_scores, threshold=0.55)
    0.125
    """
    positive_scores, negative_scores = checked_scores(positive_scores, negative_scores)
    frr = (positive_scores <= threshold).double().mean().item()
    far = (negative_scores > threshold).double().mean().item()
    return (far + frr) / 2


def det_points(
    positive_scores: torch.Tensor, negative_scores: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """False acceptance and false rejection rates at every threshold.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials, of shape (n_target,).
    negative_scores : torch.Tensor
        Scores of non-target trials, of shape (n_nontarget,).

    Returns
    -------
    far : torch.Tensor
        False acceptance rates, falling, of shape (n_threshold,).
    frr : torch.Tensor
        False rejection rates, rising, of shape (n_threshold,).
    thresholds : torch.Tensor
        The distinct scores and the midpoints between them, rising, of shape
        (n_threshold,).

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> far, frr, thresholds = det_points(
    ...     torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0])
    ... )
    >>> thresholds
    tensor([1.0000, 1.5000, 2.0000, 2.5000, 3.0000])
    >>> far
    tensor([0.5000, 0.5000, 0.0000, 0.0000, 0.0000])
    >>> frr
    tensor([0.0000, 0.0000, 0.5000, 0.5000, 1.0000])
    """
    curve = DetectionCurve(positive_scores, negative_scores)
    return curve.far, curve.frr, curve.thresholds


def checked_scores(
    positive_scores: torch.Tensor | Sequence, negative_scores: torch.Tensor | Sequence
) -> list[torch.Tensor]:
    """Flattens scores and refuses what no metric can use.

    Arguments
    ---------
    positive_scores : torch.Tensor
        Scores of target trials.
    negative_scores : torch.Tensor
        Scores of non-target trials.

    Returns
    -------
    list of torch.Tensor
        Both, one-dimensional.

    Raises
    ------
    InputError
        If there are no target or no non-target scores, or NaN among them.

    Example
    -------
    >>> checked_scores([0.5], [[0.1, 0.2]])
    [tensor([0.5000]), tensor([0.1000, 0.2000])]
    """
    checked = []
    for name, scores in (
        ("target", positive_scores),
        ("non-target", negative_scores),
    ):
        scores = torch.as_tensor(scores).detach().cpu().flatten()
        if len(scores) == 0:
            raise InputError(f"no {name} scores")
        if torch.isnan(scores).any():
            n_nan = int(torch.isnan(scores).sum())
            raise InputError(f"{n_nan} of {len(scores)} {name} scores are NaN")
        checked.append(scores)
    return checked
