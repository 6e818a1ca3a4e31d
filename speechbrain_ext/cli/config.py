"""speechbrain-ext config."""

import click

from speechbrain_ext.cli.options import Command

EXAMPLES = """
speechbrain-ext config hparams/ltdnn_wavlm.yaml --lr=0.001 > ltdnn.yaml
"""


@click.command(
    cls=Command, examples=EXAMPLES, context_settings={"ignore_unknown_options": True}
)
@click.argument("hparams")
@click.argument("overrides", nargs=-1, type=click.UNPROCESSED)
def command(hparams, overrides):
    """Print the YAML HPARAMS with all that it extends, and --key=value OVERRIDES."""
    from speechbrain_ext.config import read_configuration

    configuration = read_configuration([hparams, *overrides], demo=False)
    configuration.check()
    print(configuration.text, end="")
