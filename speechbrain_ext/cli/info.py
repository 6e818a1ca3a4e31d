"""speechbrain-ext info."""

import click

from speechbrain_ext.cli.options import Command, as_json, model_options, show

EXAMPLES = """
speechbrain-ext info ltdnn
speechbrain-ext info user/model --json
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@as_json
def command(source, device, revision, trust_source, as_json):
    """Say what SOURCE is: architecture, parameters, data, metrics, threshold."""
    from speechbrain_ext.inference.sources import describe_model

    record = describe_model(source, revision, trust_source=trust_source)
    show("\n".join(_lines(record)), record, as_json)


def _lines(record, indent=""):
    """Entries a line, those of a dictionary further in."""
    for name, value in record.items():
        if value is None:
            continue
        if isinstance(value, dict):
            yield f"{indent}{name}:"
            yield from _lines(value, indent + "    ")
        elif isinstance(value, int) and not isinstance(value, bool):
            yield f"{indent}{name}: {value:,}"
        else:
            yield f"{indent}{name}: {value}"
