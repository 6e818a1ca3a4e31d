"""speechbrain-ext score."""

from pathlib import Path

import click

from speechbrain_ext.cli.options import (
    AVERAGES,
    SCORE_NORMS,
    Command,
    InputFile,
    LDADimension,
    as_json,
    cohort_options,
    enrolments_option,
    show,
)
from speechbrain_ext.utils.errors import InputError

EXAMPLES = """
speechbrain-ext score test.safetensors --trials trials.txt --output out
speechbrain-ext score xvector.scp --trials trials.txt --output out \\
    --cohort train.scp --utt2spk train/utt2spk --score_norm s-norm --cohort_size 300
speechbrain-ext score test.scp --trials trials.txt --output out \\
    --cohort train.scp --utt2spk train/utt2spk --plda --lda_dim 150
speechbrain-ext score test.scp --trials trials.txt --output out \\
    --enrolments spk2utt --backend my_backend.yaml
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("embeddings")
@click.option(
    "--trials",
    required=True,
    type=InputFile(),
    help="Lines 'label enrol test' or, to have scores alone, 'enrol test'.",
)
@click.option("--output", required=True, help="Folder to write to.")
@click.option("--cohort", help="Embeddings of the training set.")
@cohort_options
@enrolments_option
@click.option(
    "--average",
    type=click.Choice(AVERAGES),
    help="What is averaged over a model's utterances; default: embeddings, in the "
    "space of the back end.",
)
@click.option(
    "--score_norm",
    type=click.Choice(SCORE_NORMS),
    help="Normalisation of cosine scores.",
)
@click.option("--plda", is_flag=True, help="PLDA trained on the cohort, not cosine.")
@click.option(
    "--lda_dim",
    type=LDADimension(),
    help="Dimension after LDA, a number or auto; default: no LDA.",
)
@click.option(
    "--adapt", is_flag=True, help="Adapt PLDA to the embeddings that are scored."
)
@click.option(
    "--backend",
    metavar="YAML",
    help="File with the key backend, for any other back end: "
    "backend: !new:package.module.Class",
)
@as_json
def command(
    embeddings, trials, output, cohort, utt2spk, enrolments, average, as_json, **backend
):  # fmt: skip
    """Score a trial list from EMBEDDINGS (safetensors, Parquet, CSV, npz, scp, ark)."""
    from speechbrain_ext.cli.backend_options import make_backend, read_cohort
    from speechbrain_ext.dataio.embeddings import read_embeddings
    from speechbrain_ext.dataio.enrolments import match_models, read_enrolments
    from speechbrain_ext.dataio.scores import write_scores
    from speechbrain_ext.dataio.trials import read_trials
    from speechbrain_ext.inference.verification import report, summary
    from speechbrain_ext.utils.files import require_writable

    if average is not None and enrolments is None:
        raise InputError("--average has no effect without --enrolments")
    require_writable(Path(output) / "scores.txt")
    backend = make_backend(**backend)
    cohort = read_cohort(cohort, utt2spk, backend)
    store = read_embeddings(embeddings)
    trials = compared = read_trials(trials, need_labels=False)
    average, models, details = average or "embeddings", None, {}
    if enrolments is not None:
        models = read_enrolments(enrolments)
        compared = match_models(trials, models)
        details = {"enrolment_models": len(models), "average": average}
    if cohort is not None:
        backend.fit(cohort)
    scores = backend.score(store, compared, models, average)
    if trials.labels is None:
        path = Path(output) / "scores.txt"
        write_scores(path, trials, scores)
        text = f"{len(trials)} trials without labels, so no error rates; see {path}"
        show(text, {"trials": len(trials), "scores": str(path)}, as_json)
        return
    details = {**backend.details(), **details}
    metrics = report(output, trials, scores, details=details)
    show(summary(metrics), metrics, as_json)
