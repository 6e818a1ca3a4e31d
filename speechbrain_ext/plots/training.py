"""Plots of trainings and their costs."""

import numpy as np

from speechbrain_ext.plots.figures import new_figure, save_figure


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
    figure, (left, right) = new_figure(1, 2, figsize=(8, 3), layout="constrained")
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
    return save_figure(figure, path)


def plot_costs(path, costs):
    """Parameters and latency of systems (after figure 4 of arXiv 2409.07770).

    Arguments
    ---------
    path : str or Path
        Without extension.
    costs : dict
        For each name, the parameters of the back end and the latency, as of
        `speechbrain_ext.training.results_table.measure_latency`.

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
    figure, (left, middle, right) = new_figure(
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
    return save_figure(figure, path)


def plot_learning_curves(curves, path):
    """Error rates of systems by what their trainings cost.

    Points are means over the seeds, bars their ranges.

    Arguments
    ---------
    curves : dict
        For each trial list and each system, points: minutes of training and the EERs
        of its seeds, between 0 and 1.
    path : str or Path
        Without extension.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> curves = {"within": {"L-TDNN": [(1.0, [0.2, 0.25]), (4.0, [0.1])]}}
    >>> len(plot_learning_curves(curves, getfixture("tmpdir") / "curves"))
    2
    """
    figure, all_axes = new_figure(
        1, len(curves), figsize=(4 * len(curves), 4), layout="constrained"
    )
    for axes, (trials, systems) in zip(np.atleast_1d(all_axes), curves.items()):
        for number, (system, points) in enumerate(systems.items()):
            minutes = [at for at, _ in sorted(points)]
            eers = [[100 * eer for eer in of_seeds] for _, of_seeds in sorted(points)]
            means = np.array(list(map(np.mean, eers)))
            low, high = list(map(min, eers)), list(map(max, eers))
            axes.errorbar(
                minutes,
                means,
                yerr=[means - low, high - means],
                fmt="os^D"[number % 4] + "-",
                capsize=4,
                label=system,
                color=f"C{number}",
            )
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_ylim(bottom=0)
        axes.set_title(trials)
        axes.set_xlabel("processor minutes of training")
        axes.set_ylabel("EER, %")
        axes.grid(which="both", alpha=0.3)
        labelled = axes.get_legend_handles_labels()
    figure.legend(*labelled, loc="outside upper center", ncols=2)
    return save_figure(figure, path)
