"""Times EER and minDCF against SpeechBrain's, on the same scores in one run.

    python benchmarks/metrics.py

SpeechBrain's minDCF needs a matrix of trials x thresholds, 8 GiB for 40,000
trials; at 600,000 it is left out.
"""

import statistics
import time

import torch
from speechbrain.utils import metric_stats

from speechbrain_ext.metrics import detection as metrics

REPEATS = 3


def draw_scores(n_trials):
    """Scores of a system with an EER near 7 %."""
    generator = torch.Generator().manual_seed(0)
    half = n_trials // 2
    return (
        torch.randn(half, generator=generator) + 3,
        torch.randn(half, generator=generator),
    )


def median_seconds(function, *scores):
    """Median time and the result."""
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        result = function(*scores)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def main():
    """Prints a Markdown table."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"median of {REPEATS}\n")  # fmt: skip
    print("| metric | trials | SpeechBrain (s) | here (s) | ratio |")
    print("|---|---|---|---|---|")
    for name, n_trials, has_rival in (
        ("EER", 40_000, True),
        ("minDCF", 40_000, True),
        ("EER", 600_000, False),
        ("minDCF", 600_000, False),
    ):
        scores = draw_scores(n_trials)
        ours, result = median_seconds(getattr(metrics, name), *scores)
        if has_rival:
            theirs, expected = median_seconds(getattr(metric_stats, name), *scores)
            if result != expected:
                raise SystemExit(f"{name} differs: {result}, {expected}")
            rival = f"{theirs:.3f} | {ours:.4f} | {theirs / ours:.0f}"
        else:
            # (2 thresholds a trial) x (half of the trials), float32 and bool
            gib = 5 * n_trials**2 / 2**30
            reason = f"needs about {gib:,.0f} GiB" if name == "minDCF" else "not run"
            rival = f"{reason} | {ours:.4f} | -"
        print(f"| {name} | {n_trials:,} | {rival} |", flush=True)


if __name__ == "__main__":
    main()
