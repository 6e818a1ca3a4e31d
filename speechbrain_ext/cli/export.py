"""speechbrain-ext export."""

import click

from speechbrain_ext.cli.options import Command, as_json, show, trust_option
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext export results/ltdnn_wavlm/1986 ltdnn --license cc-by-4.0
speechbrain-ext export results/ltdnn_wavlm/1986 ltdnn --verification verified \\
    --cohort verified/train.safetensors
"""
ENCODERS = ("weights", "reference")  # as of inference.export, which needs seconds


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("results")
@click.argument("output")
@click.option(
    "--encoder",
    type=click.Choice(ENCODERS),
    default="weights",
    show_default=True,
    help="What the folder has of the encoder: its weights, or its name and revision "
    "on the hub.",
)
@click.option(
    "--verification",
    help="output_folder of a verification, for its metrics, score "
    "normalisation and calibration; default: the training's test.",
)
@click.option("--cohort", help="Embeddings of the training set.")
@click.option("--utt2spk", help="Speakers of a Kaldi cohort.")
@click.option(
    "--license",
    default="unknown",
    show_default=True,
    help="Of the model, such as cc-by-4.0.",
)
@click.option("--examples", multiple=True, help="Recordings to add to the folder.")
@click.option(
    "--space",
    is_flag=True,
    help="Add app.py and requirements.txt, which make the folder a Hugging Face Space "
    "with the page of `speechbrain-ext demo`.",
)
@trust_option
@as_json
def command(results, output, cohort, utt2spk, as_json, **settings):  # fmt: skip
    """Write the best checkpoint of the training RESULTS as the model folder OUTPUT."""
    from speechbrain_ext.dataio.embeddings import read_embeddings
    from speechbrain_ext.inference.export import export_model

    if cohort is not None:
        cohort = read_embeddings(cohort, utt2spk)
    elif utt2spk is not None:
        raise InputError("--utt2spk has no effect without --cohort; leave it out")
    folder = export_model(results, output, cohort=cohort, **settings)
    show(folder, {"folder": str(folder)}, as_json)
