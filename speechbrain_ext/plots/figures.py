"""Figures that need no display and leave matplotlib's settings alone."""

from pathlib import Path

from matplotlib.figure import Figure

from speechbrain_ext.utils.files import atomic_path

FORMATS = ("png", "pdf")  # of figures whose path has no extension


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


def format_of(path):
    """The format that the extension of a path names.

    Arguments
    ---------
    path : str or Path
        The path.

    Returns
    -------
    str or None
        One that matplotlib writes, such as "svg"; None if there is no such extension.

    Example
    -------
    >>> format_of("det.svg"), format_of("results/ltdnn.v2")
    ('svg', None)
    """
    name = Path(path).suffix.lower().removeprefix(".")
    return name if name in Figure().canvas.get_supported_filetypes() else None


def save_figure(figure, path, formats=FORMATS):
    """Writes a figure in each format.

    Arguments
    ---------
    figure : matplotlib.figure.Figure
        The figure.
    path : str or Path
        Without extension.
    formats : sequence of str
        Formats as of `format_of`.

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
    for name in formats:
        target = Path(f"{path}.{name}")
        with atomic_path(target) as partial:
            figure.savefig(partial, dpi=150, bbox_inches="tight")
        written.append(target)
    return written
