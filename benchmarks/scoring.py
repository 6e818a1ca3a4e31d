"""Times the scoring of all pairs of a test set, and what it ends with.

    python benchmarks/scoring.py [--n_utterances 2500] [--json scoring.json]

All pairs are scored, and EER and minDCF read off one curve. Beside the seconds
stand those of the processor, which other work on the machine changes little,
and the floor: the FLOP of the cosines over the rate of a small matrix product
in this run.
"""

import argparse
import json
import statistics
import time

import torch

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.metrics.detection import DetectionCurve
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.precision import matrix_rate

REPEATS = 3
DIM, N_SPEAKERS = 192, 40


def draw_case(n_utterances):
    """Embeddings of speakers, and all pairs of utterances."""
    generator = torch.Generator().manual_seed(0)
    speakers = torch.randn(N_SPEAKERS, DIM, generator=generator)
    own = torch.randn(n_utterances, DIM, generator=generator)
    speaker_of = torch.arange(n_utterances) % N_SPEAKERS
    names = [f"utterance{i:06}" for i in range(n_utterances)]
    enrol, test = torch.triu_indices(n_utterances, n_utterances, 1)
    labels = (speaker_of[enrol] == speaker_of[test]).int()
    trials = Trials(
        labels.tolist(),
        [names[i] for i in enrol.tolist()],
        [names[i] for i in test.tolist()],
    )
    return dict(zip(names, speakers[speaker_of] + 2 * own)), trials, labels.bool()


def timed(function, *arguments):
    """Median seconds by the clock and of the processor, and the result."""
    times = []
    for _ in range(REPEATS):
        starts = time.perf_counter(), time.process_time()
        result = function(*arguments)
        ends = time.perf_counter(), time.process_time()
        times.append([end - start for start, end in zip(starts, ends)])
    return *map(statistics.median, zip(*times)), result


def evaluate(scores, is_target):
    """EER and minDCF off one curve."""
    curve = DetectionCurve(scores[is_target], scores[~is_target])
    return curve.eer()[0], curve.min_dcf()[0]


def main():
    """Prints a Markdown table, and writes JSON where asked to."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n_utterances", type=int, default=2500)
    parser.add_argument("--json", help="file to write")
    arguments = parser.parse_args()
    embeddings, trials, is_target = draw_case(arguments.n_utterances)
    floor = 2 * DIM * len(trials) / matrix_rate(torch.float32)
    score_wall, score_cpu, scores = timed(cosine_scores, embeddings, trials)
    metrics_wall, metrics_cpu, (eer, _) = timed(evaluate, scores, is_target)
    rows = [
        {"job": "cosine scores", "seconds": score_wall, "cpu_seconds": score_cpu,
         "of_floor": floor / score_cpu},
        {"job": "EER and minDCF", "seconds": metrics_wall,
         "cpu_seconds": metrics_cpu, "of_floor": None},
    ]  # fmt: skip
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, "
          f"{len(trials):,} pairs, median of {REPEATS}, "
          f"EER {100 * eer:.2f} %\n")  # fmt: skip
    print("| job | seconds | of the processor | of the floor |\n|---|---|---|---|")
    for row in rows:
        share = "-" if row["of_floor"] is None else f"{100 * row['of_floor']:.2f} %"
        print(f"| {row['job']} | {row['seconds']:.2f} | {row['cpu_seconds']:.2f} "
              f"| {share} |")  # fmt: skip
    if arguments.json:
        with open(arguments.json, "w", encoding="utf-8") as file:
            json.dump({"n_pairs": len(trials), "rows": rows}, file, indent=2)


if __name__ == "__main__":
    main()
