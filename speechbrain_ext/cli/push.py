"""speechbrain-ext push."""

import click

from speechbrain_ext.cli.options import Command, as_json, show

EXAMPLES = """
speechbrain-ext push ltdnn user/ltdnn --private
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("folder")
@click.argument("name")
@click.option("--private", is_flag=True, help="A new model is seen by its owner only.")
@as_json
def command(folder, name, private, as_json):
    """Upload the model FOLDER of `export` to the Hugging Face hub as user/NAME.

    A folder of `export --space` becomes a Space, any other a model.
    """
    from speechbrain_ext.inference.push import push_model

    address = push_model(folder, name, private=private)
    show(address, {"address": address}, as_json)
