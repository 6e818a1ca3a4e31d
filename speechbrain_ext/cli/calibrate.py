"""speechbrain-ext calibrate."""

from pathlib import Path

import click

from speechbrain_ext.cli.options import (
    PROBABILITY,
    Command,
    InputFile,
    as_json,
    show,
)

EXAMPLES = """
speechbrain-ext calibrate scores.txt --train development_scores.txt --output out
"""


@click.command(cls=Command, examples=EXAMPLES)
@click.argument("scores", type=InputFile())
@click.option(
    "--train", required=True, type=InputFile(), help="Score file to train on."
)
@click.option(
    "--p_target", type=PROBABILITY, default=0.05, show_default=True,
    help="Prior at which the calibration is to be best.",
)  # fmt: skip
@click.option("--output", required=True, help="Folder to write to.")
@as_json
def command(scores, train, p_target, output, as_json):
    """Calibrate the score file SCORES with another one."""
    from speechbrain_ext.dataio.scores import read_scores, write_scores
    from speechbrain_ext.inference.verification import calibration_metrics
    from speechbrain_ext.plots.detection import plot_calibration
    from speechbrain_ext.processing.calibration import Calibration
    from speechbrain_ext.utils.files import require_writable, write_json

    require_writable(Path(output) / "scores.txt")
    train_trials, train_scores = read_scores(train)
    trials, scores = read_scores(scores, need_labels=False)
    calibration = Calibration.fit(
        ["score"], train_scores.unsqueeze(1), train_trials.labels, p_target
    )
    ratios = calibration.apply(scores.unsqueeze(1))
    output = Path(output)
    calibration.save(output / "calibration.json")
    write_scores(output / "scores.txt", trials, ratios)
    if trials.labels is None:
        text = f"{len(trials)} trials without labels, so no error rates; see {output}"
        show(text, {"trials": len(trials), "folder": str(output)}, as_json)
        return
    metrics = {
        "uncalibrated": calibration_metrics(trials, scores),
        "calibrated": calibration_metrics(trials, ratios),
    }
    write_json(output / "metrics.json", metrics)
    plot_calibration(output / "calibration", *trials.split_by_label(ratios))
    lines = [
        f"{state}: Cllr {values['Cllr']:.4f}, minCllr "
        f"{values['minCllr']:.4f}, actDCF {values['actDCF_0.01']:.3f} "
        f"(p=0.01) {values['actDCF_0.05']:.3f} (p=0.05)"
        for state, values in metrics.items()
    ]
    show("\n".join(lines), metrics, as_json)
