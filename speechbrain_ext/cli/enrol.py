"""speechbrain-ext enrol."""

from pathlib import Path

import click

from speechbrain_ext.cli.models import load
from speechbrain_ext.cli.options import (
    Command,
    as_json,
    model_options,
    recording_options,
    show,
)
from speechbrain_ext.cli.recordings import embed_speech

EXAMPLES = """
speechbrain-ext enrol ltdnn anna anna/1.wav anna/2.wav --gallery speakers
"""
gallery_option = click.option(
    "--gallery", required=True,
    help="Folder of the enrolled speakers, which its owner alone can read.",
)  # fmt: skip


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("name")
@click.argument("recordings", nargs=-1, required=True)
@gallery_option
@recording_options
@as_json
def command(
    source, device, revision, trust_source, name, recordings, gallery, window_length,
    window_overlap, min_speech, as_json,
):  # fmt: skip
    """Enrol the speaker NAME from RECORDINGS, beside earlier ones of that name.

    Embeddings of voices are biometric data: enrol whom you may, and delete on request.
    """
    from speechbrain_ext.inference.gallery import Gallery

    gallery = Gallery(gallery)
    model = load(source, device, revision, trust_source)
    # Each once: one that is given twice would weigh as two.
    recordings = list(dict.fromkeys(str(Path(path).absolute()) for path in recordings))
    embeddings, durations = embed_speech(
        model, recordings, window_length, window_overlap, min_speech
    )
    gallery.enrol(name, recordings, embeddings, durations, model.fingerprint)
    enrolled = gallery.speakers()[name]
    show(
        f"{name}: {len(enrolled)} recording{'s' * (len(enrolled) > 1)} enrolled",
        {"name": name, "recordings": enrolled},
        as_json,
    )
