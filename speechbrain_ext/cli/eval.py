"""speechbrain-ext eval."""

import json

import click

from speechbrain_ext.cli.options import (
    COST,
    PROBABILITY,
    RATE,
    Command,
    InputFile,
    Number,
    as_json,
    show,
)

EXAMPLES = """
speechbrain-ext eval scores.txt --frr 0.01 0.05 --output metrics.json
speechbrain-ext eval scores.txt --p_target 0.001 --c_miss 10
sort scores.txt | speechbrain-ext eval - --json
"""
# False rejection rates of the metrics that a file gets without --frr
DEFAULT_FRR = (0.01, 0.05)


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("scores", type=InputFile())
@click.option("--threshold", type=Number(), help="Threshold to evaluate, for EER*.")
@click.option(
    "--frr", type=RATE, multiple=True,
    help="False rejection rates at which to print the false acceptance rate.",
)  # fmt: skip
@click.option(
    "--p_target", type=PROBABILITY, help="Prior of a further minDCF and actDCF."
)
@click.option("--c_miss", type=COST, help="Its cost of a miss.")
@click.option("--c_fa", type=COST, help="Its cost of a false alarm.")
@click.option("--output", help="JSON to write; - prints it and nothing else.")
@as_json
def command(scores, threshold, frr, p_target, c_miss, c_fa, output, as_json):
    """Print the error rates of the score file SCORES."""
    from speechbrain_ext.dataio.scores import read_scores
    from speechbrain_ext.inference.verification import (
        calibration_metrics,
        summary,
        verification_metrics,
    )
    from speechbrain_ext.metrics.calibration import actDCF
    from speechbrain_ext.metrics.detection import DetectionCurve
    from speechbrain_ext.utils.files import write_json

    trials, scores = read_scores(scores)
    metrics = verification_metrics(trials, scores, threshold)
    metrics.update(calibration_metrics(trials, scores))
    target, nontarget = trials.split_by_label(scores)
    curve = DetectionCurve(target, nontarget)
    lines = [summary(metrics)]
    for rate in frr or DEFAULT_FRR:
        far = metrics[f"FAR_at_FRR_{rate:g}"] = curve.far_at_frr(rate)
        if frr:
            lines.append(f"FAR {100 * far:.2f} % at FRR {100 * rate:g} %")
    costs = {"p_target": p_target, "c_miss": c_miss, "c_fa": c_fa}
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
    if output == "-":
        print(json.dumps(metrics, indent=2))
        return
    if output is not None:
        write_json(output, metrics)
    show("\n".join(lines), metrics, as_json)
