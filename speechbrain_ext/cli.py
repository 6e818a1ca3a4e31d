"""The command speechbrain-ext: scoring of embeddings and scores of any toolkit."""

import argparse
import json
from pathlib import Path

import torch

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.dataio.scores import read_scores
from speechbrain_ext.dataio.trials import Trials, read_trials
from speechbrain_ext.inference.export import ENCODERS, export_model
from speechbrain_ext.inference.push import push_model
from speechbrain_ext.inference.verification import (
    CosineBackend,
    PLDABackend,
    calibration_metrics,
    report,
    summary,
    verification_metrics,
    write_scores,
)
from speechbrain_ext.metrics.calibration import far_at_frr
from speechbrain_ext.plots.detection import plot_calibration, plot_det
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.processing.enrolment import (
    expand_trials,
    mean_embeddings,
    mean_scores,
    read_enrolments,
)
from speechbrain_ext.processing.score_norm import (
    KINDS,
    normalize_scores,
    speaker_means,
)
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors
from speechbrain_ext.utils.files import write_json

EXAMPLES = {
    "score": """examples:
  speechbrain-ext score test.safetensors --trials trials.txt --output out
  speechbrain-ext score xvector.scp --trials trials.txt --output out \\
      --cohort train.scp --utt2spk train/utt2spk --score_norm s-norm --cohort_size 300
  speechbrain-ext score test.scp --trials trials.txt --output out \\
      --cohort train.scp --utt2spk train/utt2spk --plda --lda_dim 150""",
    "norm": """example:
  speechbrain-ext norm scores.txt --embeddings test.scp --cohort train.scp \\
      --utt2spk train/utt2spk --cohort_size 300 --output normalized.txt""",
    "eval": """example:
  speechbrain-ext eval scores.txt --frr 0.01 0.05 --output metrics.json""",
    "calibrate": """example:
  speechbrain-ext calibrate scores.txt --train development_scores.txt --output out""",
    "config": """example:
  speechbrain-ext config hparams/ltdnn_wavlm.yaml --lr=0.001 > ltdnn.yaml""",
    "export": """examples:
  speechbrain-ext export results/ltdnn_wavlm/1986 ltdnn --license cc-by-4.0
  speechbrain-ext export results/ltdnn_wavlm/1986 ltdnn --verification verified \\
      --cohort verified/train.safetensors""",
    "push": """example:
  speechbrain-ext push ltdnn user/ltdnn --private""",
    "det": """example:
  speechbrain-ext det ltdnn/scores.txt ecapa/scores.txt --output figures/det""",
}


def main(arguments=None):
    """Runs a sub-command.

    Arguments
    ---------
    arguments : list of str
        Of the command line; sys.argv[1:] if None.

    Raises
    ------
    SystemExit
        With one line, on bad input.

    Example
    -------
    >>> path = getfixture("tmpdir") / "scores.txt"
    >>> path.write_text("a b 1 0.5\\nc d 0 0.1\\n", "utf-8")
    >>> main(["eval", str(path)])
    EER 0.00 %, minDCF 0.000 (p=0.01) 0.000 (p=0.05)
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.run is not config:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    with one_line_errors(options.debug):
        options.run(options)


def score(options):
    """Scores a trial list from embeddings."""
    store = read_embeddings(options.embeddings)
    trials = read_trials(options.trials)
    needs_cohort = options.plda or options.score_norm or options.subtract_mean
    if needs_cohort and options.cohort is None:
        raise InputError(
            "--plda, --score_norm and --subtract_mean need --cohort, the "
            "embeddings of the training set"
        )
    cohort = None
    if options.cohort is not None:
        cohort = read_embeddings(options.cohort, options.utt2spk)
    if options.plda:
        backend = PLDABackend(cohort, options.lda_dim)
    else:
        backend = CosineBackend(
            cohort, options.subtract_mean, options.score_norm, options.cohort_size
        )
    if options.enrolments is None:
        scores = backend.score(store, trials)
    else:
        scores = score_models(
            backend, store, trials, read_enrolments(options.enrolments), options.average
        )
    metrics = report(options.output, trials, scores, details=backend.details())
    print(summary(metrics))


def score_models(backend, store, trials, enrolments, average):
    """Scores trials whose enrolment ids are models of several utterances.

    Arguments
    ---------
    backend : CosineBackend or PLDABackend
        Gives the scores.
    store : EmbeddingStore
        With the utterances of models and tests.
    trials : Trials
        With models as enrolment ids.
    enrolments : dict
        Utterance ids of each model.
    average : str
        "embeddings" or "scores".

    Returns
    -------
    torch.Tensor
        Of shape (n_trial,).
    """
    expanded, source = expand_trials(trials, enrolments)
    if average == "scores":
        return mean_scores(backend.score(store, expanded), source)
    used = {model: enrolments[model] for model in set(trials.enrol)}
    models = mean_embeddings(store.by_id(), used)
    # A model and an utterance may have the same name.
    named = {f"model {model}": value for model, value in models.items()}
    with_models = EmbeddingStore(
        [*store.ids, *named],
        torch.cat([store.embeddings, torch.stack(list(named.values()))]),
        [*store.speakers, *named],
        [*store.durations, *[float("nan")] * len(named)],
        store.fingerprint,
    )
    renamed = Trials(
        trials.labels, [f"model {model}" for model in trials.enrol], trials.test
    )
    return backend.score(with_models, renamed)


def norm(options):
    """Normalises the scores of a score file."""
    trials, scores = read_scores(options.scores)
    embeddings = read_embeddings(options.embeddings).by_id()
    cohort = read_embeddings(options.cohort, options.utt2spk)
    normalized = normalize_scores(
        scores,
        trials,
        embeddings,
        speaker_means(cohort.by_id(), cohort.speaker_of()),
        options.score_norm,
        options.cohort_size,
    )
    write_scores(options.output, trials, normalized)
    print(summary(verification_metrics(trials, normalized)))


def evaluate(options):
    """Prints the metrics of a score file."""
    trials, scores = read_scores(options.scores)
    metrics = verification_metrics(trials, scores, options.threshold)
    metrics.update(calibration_metrics(trials, scores))
    split_scores = trials.split_by_label(scores)
    for frr in options.frr:
        metrics[f"FAR_at_FRR_{frr:g}"] = far_at_frr(*split_scores, frr)
    if options.output is not None:
        write_json(options.output, metrics)
        print(json.dumps(metrics, indent=2))
    print(summary(metrics))


def calibrate(options):
    """Calibrates a score file with another one."""
    train_trials, train_scores = read_scores(options.train)
    trials, scores = read_scores(options.scores)
    calibration = Calibration.fit(
        ["score"], train_scores.unsqueeze(1), train_trials.labels, options.p_target
    )
    ratios = calibration.apply(scores.unsqueeze(1))
    output = Path(options.output)
    calibration.save(output / "calibration.json")
    write_scores(output / "scores.txt", trials, ratios)
    metrics = {
        "uncalibrated": calibration_metrics(trials, scores),
        "calibrated": calibration_metrics(trials, ratios),
    }
    write_json(output / "metrics.json", metrics)
    plot_calibration(output / "calibration", *trials.split_by_label(ratios))
    for state, values in metrics.items():
        print(
            f"{state}: Cllr {values['Cllr']:.4f}, minCllr "
            f"{values['minCllr']:.4f}, actDCF {values['actDCF_0.01']:.3f} "
            f"(p=0.01) {values['actDCF_0.05']:.3f} (p=0.05)"
        )


def det(options):
    """Draws the DET curves of several score files in one figure."""
    systems = {}
    for path in options.scores:
        trials, scores = read_scores(path)
        # Files of several systems are often all called scores.txt.
        name = Path(path).stem if options.by == "file" else Path(path).parent.name
        if name in systems:
            raise InputError(
                f"two systems are called '{name}'; try --by "
                + ("folder" if options.by == "file" else "file")
            )
        systems[name] = trials.split_by_label(scores)
    for path in plot_det(options.output, systems):
        print(path)


def export(options):
    """Writes the best checkpoint of a training as a model folder."""
    cohort = None
    if options.cohort is not None:
        cohort = read_embeddings(options.cohort, options.utt2spk)
    elif options.utt2spk is not None:
        raise InputError("--utt2spk has no effect without --cohort; leave it out")
    folder = export_model(
        options.results,
        options.output,
        encoder=options.encoder,
        verification=options.verification,
        cohort=cohort,
        license=options.license,
        examples=options.examples,
        trust_source=options.trust_source,
    )
    print(folder)


def push(options):
    """Uploads a model folder to the Hugging Face hub."""
    print(push_model(options.folder, options.name, private=options.private))


def config(options):
    """Prints a YAML with all that it extends, overrides among it."""
    configuration = read_configuration([options.hparams, *options.rest], demo=False)
    configuration.check()
    print(configuration.text, end="")


def _parser():
    parser = argparse.ArgumentParser(prog="speechbrain-ext", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(name, run):
        command = commands.add_parser(
            name,
            help=run.__doc__,
            description=run.__doc__,
            epilog=EXAMPLES[name],
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        add_debug_option(command)
        return command

    def add_cohort(command, required):
        command.add_argument(
            "--cohort", required=required, help="embeddings of the training set"
        )
        command.add_argument("--utt2spk", help="speakers of a Kaldi cohort")
        command.add_argument(
            "--cohort_size", type=int, help="highest cohort scores that count"
        )

    command = add("score", score)
    command.add_argument("embeddings", help=".safetensors, .scp or .ark")
    command.add_argument("--trials", required=True, help="label enrol test")
    command.add_argument("--output", required=True, help="folder to write to")
    add_cohort(command, required=False)
    command.add_argument(
        "--enrolments", help="'model utterance utterance ...' lines; the trials' "
        "enrolment ids are models"
    )  # fmt: skip
    command.add_argument(
        "--average", choices=("embeddings", "scores"), default="embeddings",
        help="what is averaged over a model's utterances",
    )  # fmt: skip
    command.add_argument("--subtract_mean", action="store_true")
    command.add_argument("--score_norm", choices=KINDS)
    command.add_argument("--plda", action="store_true")
    command.add_argument("--lda_dim", type=int)

    command = add("norm", norm)
    command.add_argument("scores", help="score file")
    command.add_argument("--embeddings", required=True)
    command.add_argument("--score_norm", choices=KINDS, default="s-norm")
    command.add_argument("--output", required=True, help="score file to write")
    add_cohort(command, required=True)

    command = add("eval", evaluate)
    command.add_argument("scores", help="score file")
    command.add_argument("--threshold", type=float, help="for EER*")
    command.add_argument("--frr", type=float, nargs="*", default=[0.01, 0.05])
    command.add_argument("--output", help="JSON to write")

    command = add("calibrate", calibrate)
    command.add_argument("scores", help="score file")
    command.add_argument("--train", required=True, help="score file to train on")
    command.add_argument("--p_target", type=float, default=0.05)
    command.add_argument("--output", required=True, help="folder to write to")

    command = add("det", det)
    command.add_argument("scores", nargs="+", help="score files")
    command.add_argument("--output", required=True, help="path without extension")
    command.add_argument(
        "--by", choices=("file", "folder"), default="folder",
        help="what a system is called after",
    )  # fmt: skip

    command = add("export", export)
    command.add_argument("results", help="output_folder of a training")
    command.add_argument("output", help="folder to write")
    command.add_argument(
        "--encoder", choices=ENCODERS, default="weights",
        help="what the folder has of the encoder: its weights, or its name and "
        "revision on the hub",
    )  # fmt: skip
    command.add_argument(
        "--verification", help="output_folder of a verification, for its metrics, "
        "score normalisation and calibration; default: the training's test",
    )  # fmt: skip
    command.add_argument("--cohort", help="embeddings of the training set")
    command.add_argument("--utt2spk", help="speakers of a Kaldi cohort")
    command.add_argument(
        "--license", default="unknown", help="of the model, such as cc-by-4.0"
    )
    command.add_argument(
        "--examples", nargs="*", default=[], help="recordings to add to the folder"
    )
    command.add_argument(
        "--trust_source", action="store_true",
        help="hyperparams.yaml of the training may call anything, such as lobes of "
        "your own",
    )  # fmt: skip

    command = add("push", push)
    command.add_argument("folder", help="of speechbrain-ext export")
    command.add_argument("name", help="user/name on the Hugging Face hub")
    command.add_argument(
        "--private", action="store_true", help="a new model is seen by its owner only"
    )

    command = add("config", config)
    command.add_argument("hparams", help="YAML of hparams/, then --key=value")
    return parser


if __name__ == "__main__":
    main()
