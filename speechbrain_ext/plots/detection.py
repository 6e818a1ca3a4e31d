"""Plots of scored trials."""

import numpy as np
import torch
from sklearn.metrics import DetCurveDisplay

from speechbrain_ext.metrics.detection import EER, det_points
from speechbrain_ext.plots.figures import FORMATS, new_figure, save_figure

POINTS_PER_DEVIATION = 500
N_BINS = 20  # of posteriors
N_SCORE_BINS = 80
DET_TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4)


def plot_det(path, systems, formats=FORMATS):
    """Detection error trade-off on probit axes.

    Arguments
    ---------
    path : str or Path
        Without extension.
    systems : dict
        For each name, target and non-target scores, of shapes (n_target,)
        and (n_nontarget,).
    formats : sequence of str
        See `save_figure`.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> scores = torch.randn(200) + 2, torch.randn(200)
    >>> [p.suffix for p in plot_det(getfixture("tmpdir") / "det", {"a": scores})]
    ['.png', '.pdf']
    """
    figure, axes = new_figure(figsize=(5, 5))
    for name, (target, nontarget) in systems.items():
        far, frr, _ = det_points(target, nontarget)
        eer, _ = EER(target, nontarget)
        rates = torch.stack([far, frr], dim=1).double()
        rates = rates[((rates > 0) & (rates < 1)).all(dim=1)]
        # Points that fall on each other would make the PDF of a long trial
        # list hundreds of megabytes.
        spots = torch.round(torch.special.ndtri(rates) * POINTS_PER_DEVIATION)
        shown = torch.unique_consecutive(spots, dim=0)
        rates = torch.special.ndtr(shown / POINTS_PER_DEVIATION)
        DetCurveDisplay(
            fpr=rates[:, 0].numpy(),
            fnr=rates[:, 1].numpy(),
        ).plot(ax=axes, name=f"{name} (EER {100 * eer:.2f} %)")
    # Systems that are of use have no rate above 60 %.
    ticks = torch.special.ndtri(torch.tensor(DET_TICKS, dtype=torch.float64))
    limits = torch.special.ndtri(torch.tensor([5e-4, 0.6], dtype=torch.float64))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_ticks(ticks.tolist(), [f"{100 * t:g} %" for t in DET_TICKS])
        axis.set_view_interval(*limits.tolist(), ignore=True)
    axes.set_xlabel("false acceptance rate")
    axes.set_ylabel("false rejection rate")
    if len(systems) > 3:  # would cover the curves
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12))
    else:
        axes.legend(loc="upper right")
    axes.grid(alpha=0.3)
    return save_figure(figure, path, formats)


def plot_scores(path, target, nontarget, thresholds):
    """Histograms of target and non-target scores with thresholds.

    Arguments
    ---------
    path : str or Path
        Without extension.
    target : torch.Tensor
        Scores of the target trials, of shape (n_target,).
    nontarget : torch.Tensor
        Scores of the non-target trials, of shape (n_nontarget,).
    thresholds : dict
        Threshold of each name; None is left out.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> target, nontarget = torch.randn(200) + 2, torch.randn(200)
    >>> path = getfixture("tmpdir") / "scores"
    >>> len(plot_scores(path, target, nontarget, {"EER": 1.0}))
    2
    """
    figure, axes = new_figure(figsize=(6, 4))
    every = torch.cat([target, nontarget]).double()
    low, high = every.min().item(), every.max().item()
    bins = np.linspace(low, high, N_SCORE_BINS + 1)
    if not (np.diff(bins) > 0).all():  # scores that are alike but for rounding
        margin = max(abs(low), 1.0) / 2
        bins = np.linspace(low - margin, high + margin, N_SCORE_BINS + 1)
    for scores, name in ((nontarget, "non-target"), (target, "target")):
        axes.hist(scores.numpy(), bins=bins, density=True, alpha=0.6, label=name)
    for i, (name, threshold) in enumerate(thresholds.items()):
        if threshold is not None:
            axes.axvline(
                threshold,
                color="black",
                linestyle=("--", ":")[i % 2],
                label=f"threshold ({name})",
            )
    axes.set_xlabel("score")
    axes.set_ylabel("density")
    axes.legend()
    return save_figure(figure, path)


def plot_calibration(path, target, nontarget):
    """Reliability of log-likelihood ratios as posteriors at prior 0.5.

    Arguments
    ---------
    path : str or Path
        Without extension.
    target : torch.Tensor
        Log-likelihood ratios of target trials, of shape (n_target,).
    nontarget : torch.Tensor
        Log-likelihood ratios of non-target trials, of shape (n_nontarget,).

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> target, nontarget = torch.randn(200) + 1, torch.randn(200) - 1
    >>> path = getfixture("tmpdir") / "calibration"
    >>> len(plot_calibration(path, 2 * target, 2 * nontarget))
    2
    """
    posterior = torch.sigmoid(torch.cat([target, nontarget]).double())
    # Weights make targets and non-targets equally frequent.
    is_target = torch.arange(len(posterior)) < len(target)
    weight = torch.where(is_target, 1 / len(target), 1 / len(nontarget))
    bins = (posterior * N_BINS).long().clamp(max=N_BINS - 1)
    total = torch.zeros(N_BINS).index_add_(0, bins, weight)
    hits = torch.zeros(N_BINS).index_add_(0, bins, weight * is_target)
    mean = torch.zeros(N_BINS).index_add_(0, bins, weight * posterior.float())
    used = total > 0
    figure, axes = new_figure(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    axes.plot(mean[used] / total[used], hits[used] / total[used], "o-", label="scores")
    axes.set_xlabel("posterior of target that the score says")
    axes.set_ylabel("share of target trials (prior 0.5)")
    axes.legend()
    return save_figure(figure, path)
