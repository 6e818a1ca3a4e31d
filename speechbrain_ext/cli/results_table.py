"""speechbrain-ext results-table."""

import click

from speechbrain_ext.cli.options import Command, as_json, show, trust_option

EXAMPLES = """
speechbrain-ext results-table results/tables
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("results")
@click.option("--output_folder", help="Where to write; default: RESULTS.")
@click.option(
    "--device", default="cpu", show_default=True, help="Where to measure latency."
)
@click.option(
    "--latency_over_trials",
    is_flag=True,
    help="Measure it on the utterances of each model's test trials too.",
)
@trust_option
@as_json
def command(results, output_folder, device, latency_over_trials, trust_source, as_json):
    """Collect the trainings below RESULTS into one table, beside the papers' figures.

    Measures parameters and the latency of each system and encoder.
    """
    from speechbrain_ext.training.results_table import results_table

    files = results_table(
        results, output_folder, device, latency_over_trials, trust_source
    )
    for file in files:
        show(file, {"file": str(file)}, as_json)
