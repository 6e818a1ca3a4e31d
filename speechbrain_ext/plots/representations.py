"""Plots of what embeddings and layers have in common and know."""

from pathlib import Path

import torch

from speechbrain_ext.plots.figures import new_figure, save_figure


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
    figure, axes = new_figure(figsize=(5, 4), layout="constrained")
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
    return save_figure(figure, path)


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
    figure, panels = new_figure(
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
    return save_figure(figure, path)
