"""speechbrain-ext verify."""

import click

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
from speechbrain_ext.utils.decisions import decision_basis, threshold_text

EXAMPLES = """
speechbrain-ext verify ltdnn a.wav b.wav
speechbrain-ext verify user/model a.wav b.wav --exit_code --json && echo same
"""
DIFFERENT = 1  # exit status


@click.command(cls=Command, examples=EXAMPLES)
@model_options
@click.argument("first")
@click.argument("second")
@click.option(
    "--threshold", type=Number(), help="For the score, in place of the model's own."
)
@recording_options
@click.option(
    "--exit_code", is_flag=True, help="Exit with status 1 for different speakers."
)
@as_json
def command(
    source, device, revision, trust_source, first, second, threshold, window_length,
    window_overlap, min_speech, exit_code, as_json,
):  # fmt: skip
    """Say whether the recordings FIRST and SECOND are of one speaker."""
    model = load(source, device, revision, trust_source)
    embeddings, durations = embed_speech(
        model, [first, second], window_length, window_overlap, min_speech
    )
    result = model.scoring.compare(
        embeddings[:1], embeddings[1:], durations[:1], durations[1:], threshold
    )
    record = {
        "first": first,
        "second": second,
        "score": result.score.item(),
        "same_speaker": bool(result.decision),
        **decided_by(model, threshold),
        "log_likelihood_ratio": _number(result.log_likelihood_ratio),
        "probability": _number(result.probability),
    }
    text = f"{'same speaker' if record['same_speaker'] else 'different speakers'}, "
    text += f"score {record['score']:.4f} ({threshold_text(record)})"
    if result.probability is not None:
        text += f", probability {record['probability']:.4f}"
    show(text, record, as_json)
    return DIFFERENT if exit_code and not record["same_speaker"] else 0


def decided_by(model, threshold):
    """The threshold of a decision and the data that it is from.

    Arguments
    ---------
    model : SpeakerRecognition
        The model.
    threshold : float
        Threshold of the command line, or None.

    Returns
    -------
    dict
        See `decision_basis`.
    """
    if threshold is not None:
        return {"threshold": threshold, "threshold_from": "the command line"}
    return decision_basis(model.scoring)


def _number(tensor):
    return None if tensor is None else tensor.item()
