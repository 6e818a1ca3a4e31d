"""speechbrain-ext lay-out-corpus."""

import click

from speechbrain_ext.cli.options import Command, InputFile

EXAMPLES = """
speechbrain-ext lay-out-corpus corpus/utterances.csv --layout vctk \\
    --output_folder small_vctk
"""
LAYOUTS = ("cnceleb", "librispeech", "vctk", "voxceleb")  # as of dataio.corpora


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("table", type=InputFile())
@click.option(
    "--layout", type=click.Choice(LAYOUTS), required=True,
    help="Corpus that is imitated.",
)  # fmt: skip
@click.option("--output_folder", required=True, help="Root of the new corpus.")
def command(table, layout, output_folder):
    """Lay the recordings of a CSV out as VoxCeleb, LibriSpeech, VCTK or CN-Celeb.

    So they run through the recipes of these corpora. TABLE has the columns path
    (below its own folder), speaker, gender and age.
    """
    from speechbrain_ext.dataio.layouts import lay_out_corpus

    lay_out_corpus(table, layout, output_folder)
