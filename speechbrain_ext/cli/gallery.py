"""speechbrain-ext gallery."""

from pathlib import Path

import click

from speechbrain_ext.cli.options import Command, as_json, show
from speechbrain_ext.utils.errors import InputError


@click.group()
def command():
    """List, delete and rename the enrolled speakers of a gallery."""


@command.command("list", cls=Command)
@click.argument("gallery")
@as_json
def list_speakers(gallery, as_json):
    """List the speakers of GALLERY and their recordings."""
    from speechbrain_ext.inference.gallery import Gallery

    if not Path(gallery).exists():
        raise InputError(f"there is no gallery '{gallery}'")
    for name, recordings in Gallery(gallery).speakers().items():
        text = "\n".join([name, *(f"    {path}" for path in recordings)])
        show(text, {"name": name, "recordings": recordings}, as_json)


@command.command(cls=Command)
@click.argument("gallery")
@click.argument("name")
def delete(gallery, name):
    """Delete all that GALLERY has of the speaker NAME."""
    from speechbrain_ext.inference.gallery import Gallery

    Gallery(gallery).delete(name)


@command.command(cls=Command)
@click.argument("gallery")
@click.argument("name")
@click.argument("new_name")
def rename(gallery, name, new_name):
    """Rename the speaker NAME of GALLERY to NEW_NAME."""
    from speechbrain_ext.inference.gallery import Gallery

    Gallery(gallery).rename(name, new_name)
