"""Plots of what a model attends to."""

import torch

from speechbrain_ext.plots.figures import new_figure, save_figure


def plot_layer_attention(path, wav, weights, sample_rate, phones=None):
    """Layer weights over time beneath the waveform of an utterance.

    Arguments
    ---------
    path : str or Path
        Without extension.
    wav : torch.Tensor
        Waveform, of shape (time,).
    weights : torch.Tensor
        Weights, of shape (head, frame, layer); heads are averaged.
    sample_rate : int
        Sample rate in Hz.
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
    figure, (top, bottom) = new_figure(
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
    return save_figure(figure, path)


def plot_layer_usage(path, usage):
    """Mean weight of each layer.

    Arguments
    ---------
    path : str or Path
        Without extension.
    usage : dict
        What `layer_usage` returned.

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
    figure, axes = new_figure(figsize=(5, 3), layout="constrained")
    axes.bar(range(len(usage["mean"])), usage["mean"])
    axes.set_xlabel("layer")
    axes.set_ylabel("weight, mean over heads and frames")
    return save_figure(figure, path)


def plot_layer_wins(path, wins):
    """How often each layer is the maximum, for each class of phones.

    Arguments
    ---------
    path : str or Path
        Without extension.
    wins : dict
        For each class a share for each layer and a number of frames, as of
        `speechbrain_ext.analysis.layer_wins.wins_by_phone_class`.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> wins = {"vowel": ([0.2, 0.8], 40), "nasal": ([0.5, 0.5], 10)}
    >>> len(plot_layer_wins(getfixture("tmpdir") / "wins", wins))
    2
    """
    figure, axes = new_figure(figsize=(6, 1.5 + 0.35 * len(wins)), layout="constrained")
    image = axes.imshow([shares for shares, _ in wins.values()], aspect="auto", vmin=0)
    axes.set_yticks(
        range(len(wins)), [f"{name} ({n} frames)" for name, (_, n) in wins.items()]
    )
    axes.set_xlabel("layer")
    figure.colorbar(image, ax=axes, label="share of channels that it wins")
    return save_figure(figure, path)


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
        Sample rate in Hz.
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
    figure, panels = new_figure(
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
    return save_figure(figure, path)


def plot_cumulative_weights(path, weights, duration):
    """How the attention adds up over an utterance, and over its frames.

    Arguments
    ---------
    path : str or Path
        Without extension.
    weights : dict
        For each model, its weights of shape (head, frame).
    duration : float
        Duration of the utterance, in seconds.

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
    figure, (left, right) = new_figure(1, 2, figsize=(9, 3), layout="constrained")
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
    return save_figure(figure, path)
