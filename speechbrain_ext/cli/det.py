"""speechbrain-ext det."""

from pathlib import Path

import click

from speechbrain_ext.cli.options import Command, InputFile, as_json, show
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext det ltdnn/scores.txt ecapa/scores.txt --output figures/det
speechbrain-ext det ltdnn/scores.txt --output det.svg
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("scores", nargs=-1, required=True, type=InputFile())
@click.option(
    "--output",
    required=True,
    help="Path of the figure: .png, .pdf, .svg and so on; without extension, PNG and "
    "PDF are written.",
)
@click.option(
    "--by", type=click.Choice(["file", "folder"]), default="folder",
    show_default=True, help="What a system is called after.",
)  # fmt: skip
@as_json
def command(scores, output, by, as_json):
    """Draw the DET curves of several score files SCORES in one figure."""
    from speechbrain_ext.dataio.scores import read_scores
    from speechbrain_ext.plots.detection import plot_det
    from speechbrain_ext.plots.figures import format_of

    systems = {}
    for path in scores:
        trials, values = read_scores(path)
        # Files of several systems are often all called scores.txt.
        name = Path(path).stem if by == "file" else Path(path).parent.name
        if name in systems:
            raise InputError(
                f"two systems are called '{name}'; try --by "
                + ("folder" if by == "file" else "file")
            )
        systems[name] = trials.split_by_label(values)
    extension = format_of(output)
    if extension is None:
        paths = plot_det(output, systems)
    else:
        paths = plot_det(Path(output).with_suffix(""), systems, [extension])
    for path in paths:
        show(path, {"file": str(path)}, as_json)
