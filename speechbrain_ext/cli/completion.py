"""speechbrain-ext completion."""

import click
from click.shell_completion import get_completion_class

from speechbrain_ext.cli.options import Command

EXAMPLES = """
eval "$(speechbrain-ext completion bash)"
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def command(ctx, shell):
    """Print what makes SHELL complete commands and options."""
    kind = get_completion_class(shell)
    group = ctx.find_root().command
    completion = kind(group, {}, "speechbrain-ext", "_SPEECHBRAIN_EXT_COMPLETE")
    print(completion.source())
