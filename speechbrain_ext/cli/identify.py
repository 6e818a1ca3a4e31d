"""speechbrain-ext identify."""

import click

from speechbrain_ext.cli.enrol import gallery_option
from speechbrain_ext.cli.models import load
from speechbrain_ext.cli.options import (
    Command,
    Number,
    as_json,
    model_options,
    recording_options,
    show,
)
from speechbrain_ext.cli.recordings import embed_speech
from speechbrain_ext.cli.verify import decided_by, threshold_text

EXAMPLES = """
speechbrain-ext identify ltdnn unknown.wav --gallery speakers --top 3
"""


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("recordings", nargs=-1, required=True)
@gallery_option
@click.option(
    "--top", type=click.IntRange(min=1), default=5, show_default=True,
    help="Candidates of each recording.",
)  # fmt: skip
@click.option(
    "--threshold", type=Number(), help="For the score, in place of the model's own."
)
@recording_options
@as_json
def command(
    source, device, revision, trust_source, recordings, gallery, top, threshold,
    window_length, window_overlap, min_speech, as_json,
):  # fmt: skip
    """Say which enrolled speakers RECORDINGS resemble most, and whether enough."""
    from speechbrain_ext.inference.gallery import Gallery

    gallery = Gallery(gallery)
    model = load(source, device, revision, trust_source)
    recordings = list(recordings)
    embeddings, durations = embed_speech(
        model, recordings, window_length, window_overlap, min_speech
    )
    found = gallery.identify(model, embeddings, durations, top, threshold)
    decided = decided_by(model, threshold)
    for path, candidates in zip(recordings, found):
        best = candidates[0].name if candidates[0].decision else "nobody enrolled"
        lines = [f"{path}: {best} ({threshold_text(decided)})"]
        for rank, one in enumerate(candidates, start=1):
            line = f"{rank:3} {one.score:8.4f}  {one.name}"
            if one.probability is not None:
                line += f", probability {one.probability:.4f}"
            lines.append(line)
        record = {
            "file": path,
            "speaker": candidates[0].name if candidates[0].decision else None,
            **decided,
            "candidates": [one._asdict() for one in candidates],
        }
        show("\n".join(lines), record, as_json)
