"""speechbrain-ext doctor."""

import click

from speechbrain_ext.cli.options import Command, as_json, show

MARKS = {True: "ok", False: "BROKEN", None: "-"}


@click.command(cls=Command)
@as_json
def command(as_json):
    """Say what works on this machine, what does not, and the remedy.

    Exit status 2 if something is broken that the package needs.
    """
    from speechbrain_ext.inference.doctor import examine

    is_broken = False
    for finding in examine():
        is_broken |= finding.works is False
        text = f"{MARKS[finding.works]:>6}  {finding.subject}: {finding.text}"
        if finding.remedy:
            text += f" -> {finding.remedy}"
        show(text, finding._asdict(), as_json)
    return 2 if is_broken else 0
