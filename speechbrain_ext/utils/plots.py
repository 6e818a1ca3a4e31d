"""Plots, each written as PNG and PDF."""

from pathlib import Path

import matplotlib
import torch
from sklearn.metrics import DetCurveDisplay

from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.metrics import EER, det_points

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

POINTS_PER_DEVIATION = 500
N_BINS = 20
DET_TICKS = (0.001, 0.005, 0.02, 0.05, 0.1, 0.2, 0.4)


def plot_det(path, systems):
    """Detection error trade-off on probit axes.

    Arguments
    ---------
    path : str or Path
        Without extension.
    systems : dict
        For each name, target and non-target scores, of shapes (n_target,)
        and (n_nontarget,).

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
    figure, axes = pyplot.subplots(figsize=(5, 5))
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
    return _save(figure, path)


def plot_scores(path, target, nontarget, thresholds):
    """Histograms of target and non-target scores with thresholds.

    Arguments
    ---------
    path : str or Path
        Without extension.
    target : torch.Tensor
        Of shape (n_target,).
    nontarget : torch.Tensor
        Of shape (n_nontarget,).
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
    figure, axes = pyplot.subplots(figsize=(6, 4))
    every = torch.cat([target, nontarget])
    bins = torch.linspace(every.min(), every.max(), 80).numpy()
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
    return _save(figure, path)


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
    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", label="calibrated")
    axes.plot(mean[used] / total[used], hits[used] / total[used], "o-", label="scores")
    axes.set_xlabel("posterior of target that the score says")
    axes.set_ylabel("share of target trials (prior 0.5)")
    axes.legend()
    return _save(figure, path)


def plot_layer_attention(path, wav, weights, sample_rate, phones=None):
    """Layer weights over time beneath the waveform of an utterance.

    Arguments
    ---------
    path : str or Path
        Without extension.
    wav : torch.Tensor
        Waveform, of shape (time,).
    weights : torch.Tensor
        Of shape (head, frame, layer); heads are averaged.
    sample_rate : int
        In Hz.
    phones : tuple
        Starts (seconds) and names of phones, written over the waveform.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> wav, weights = torch.randn(16000), torch.rand(8, 49, 13)
    >>> path = getfixture("tmpdir") / "layers"
    >>> len(plot_layer_attention(path, wav, weights, 16000))
    2
    """
    figure, (top, bottom) = pyplot.subplots(
        2, 1, figsize=(8, 4), sharex=True, height_ratios=(1, 2),
        layout="constrained",
    )  # fmt: skip
    duration = len(wav) / sample_rate
    top.plot(torch.arange(len(wav)) / sample_rate, wav, linewidth=0.3)
    top.set_ylabel("amplitude")
    if phones is not None:
        for start, name in zip(*phones):
            top.axvline(start, color="grey", linewidth=0.3)
            top.annotate(
                name, (start, 1.0), xycoords=("data", "axes fraction"),
                fontsize=6, va="bottom",
            )  # fmt: skip
    n_layers = weights.shape[2]
    image = bottom.imshow(
        weights.mean(dim=0).T,
        origin="lower",
        aspect="auto",
        extent=(0, duration, -0.5, n_layers - 0.5),
        interpolation="nearest",
    )
    bottom.set_xlabel("time (s)")
    bottom.set_ylabel("layer")
    bottom.set_yticks(range(0, n_layers, max(1, n_layers // 8)))
    figure.colorbar(image, ax=bottom, label="weight, mean over heads")
    return _save(figure, path)


def plot_layer_usage(path, usage):
    """Mean weight of each layer.

    Arguments
    ---------
    path : str or Path
        Without extension.
    usage : dict
        As of `layer_usage`.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> usage = {"mean": [0.2, 0.7, 0.4]}
    >>> len(plot_layer_usage(getfixture("tmpdir") / "usage", usage))
    2
    """
    figure, axes = pyplot.subplots(figsize=(5, 3), layout="constrained")
    axes.bar(range(len(usage["mean"])), usage["mean"])
    axes.set_xlabel("layer")
    axes.set_ylabel("weight, mean over heads and frames")
    return _save(figure, path)


def plot_frame_weights(path, wav, weights, sample_rate, n_heads=8):
    """Weights of the first heads over time, beneath the waveform.

    Arguments
    ---------
    path : str or Path
        Without extension.
    wav : torch.Tensor
        Waveform, of shape (time,).
    weights : dict
        For each model, its weights of shape (head, frame).
    sample_rate : int
        In Hz.
    n_heads : int
        Heads to show of each model.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> weights = {"vanilla": torch.rand(1, 12), "MHA": torch.rand(32, 12)}
    >>> path = getfixture("tmpdir") / "heads"
    >>> len(plot_frame_weights(path, torch.randn(16000), weights, 16000))
    2
    """
    figure, panels = pyplot.subplots(
        1 + len(weights), 1, figsize=(8, 2 + 2 * len(weights)), sharex=True,
        layout="constrained",
    )  # fmt: skip
    duration = len(wav) / sample_rate
    panels[0].plot(torch.arange(len(wav)) / sample_rate, wav, linewidth=0.3)
    panels[0].set_ylabel("amplitude")
    for axes, (name, of_model) in zip(panels[1:], weights.items()):
        n_frames = of_model.shape[1]
        centres = (torch.arange(n_frames) + 0.5) * duration / n_frames
        for head, of_head in enumerate(of_model[:n_heads], start=1):
            axes.plot(centres, of_head, label=f"head {head}", linewidth=0.8)
        axes.set_ylabel(f"weight, {name}")
        axes.set_ylim(bottom=0)
        if len(of_model) > 1:
            axes.legend(fontsize=6, ncols=4)
    panels[-1].set_xlabel("time (s)")
    return _save(figure, path)


def plot_cumulative_weights(path, weights, duration):
    """How the attention adds up over an utterance, and over its frames.

    Arguments
    ---------
    path : str or Path
        Without extension.
    weights : dict
        For each model, its weights of shape (head, frame).
    duration : float
        Of the utterance, in seconds.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> weights = {"vanilla": torch.rand(1, 12), "MHA": torch.rand(32, 12)}
    >>> len(plot_cumulative_weights(getfixture("tmpdir") / "sums", weights, 1.0))
    2
    """
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3), layout="constrained")
    for name, of_model in weights.items():
        mean = of_model.mean(dim=0)
        mean = mean / mean.sum()
        n_frames = len(mean)
        centres = (torch.arange(n_frames) + 0.5) * duration / n_frames
        left.plot(centres, n_frames * mean, label=name)
        share = mean.sort(descending=True).values.cumsum(0)
        right.plot(torch.arange(1, n_frames + 1) / n_frames, share, label=name)
    left.set_xlabel("time (s)")
    left.set_ylabel("weight, all heads (mean 1)")
    right.set_xlabel("share of frames, heaviest first")
    right.set_ylabel("share of the weight")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.legend()
    return _save(figure, path)


def plot_similarities(similarities, path):
    """Matrix of similarities between 0 and 1.

    Arguments
    ---------
    similarities : dict
        For each name, the similarity to each name.
    path : str or Path
        Without extension.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> similarities = {"a": {"a": 1.0, "b": 0.3}, "b": {"a": 0.3, "b": 1.0}}
    >>> len(plot_similarities(similarities, getfixture("tmpdir") / "cka"))
    2
    """
    names = list(similarities)
    values = torch.tensor([[similarities[a][b] for b in names] for a in names])
    figure, axes = pyplot.subplots(figsize=(5, 4), layout="constrained")
    image = axes.imshow(values, vmin=0, vmax=1)
    for row, column in torch.cartesian_prod(*2 * [torch.arange(len(names))]):
        value = values[row, column]
        axes.text(
            column, row, f"{value:.2f}", ha="center", va="center",
            color="white" if value < 0.6 else "black",
        )  # fmt: skip
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    figure.colorbar(image, ax=axes, label="linear CKA")
    return _save(figure, path)


def plot_losses(history, path):
    """Losses and accuracy of a pre-training by optimiser step.

    Arguments
    ---------
    history : list of dict
        Rows of losses.csv, as of `PretrainingBrain`.
    path : str or Path
        Without extension.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> row = {
    ...     "step": "250", "train_loss": "4.5", "valid_prediction": "4.1",
    ...     "valid_contrast": "2.0", "valid_masked_accuracy": "0.1",
    ... }
    >>> len(plot_losses([row], getfixture("tmpdir") / "losses"))
    2
    """
    steps = [int(row["step"]) for row in history]
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(8, 3), layout="constrained")
    for axes, column, label in (
        (left, "train_loss", "training, sum"),
        (left, "valid_prediction", "validation, prediction"),
        (left, "valid_contrast", "validation, contrast"),
        (right, "valid_masked_accuracy", "validation"),
    ):
        axes.plot(steps, [float(row[column]) for row in history], label=label)
    left.set_ylabel("loss (nat)")
    right.set_ylabel("masked frames predicted")
    for axes in (left, right):
        axes.set_xlabel("optimiser step")
        axes.set_ylim(bottom=0)
        axes.legend()
    return _save(figure, path)


def plot_probes(accuracies, path):
    """Accuracy of linear probes by layer, one panel for each kind.

    Arguments
    ---------
    accuracies : dict
        For each encoder, for each kind of label, the accuracies by layer.
    path : str or Path
        Without extension.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> accuracies = {"wavlm": {"speaker": [0.5, 0.7], "phone": [0.4, 0.6]}}
    >>> len(plot_probes(accuracies, getfixture("tmpdir") / "probes"))
    2
    """
    kinds = list(next(iter(accuracies.values())))
    figure, panels = pyplot.subplots(
        1, len(kinds), figsize=(4 * len(kinds), 3), layout="constrained"
    )
    for kind, axes in zip(kinds, panels):
        for encoder, of_encoder in accuracies.items():
            layers = range(len(of_encoder[kind]))
            axes.plot(layers, of_encoder[kind], "o-", label=Path(encoder).name)
        axes.set_xlabel("layer")
        axes.set_ylabel(f"{kind} accuracy")
        axes.set_ylim(bottom=0)
        axes.legend()
    return _save(figure, path)


def plot_costs(path, costs):
    """Parameters and latency of systems (after figure 4 of arXiv 2409.07770).

    Arguments
    ---------
    path : str or Path
        Without extension.
    costs : dict
        For each name, the parameters of the back end and the latency, as of
        `speechbrain_ext.tools.results_table.measure_latency`.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> latency = {"encoder": {"2": 9.0, "4": 20.0}, "back_end": {"2": 1.0, "4": 1.5}}
    >>> costs = {"L-TDNN": (5_717_272, latency)}
    >>> [p.suffix for p in plot_costs(getfixture("tmpdir") / "costs", costs)]
    ['.png', '.pdf']
    """
    figure, (left, middle, right) = pyplot.subplots(
        1, 3, figsize=(15, 2 + 0.3 * max(8, len(costs)))
    )
    for number, (name, (parameters, latency)) in enumerate(costs.items()):
        style = {"color": f"C{number % 10}"}
        left.barh(name, parameters / 1e6, **style)
        style.update(marker="os^"[number // 10 % 3], markersize=4)
        seconds = list(map(float, latency["encoder"]))
        back_end = list(latency["back_end"].values())
        both = [a + b for a, b in zip(latency["encoder"].values(), back_end)]
        middle.plot(seconds, back_end, **style)
        right.plot(seconds, both, **style)
    left.invert_yaxis()
    left.set_xlabel("parameters of the back end, millions")
    for axes, part in ((middle, "the back end"), (right, "encoder and back end")):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(seconds, [f"{s:g}" for s in seconds])
        axes.set_xlabel("duration of the utterance, seconds")
        axes.set_ylabel(f"latency of {part}, ms")
        axes.grid(alpha=0.3)
    figure.tight_layout()
    return _save(figure, path)


def _save(figure, path):
    written = []
    for suffix in (".png", ".pdf"):
        target = Path(f"{path}{suffix}")
        with atomic_path(target) as partial:
            figure.savefig(partial, dpi=150, bbox_inches="tight")
        written.append(target)
    pyplot.close(figure)
    return written
