"""Options that several commands have, and the types of their values."""

import contextlib
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import click

STANDARD_INPUT = "/dev/stdin"
# As of processing.score_norm and processing.backends, which need seconds to import
SCORE_NORMS = ("z-norm", "t-norm", "s-norm")
AVERAGES = ("embeddings", "scores")


class Command(click.Command):
    """A command whose options take several values, as `--frr 0.01 0.05`.

    click repeats the option instead, which works too. It also gets `--debug`, and
    examples below the help.

    Arguments
    ---------
    examples : str
        Command lines.
    """

    def __init__(self, *arguments, examples=None, **settings):
        super().__init__(*arguments, **settings)
        self.examples = examples
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                help="Show the traceback of an error.",
            )
        )

    def parse_args(self, ctx, args):
        """Repeats the option before each further value."""
        normalize = ctx.token_normalize_func or str
        several = {
            normalize(name)
            for option in self.params
            if isinstance(option, click.Option) and option.multiple
            for name in option.opts
        }
        repeated, last, n_values = [], None, 0
        for i, argument in enumerate(args):
            if argument == "--":
                repeated.extend(args[i:])
                break
            if argument.startswith("--"):
                last = argument if normalize(argument) in several else None
                n_values = 0
            elif last is not None:
                n_values += 1
                if n_values > 1:
                    repeated.append(last)
            repeated.append(argument)
        return super().parse_args(ctx, repeated)

    def format_epilog(self, ctx, formatter):
        """Writes the examples as they are."""
        if self.examples is not None:
            with formatter.section("Examples"):
                for line in self.examples.strip().splitlines():
                    formatter.write(f"  {line.rstrip()}\n")


class Number(click.ParamType):
    """A finite number within limits.

    Arguments
    ---------
    least : float
        Lower limit.
    most : float
        Upper limit.
    with_ends : bool
        Whether the limits themselves are right.

    Example
    -------
    >>> Number(0, 1).convert("0.05", None, None)
    0.05
    """

    name = "number"

    def __init__(self, least=-math.inf, most=math.inf, with_ends=True):
        self.least, self.most, self.with_ends = least, most, with_ends

    def convert(self, value, param, ctx):
        """Gives the number that text stands for."""
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        inside = self.least <= number <= self.most and math.isfinite(number)
        if inside and (self.with_ends or number not in (self.least, self.most)):
            return number
        bounded = math.isfinite(self.most)
        if math.isinf(self.least):
            limits = ""
        elif self.with_ends:
            limits = f" from {self.least}" + (f" to {self.most}" if bounded else "")
        else:
            limits = f" above {self.least}"
            limits += f" and below {self.most}" if bounded else ""
        self.fail(f"'{value}': give a number{limits}", param, ctx)


class LDADimension(click.ParamType):
    """A whole number, or "auto"."""

    name = "number|auto"

    def convert(self, value, param, ctx):
        """Gives the number, or the word."""
        if value == "auto":
            return value
        try:
            return int(value)
        except ValueError:
            self.fail(f"'{value}': give a whole number or auto", param, ctx)


class InputFile(click.ParamType):
    """A file to read, where - is standard input.

    What comes through a pipe, as `<(zcat scores.gz)` does too, is kept in a temporary
    file while the command runs: lists are read more than once.
    """

    name = "file"

    def convert(self, value, param, ctx):
        """Gives a path that can be opened, again and again."""
        path = Path(STANDARD_INPUT if value == "-" else value)
        if not path.exists() or path.is_file() or path.is_dir():
            return str(path)
        folder = ctx.with_resource(tempfile.TemporaryDirectory())
        copy = Path(folder) / "standard_input"
        with open(path, "rb") as source, open(copy, "wb") as target:
            shutil.copyfileobj(source, target)
        return str(copy)


PROBABILITY = Number(0, 1, with_ends=False)
RATE = Number(0, 1)
COST = Number(0, with_ends=False)
SECONDS = Number(0, with_ends=False)


def options(*decorators):
    """Makes one decorator of several options.

    Arguments
    ---------
    *decorators : callable
        Decorators of click.

    Returns
    -------
    callable
        Adds them in this order.
    """

    def decorate(function):
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


as_json = click.option(
    "--json", "as_json", is_flag=True,
    help="Print JSON and nothing else, one object a line.",
)  # fmt: skip

trust_option = click.option(
    "--trust_source", is_flag=True,
    help="hyperparams.yaml may call anything, such as lobes of your own.",
)  # fmt: skip

loading_options = options(
    click.option("--device", help="Where to compute, such as cuda:1 or cpu; default: a "
                 "GPU if there is one."),
    click.option("--revision", help="Branch, tag or commit of a SOURCE on the hub."),
    trust_option,
)  # fmt: skip

model_options = options(click.argument("source"), loading_options)

recording_options = options(
    click.option("--window_length", type=SECONDS, default=60.0, show_default=True,
                 help="Seconds of the windows that longer recordings are cut into, "
                 "whose embeddings are averaged."),
    click.option("--window_overlap", type=Number(0), default=0.0, show_default=True,
                 help="Seconds that windows share, at the least."),
    click.option("--min_speech", type=SECONDS, help="Seconds of speech that a "
                 "recording must have, as silero-vad finds it; needs "
                 "speechbrain_ext[vad]. Default: any recording is taken, with a "
                 "warning where it is short or silent."),
)  # fmt: skip

precision_option = click.option(
    "--precision", type=click.Choice(["fp32", "bf16", "fp16", "auto"]), default="fp32",
    show_default=True, help="What to compute in; auto: bf16 where it is faster.",
)  # fmt: skip

enrolments_option = click.option(
    "--enrolments", type=InputFile(), help="'model utterance utterance ...' lines; the "
    "trials' enrolment ids are models.",
)  # fmt: skip

cohort_options = options(
    click.option("--utt2spk", type=InputFile(), help="Speakers of a Kaldi cohort."),
    click.option("--cohort_size", type=int, help="Highest cohort scores that count, "
                 "for AS-norm; default: all."),
    click.option("--subtract_mean", is_flag=True, help="Subtract the cohort's mean "
                 "from all embeddings."),
    click.option("--population_std", is_flag=True, help="Variance of cohort scores "
                 "over n, as WeSpeaker's, not n - 1."),
    click.option("--raw_cohort", is_flag=True, help="Speakers' means of raw "
                 "embeddings, as WeSpeaker's, not of unit-length ones."),
)  # fmt: skip


def show(text, record, as_json):
    """Prints a result for people or for programs.

    Arguments
    ---------
    text : str
        For people.
    record : dict
        For programs.
    as_json : bool
        Whether for programs.
    """
    print(json.dumps(record, ensure_ascii=False) if as_json else text, flush=True)


def note(text):
    """Prints what is no result, on standard error.

    Arguments
    ---------
    text : str
        One line.
    """
    print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def output_file(path):
    """Gives the path to write to, where - is standard output.

    Arguments
    ---------
    path : str
        Path of the command line.

    Yields
    ------
    str
        The path; for standard output that of a temporary file, which is copied
        when the block has succeeded.
    """
    if path != "-":
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "output"
        yield str(file)
        sys.stdout.flush()
        if file.is_file():
            with open(file, encoding="utf-8", newline="") as content:
                shutil.copyfileobj(content, sys.stdout)
            sys.stdout.flush()
