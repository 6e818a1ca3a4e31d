"""The command speechbrain-ext: scoring of embeddings and scores of any toolkit."""

import argparse
import json
import math
from pathlib import Path

from speechbrain_ext.config import read_configuration
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.dataio.enrolments import match_models, read_enrolments
from speechbrain_ext.dataio.scores import read_scores, write_scores
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.inference.export import ENCODERS, export_model
from speechbrain_ext.inference.push import push_model
from speechbrain_ext.inference.verification import (
    calibration_metrics,
    report,
    summary,
    verification_metrics,
)
from speechbrain_ext.metrics.calibration import actDCF
from speechbrain_ext.metrics.detection import DetectionCurve
from speechbrain_ext.plots.detection import plot_calibration, plot_det
from speechbrain_ext.processing.backends import (
    AVERAGES,
    Backend,
    CosineBackend,
    PLDABackend,
)
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.processing.score_norm import KINDS
from speechbrain_ext.utils.errors import InputError, add_debug_option, one_line_errors
from speechbrain_ext.utils.files import write_json

EXAMPLES = {
    "score": """examples:
  speechbrain-ext score test.safetensors --trials trials.txt --output out
  speechbrain-ext score xvector.scp --trials trials.txt --output out \\
      --cohort train.scp --utt2spk train/utt2spk --score_norm s-norm --cohort_size 300
  speechbrain-ext score test.scp --trials trials.txt --output out \\
      --cohort train.scp --utt2spk train/utt2spk --plda --lda_dim 150
  speechbrain-ext score test.scp --trials trials.txt --output out \\
      --enrolments spk2utt --backend my_backend.yaml""",
    "norm": """example:
  speechbrain-ext norm scores.txt --embeddings test.scp --cohort train.scp \\
      --utt2spk train/utt2spk --cohort_size 300 --output normalized.txt""",
    "eval": """example:
  speechbrain-ext eval scores.txt --frr 0.01 0.05 --output metrics.json
  speechbrain-ext eval scores.txt --p_target 0.001 --c_miss 10""",
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

# False rejection rates of the metrics that a file gets without --frr
DEFAULT_FRR = (0.01, 0.05)

# Options of `score` for the arguments of the back ends
OPTION_OF = {
    "subtract_mean": "--subtract_mean",
    "score_norm": "--score_norm",
    "cohort_size": "--cohort_size",
    "unbiased_std": "--population_std",
    "unit_length_cohort": "--raw_cohort",
    "lda_dim": "--lda_dim",
    "adapt": "--adapt",
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
    if options.average is not None and options.enrolments is None:
        raise InputError("--average has no effect without --enrolments")
    backend = make_backend(options)
    cohort = read_cohort(options, backend)
    store = read_embeddings(options.embeddings)
    trials = compared = read_trials(options.trials, need_labels=False)
    average, enrolments, details = options.average or "embeddings", None, {}
    if options.enrolments is not None:
        enrolments = read_enrolments(options.enrolments)
        compared = match_models(trials, enrolments)
        details = {"enrolment_models": len(enrolments), "average": average}
    if cohort is not None:
        backend.fit(cohort)
    scores = backend.score(store, compared, enrolments, average)
    if trials.labels is None:
        write_unlabelled(Path(options.output) / "scores.txt", trials, scores)
        return
    details = {**backend.details(), **details}
    metrics = report(options.output, trials, scores, details=details)
    print(summary(metrics))


def write_unlabelled(path, trials, scores):
    """Writes the scores of trials without labels, of which there are no metrics."""
    write_scores(path, trials, scores)
    print(f"{len(trials)} trials without labels, so no error rates; see {path}")


def make_backend(options):
    """Makes the back end that the options of `score` describe.

    Arguments
    ---------
    options : argparse.Namespace
        Of the command line.

    Returns
    -------
    Backend
        Not trained yet.

    Raises
    ------
    InputError
        If options do not go together.
    """
    cosine = {
        "subtract_mean": options.subtract_mean or None,
        "score_norm": options.score_norm,
        "cohort_size": options.cohort_size,
        "unbiased_std": False if options.population_std else None,
        "unit_length_cohort": False if options.raw_cohort else None,
    }
    plda = {"lda_dim": options.lda_dim, "adapt": options.adapt or None}
    cosine = {name: value for name, value in cosine.items() if value is not None}
    plda = {name: value for name, value in plda.items() if value is not None}
    if options.backend is not None and (options.plda or cosine or plda):
        raise InputError(
            "--backend describes the back end whole; leave out "
            + ", ".join(OPTION_OF[name] for name in [*cosine, *plda])
            + ("--plda" if options.plda else "")
        )
    if options.plda and cosine:
        raise InputError(
            f"{', '.join(OPTION_OF[name] for name in cosine)} cannot go with --plda: "
            "they change cosine scores"
        )
    if plda and not options.plda:
        raise InputError(
            f"{', '.join(OPTION_OF[name] for name in plda)} has no effect without "
            "--plda"
        )
    if options.backend is not None:
        return read_backend(options.backend)
    return PLDABackend(**plda) if options.plda else CosineBackend(**cosine)


def read_backend(path):
    """Reads the back end of a YAML.

    Arguments
    ---------
    path : str or Path
        YAML with the key `backend`, and those that it refers to.

    Returns
    -------
    Backend
        Not trained yet.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> path = getfixture("tmpdir") / "backend.yaml"
    >>> path.write_text(
    ...     "backend: !new:speechbrain_ext.processing.backends.PLDABackend\\n"
    ...     "    lda_dim: 100\\n", "utf-8"
    ... )
    >>> read_backend(path).lda_dim
    100
    """
    configuration = read_configuration([str(path)], demo=False)
    backend = configuration.build(["backend"])["backend"]
    if not isinstance(backend, Backend):
        raise InputError(
            f"'{path}' has no back end; write backend: !new:package.module.Class, a "
            "subclass of speechbrain_ext.processing.backends.Backend"
        )
    return backend


def read_cohort(options, backend):
    """Reads the cohort, which must be there exactly where it is needed."""
    if options.cohort is None:
        if options.utt2spk is not None:
            raise InputError("--utt2spk has no effect without --cohort")
        if backend.needs_cohort:
            raise InputError(
                "--plda, --score_norm and --subtract_mean need --cohort, the "
                "embeddings of the training set"
            )
        return None
    if not backend.needs_cohort:
        raise InputError(
            "--cohort has no effect on plain cosine scores; give --plda, "
            "--score_norm or --subtract_mean, or leave it out"
        )
    return read_embeddings(options.cohort, options.utt2spk)


def norm(options):
    """Normalises the scores of a score file."""
    backend = CosineBackend(
        options.subtract_mean,
        options.score_norm,
        options.cohort_size,
        not options.population_std,
        not options.raw_cohort,
    )
    trials, scores = read_scores(options.scores, need_labels=False)
    backend.fit(read_cohort(options, backend))
    store = read_embeddings(options.embeddings)
    normalized = backend.normalize(scores, store, trials)
    if trials.labels is None:
        write_unlabelled(options.output, trials, normalized)
        return
    write_scores(options.output, trials, normalized)
    print(summary(verification_metrics(trials, normalized)))


def evaluate(options):
    """Prints the metrics of a score file."""
    trials, scores = read_scores(options.scores)
    metrics = verification_metrics(trials, scores, options.threshold)
    metrics.update(calibration_metrics(trials, scores))
    target, nontarget = trials.split_by_label(scores)
    curve = DetectionCurve(target, nontarget)
    lines = [summary(metrics)]
    for frr in DEFAULT_FRR if options.frr is None else options.frr:
        far = metrics[f"FAR_at_FRR_{frr:g}"] = curve.far_at_frr(frr)
        if options.frr is not None:
            lines.append(f"FAR {100 * far:.2f} % at FRR {100 * frr:g} %")
    costs = {"p_target": options.p_target, "c_miss": options.c_miss,
             "c_fa": options.c_fa}  # fmt: skip
    costs = {name: value for name, value in costs.items() if value is not None}
    if costs:
        costs = {"p_target": 0.01, "c_miss": 1.0, "c_fa": 1.0, **costs}
        metrics["cost"] = {
            **costs,
            "minDCF": curve.normalized_min_dcf(**costs),
            "actDCF": actDCF(target, nontarget, **costs),
        }
        point = ", ".join(f"{name}={value:g}" for name, value in costs.items())
        lines.append(
            f"minDCF {metrics['cost']['minDCF']:.3f}, actDCF "
            f"{metrics['cost']['actDCF']:.3f} ({point})"
        )
    if options.output == "-":
        print(json.dumps(metrics, indent=2))
        return
    if options.output is not None:
        write_json(options.output, metrics)
    print("\n".join(lines))


def calibrate(options):
    """Calibrates a score file with another one."""
    train_trials, train_scores = read_scores(options.train)
    trials, scores = read_scores(options.scores, need_labels=False)
    calibration = Calibration.fit(
        ["score"], train_scores.unsqueeze(1), train_trials.labels, options.p_target
    )
    ratios = calibration.apply(scores.unsqueeze(1))
    output = Path(options.output)
    calibration.save(output / "calibration.json")
    if trials.labels is None:
        write_unlabelled(output / "scores.txt", trials, ratios)
        return
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
    output = Path(options.output)
    if output.suffix in (".png", ".pdf"):
        output = output.with_suffix("")
    for path in plot_det(output, systems):
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


def number(least, most, with_ends=True):
    """A type of argparse: a finite number within limits.

    Arguments
    ---------
    least : float
        Lower limit.
    most : float
        Upper limit.
    with_ends : bool
        Whether the limits themselves are right.

    Returns
    -------
    callable
        From text to the number.

    Example
    -------
    >>> number(0, 1)("0.05")
    0.05
    """

    def parse(text):
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        inside = least <= value <= most and math.isfinite(value)
        if not inside or (not with_ends and value in (least, most)):
            limits = "" if math.isinf(most - least) else f" from {least} to {most}"
            if not with_ends:
                limits = f" above {least}" + (
                    "" if math.isinf(most) else f" and below {most}"
                )
            raise argparse.ArgumentTypeError(f"'{text}': give a number{limits}")
        return value

    return parse


def lda_dimension(text):
    """A type of argparse: a whole number, or "auto"."""
    try:
        return text if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"'{text}': give a whole number or auto"
        ) from None


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
            "--cohort_size", type=int,
            help="highest cohort scores that count, for AS-norm; default: all",
        )  # fmt: skip
        command.add_argument(
            "--subtract_mean", action="store_true",
            help="subtract the cohort's mean from all embeddings",
        )  # fmt: skip
        command.add_argument(
            "--population_std", action="store_true",
            help="variance of cohort scores over n, as WeSpeaker's, not n - 1",
        )  # fmt: skip
        command.add_argument(
            "--raw_cohort", action="store_true",
            help="speakers' means of raw embeddings, as WeSpeaker's, not of "
            "unit-length ones",
        )  # fmt: skip

    command = add("score", score)
    command.add_argument("embeddings", help=".safetensors, .npz, .scp or .ark")
    command.add_argument(
        "--trials",
        required=True,
        help="label enrol test; or enrol test, to have scores alone",
    )
    command.add_argument("--output", required=True, help="folder to write to")
    add_cohort(command, required=False)
    command.add_argument(
        "--enrolments", help="'model utterance utterance ...' lines; the trials' "
        "enrolment ids are models"
    )  # fmt: skip
    command.add_argument(
        "--average", choices=AVERAGES,
        help="what is averaged over a model's utterances; default: embeddings, in "
        "the space of the back end",
    )  # fmt: skip
    command.add_argument(
        "--score_norm", choices=KINDS, help="normalisation of cosine scores"
    )
    command.add_argument(
        "--plda", action="store_true", help="PLDA trained on the cohort, not cosine"
    )
    command.add_argument(
        "--lda_dim", type=lda_dimension,
        help="dimension after LDA, a number or auto; default: no LDA",
    )  # fmt: skip
    command.add_argument(
        "--adapt", action="store_true",
        help="adapt PLDA to the embeddings that are scored",
    )  # fmt: skip
    command.add_argument(
        "--backend", metavar="YAML", help="file with the key backend, for any other "
        "back end: backend: !new:package.module.Class",
    )  # fmt: skip

    command = add("norm", norm)
    command.add_argument("scores", help="score file")
    command.add_argument(
        "--embeddings",
        required=True,
        help="of the trials; .safetensors, .npz, .scp or .ark",
    )
    command.add_argument(
        "--score_norm", choices=KINDS, default="s-norm", help="default: s-norm"
    )
    command.add_argument("--output", required=True, help="score file to write")
    add_cohort(command, required=True)

    rate = number(0, 1)
    prior = number(0, 1, with_ends=False)
    cost = number(0, math.inf, with_ends=False)
    command = add("eval", evaluate)
    command.add_argument("scores", help="score file")
    command.add_argument(
        "--threshold", type=number(-math.inf, math.inf), help="for EER*"
    )
    command.add_argument(
        "--frr", type=rate, nargs="+",
        help="false rejection rates at which to print the false acceptance rate",
    )  # fmt: skip
    command.add_argument(
        "--p_target", type=prior, help="prior of a further minDCF and actDCF"
    )
    command.add_argument("--c_miss", type=cost, help="its cost of a miss")
    command.add_argument("--c_fa", type=cost, help="its cost of a false alarm")
    command.add_argument("--output", help="JSON to write; - prints it and nothing else")

    command = add("calibrate", calibrate)
    command.add_argument("scores", help="score file")
    command.add_argument("--train", required=True, help="score file to train on")
    command.add_argument(
        "--p_target", type=prior, default=0.05,
        help="prior at which the calibration is to be best; default: 0.05",
    )  # fmt: skip
    command.add_argument("--output", required=True, help="folder to write to")

    command = add("det", det)
    command.add_argument("scores", nargs="+", help="score files")
    command.add_argument(
        "--output", required=True, help="path of the figure, written as PNG and PDF"
    )
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
