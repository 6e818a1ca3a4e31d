"""speechbrain-ext demo."""

import signal
from pathlib import Path

import click

from speechbrain_ext.cli.models import load
from speechbrain_ext.cli.options import SECONDS, Command, Number, loading_options
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext demo
speechbrain-ext demo user/model --gallery speakers --max_duration 30
"""
TRAINED_DEMO = "results/demo/1986"  # where the README's first command trains


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("source", required=False)
@loading_options
@click.option(
    "--gallery",
    help="Folder of enrolled speakers; default: those of a visit are deleted after it.",
)
@click.option(
    "--port", type=click.IntRange(1, 65535), help="Default: a free one from 7860."
)
@click.option(
    "--max_size", type=Number(0, with_ends=False), default=20.0, show_default=True,
    help="Megabytes that an uploaded file may have.",
)  # fmt: skip
@click.option(
    "--max_duration", type=SECONDS, default=60.0, show_default=True,
    help="Seconds that a recording may have.",
)  # fmt: skip
def command(
    source, device, revision, trust_source, gallery, port, max_size, max_duration
):
    """Try SOURCE on a web page that this machine alone can open.

    Without SOURCE, the model that the demo has trained in results/demo/1986.
    """
    if source is None:
        source = TRAINED_DEMO
        if not Path(source).is_dir():
            raise InputError(
                f"'{source}' is not there: name a SOURCE, or train the demo with "
                "python recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml"
            )
    from speechbrain_ext.web.page import require_gradio, serve

    require_gradio()  # before the model is loaded
    model = load(source, device, revision, trust_source)
    # A killed page, too, deletes what it has of its visitors.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    serve(model, gallery, port=port, max_size=max_size, max_duration=max_duration)
