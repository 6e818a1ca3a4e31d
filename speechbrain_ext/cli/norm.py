"""speechbrain-ext norm."""

import click

from speechbrain_ext.cli.options import (
    SCORE_NORMS,
    Command,
    InputFile,
    as_json,
    cohort_options,
    enrolments_option,
    note,
    output_file,
    show,
)
from speechbrain_ext.utils.errors import InputError

ROUNDING = 1e-3  # of cosines, in half precision
EXAMPLES = """
speechbrain-ext norm scores.txt --embeddings test.scp --cohort train.scp \\
    --utt2spk train/utt2spk --cohort_size 300 --output normalized.txt
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("scores", type=InputFile())
@click.option(
    "--embeddings",
    required=True,
    help="Of the trials; .safetensors, .parquet, .csv, .npz, .scp, .ark.",
)
@click.option(
    "--score_norm", type=click.Choice(SCORE_NORMS), default="s-norm",
    show_default=True, help="Kind of normalisation.",
)  # fmt: skip
@click.option("--output", required=True, help="Score file to write; - prints it.")
@click.option("--cohort", required=True, help="Embeddings of the training set.")
@cohort_options
@enrolments_option
@as_json
def command(
    scores, embeddings, output, cohort, utt2spk, enrolments, as_json, **backend
):
    """Normalise the score file SCORES."""
    from speechbrain_ext.cli.backend_options import make_backend, read_cohort
    from speechbrain_ext.dataio.embeddings import read_embeddings
    from speechbrain_ext.dataio.enrolments import match_models, read_enrolments
    from speechbrain_ext.dataio.scores import read_scores, write_scores
    from speechbrain_ext.inference.verification import summary, verification_metrics
    from speechbrain_ext.utils.files import require_writable

    if output == "-" and as_json:
        raise InputError("--json and --output - both print; leave one out")
    if output != "-":
        require_writable(output)
    backend = make_backend(**backend)
    source = scores
    trials, scores = read_scores(source, need_labels=False)
    largest = float(scores.abs().max())
    if largest > 1 + ROUNDING:
        raise InputError(
            f"'{source}' has a score of {largest:g} beyond those of cosines, -1 to 1, "
            "as PLDA or normalised ones; give cosine scores, or let "
            "`speechbrain-ext score` make them"
        )
    compared, models = trials, None
    if enrolments is not None:
        models = read_enrolments(enrolments)
        compared = match_models(trials, models)
    backend.fit(read_cohort(cohort, utt2spk, backend))
    store = read_embeddings(embeddings)
    normalized = backend.normalize(scores, store, compared, models)
    with output_file(output) as path:
        write_scores(path, trials, normalized)
    if trials.labels is None:
        record = {"trials": len(trials), "scores": output}
        text = f"{len(trials)} trials without labels, so no error rates"
    else:
        record = verification_metrics(trials, normalized)
        text = summary(record)
    if output == "-":
        note(text)
    else:
        show(text, record, as_json)
