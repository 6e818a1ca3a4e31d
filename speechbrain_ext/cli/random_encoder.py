"""speechbrain-ext random-encoder."""

import click

from speechbrain_ext.cli.options import Command, as_json, show

EXAMPLES = """
speechbrain-ext random-encoder hubert results/random_hubert
python recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml \\
    --ssl_hub results/random_hubert
"""
# As of lobes.encoders.random_encoder, which needs seconds to import
FAMILIES = (
    "wav2vec2", "hubert", "wavlm", "unispeech-sat", "data2vec-audio",
    "wav2vec2-conformer", "w2v-bert", "whisper",
)  # fmt: skip


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("family", type=click.Choice(FAMILIES))
@click.argument("folder")
@as_json
def command(family, folder, as_json):
    """Save a tiny SSL encoder of any FAMILY with random weights, to try recipes."""
    from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder

    folder = save_random_encoder(family, folder)
    show(folder, {"folder": folder}, as_json)
