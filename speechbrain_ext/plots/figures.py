"""Figures that need no display and leave matplotlib's settings alone."""

from pathlib import Path

from matplotlib.figure import Figure

from speechbrain_ext.utils.files import atomic_path


def new_figure(*shape, figsize, layout=None, **subplots):
    """Makes a figure that is no part of pyplot's state.

    Arguments
    ---------
    *shape : int
        Numbers of rows and columns of axes; one of each if not given.
    figsize : tuple of float
        Width and height, in inches.
    layout : str
        Layout engine of matplotlib, "constrained" for instance.
    **subplots
        Further arguments of `matplotlib.figure.Figure.subplots`.

    Returns
    -------
    figure : matplotlib.figure.Figure
        The figure.
    axes : matplotlib.axes.Axes or numpy.ndarray
        Its axes.

    Example
    -------
    >>> figure, axes = new_figure(2, 1, figsize=(5, 5), sharex=True)
    >>> axes.shape
    (2,)
    """
    figure = Figure(figsize=figsize, layout=layout)
    return figure, figure.subplots(*shape, **subplots)


def save_figure(figure, path):
    """Writes a figure as PNG and PDF.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        Without extension.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> figure, _ = new_figure(figsize=(1, 1))
    >>> [p.suffix for p in save_figure(figure, getfixture("tmpdir") / "empty")]
    ['.png', '.pdf']
    """
    written = []
    for suffix in (".png", ".pdf"):
        target = Path(f"{path}{suffix}")
        with atomic_path(target) as partial:
            figure.savefig(partial, dpi=150, bbox_inches="tight")
        written.append(target)
    return written
