"""Times adaptive s-norm against a loop over trials, on the same embeddings.

    python benchmarks/score_norm.py

The loop does what `get_verification_scores` in SpeechBrain's VoxCeleb recipe
does: for each trial it repeats both embeddings to the cohort's size and
compares them with the whole cohort. It is timed on 200 trials. Then 600,000
trials over 150,000 utterances, the size of VoxCeleb1-E and -H, in one go.
"""

import resource
import statistics
import time

import torch

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.score_norm import normalize_scores
from speechbrain_ext.processing.scoring import cosine_scores

REPEATS = 3
DIM, N_COHORT, COHORT_SIZE = 192, 6000, 300


def loop_over_trials(embeddings, trials, cohort, kind, cohort_size):
    """Normalised scores, trial by trial."""
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)

    def statistics_of(embedding):
        scores = similarity(embedding.repeat(len(cohort), 1), cohort)
        if cohort_size is not None:
            scores = torch.topk(scores, k=cohort_size, dim=0).values
        return scores.mean(), scores.std()

    normalized = []
    for enrol, test in zip(trials.enrol, trials.test):
        enrol, test = embeddings[enrol], embeddings[test]
        score = similarity(enrol, test)
        enrol_mean, enrol_std = statistics_of(enrol)
        test_mean, test_std = statistics_of(test)
        by_enrol = (score - enrol_mean) / enrol_std
        by_test = (score - test_mean) / test_std
        normalized.append(
            {
                "z-norm": by_enrol,
                "t-norm": by_test,
                "s-norm": 0.5 * (by_enrol + by_test),
            }[kind]
        )
    return torch.stack(normalized)


def draw_case(n_utterances, n_trials):
    """Random embeddings and trials, in which every utterance occurs."""
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(n_utterances, DIM, generator=generator)
    names = [f"utterance{i}" for i in range(n_utterances)]
    enrol = [names[i % n_utterances] for i in range(n_trials)]
    shift = torch.randint(1, n_utterances, (n_trials,), generator=generator)
    test = [names[(i + s) % n_utterances] for i, s in enumerate(shift.tolist())]
    labels = [i % 2 for i in range(n_trials)]
    return dict(zip(names, matrix)), Trials(labels, enrol, test)


def ours(embeddings, trials, cohort):
    """AS-norm of this project."""
    scores = cosine_scores(embeddings, trials)
    return normalize_scores(scores, trials, embeddings, cohort, "s-norm", COHORT_SIZE)


def seconds(function, *arguments):
    """Median time."""
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        function(*arguments)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main():
    """Prints a Markdown table."""
    generator = torch.Generator().manual_seed(1)
    cohort = torch.randn(N_COHORT, DIM, generator=generator)
    few = draw_case(200, 200)
    many = draw_case(150_000, 600_000)
    loop = seconds(loop_over_trials, *few, cohort, "s-norm", COHORT_SIZE) / 200
    whole = seconds(ours, *many, cohort)
    each = whole / 600_000
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(f"{torch.get_num_threads()} threads, cohort of {N_COHORT}, "
          f"top {COHORT_SIZE}, median of {REPEATS}\n")  # fmt: skip
    print("| | trials | seconds | ms a trial | ratio |")
    print("|---|---|---|---|---|")
    print(f"| loop over trials | 200 | {200 * loop:.2f} | {1e3 * loop:.3f} | 1 |")
    print(f"| here | 600,000 | {whole:.1f} | {1e3 * each:.4f} | {loop / each:.0f} |")
    print(f"\npeak memory {peak:.1f} GiB")


if __name__ == "__main__":
    main()
