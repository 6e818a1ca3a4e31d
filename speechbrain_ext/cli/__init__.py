"""The command speechbrain-ext; each of its commands is a module.

The modules of this package import nothing heavy before a command runs, so that help
and shell completion are there at once.
"""

import contextlib
import importlib
import sys

import click

from speechbrain_ext import __version__
from speechbrain_ext.cli.quiet import quiet_libraries
from speechbrain_ext.utils.errors import one_line_errors

# In the order of the help
COMMANDS = (
    "embed", "verify", "enrol", "identify", "gallery", "demo", "tune", "export", "push",
    "info", "score", "norm", "eval", "calibrate", "det", "config", "lay-out-corpus",
    "random-encoder", "results-table", "doctor", "completion",
)  # fmt: skip
ERROR = 2  # exit status


class Commands(click.Group):
    """Finds the commands in the modules of this package, when they are needed."""

    def list_commands(self, ctx):
        """Gives the names of the commands, in the order of the help."""
        return list(COMMANDS)

    def get_command(self, ctx, name):
        """Imports the module of a command; None if there is no such command."""
        if name not in COMMANDS:
            return None
        module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
        return module.command


def _with_hyphens(token):
    return token.replace("_", "-")


@click.command(
    cls=Commands,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "token_normalize_func": _with_hyphens,
        "max_content_width": 88,
    },
)
@click.version_option(__version__, prog_name="speechbrain-ext")
def commands():
    """Speaker verification: use models, score trials, measure, prepare.

    SOURCE is the folder of a training, a folder that `speechbrain-ext export` wrote,
    or its name on the Hugging Face hub. Options may be spelt with - or _. The file -
    is standard input or output. Exit status: 0, 1 for different speakers where
    --exit_code asks for it, 2 for an error.
    """


def main(arguments=None):
    """Runs a command.

    Arguments
    ---------
    arguments : list of str
        Arguments of the command line; those of the program if None.

    Raises
    ------
    SystemExit
        With status 2 and one line on standard error if something is wrong, with
        status 1 where a command says so.
    """
    arguments = sys.argv[1:] if arguments is None else [str(a) for a in arguments]
    debug = "--debug" in arguments
    try:
        with contextlib.ExitStack() as stack:
            if not debug:
                stack.enter_context(quiet_libraries())
            stack.enter_context(one_line_errors(debug))
            status = commands.main(
                arguments, prog_name="speechbrain-ext", standalone_mode=False
            )
    except SystemExit as error:
        cause = error.__cause__
        if isinstance(cause, click.exceptions.NoArgsIsHelpError):
            cause.show()
        elif isinstance(cause, click.ClickException):
            print(f"error: {_usage(cause)}", file=sys.stderr)
        elif isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        error.code = ERROR
        raise
    if status:
        raise SystemExit(status)


def _usage(error):
    """One line on a wrong command line."""
    message = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    if context is None:
        return message
    return f"{message.rstrip('.')}. See {context.command_path} --help"
