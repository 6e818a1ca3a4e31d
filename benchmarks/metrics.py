"""Times EER and minDCF against SpeechBrain's, on the same scores in one run.

    python benchmarks/metrics.py

SpeechBrain loops over the thresholds and keeps a matrix of trials by thresholds, 8 GiB
for 40,000 trials; at 600,000 it would be 1.7 TiB, and only our time is taken. The floor
is to read each score and to write it once.
"""

import torch
from measure import alternate, measure_floors, ratio, read_options, report
from speechbrain.utils import metric_stats

from speechbrain_ext.metrics import detection


def draw_scores(n_trials, dtype):
    """Scores of a system with an EER near 7 %."""
    generator = torch.Generator().manual_seed(0)
    target, nontarget = torch.randn(
        2, n_trials // 2, generator=generator, dtype=torch.float64
    )
    return (target + 3).to(dtype), nontarget.to(dtype)


def both_of_one_curve(target, nontarget):
    """EER and minDCF off one sort."""
    curve = detection.DetectionCurve(target, nontarget)
    return curve.eer(), curve.min_dcf()


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=3, few=40_000, many=600_000)
    few, many = (400, 1000) if options.tiny else (options.few, options.many)
    floors = measure_floors(tiny=options.tiny)
    rows = []
    # SpeechBrain's functions need float32, and change them.
    scores = draw_scores(few, torch.float32)
    for name in ("EER", "minDCF"):
        jobs = {
            "SpeechBrain": lambda: getattr(metric_stats, name)(
                *(part.clone() for part in scores)
            ),
            "here": lambda: getattr(detection, name)(*scores),
        }
        times = alternate(jobs, options.repeats)
        theirs, ours = times["SpeechBrain"], times["here"]
        if theirs.result != ours.result:
            raise SystemExit(f"{name} differs: {theirs.result}, {ours.result}")
        rows.append(
            {
                "metric": name,
                "trials": few,
                "SpeechBrain (s)": theirs.seconds(),
                "here (s)": ours.seconds(),
                "ratio": ratio(theirs, ours),
                "of_floor": floors.seconds(moved_bytes=2 * 4 * few) / ours.seconds(),
            }
        )
    for dtype in (torch.float32, torch.float64):
        scores = draw_scores(many, dtype)
        job = {"here": lambda: both_of_one_curve(*scores)}
        ours = alternate(job, options.repeats)["here"]
        moved = 2 * dtype.itemsize * many
        rows.append(
            {
                "metric": f"EER and minDCF, {str(dtype).removeprefix('torch.')}",
                "trials": many,
                "here (s)": ours.seconds(),
                "of_floor": floors.seconds(moved_bytes=moved) / ours.seconds(),
            }
        )
    report("metrics", rows, options, floors)


if __name__ == "__main__":
    main()
