"""Times adaptive s-norm against a loop over trials, on the same embeddings.

    python benchmarks/score_norm.py

The loop does what `get_verification_scores` in SpeechBrain's VoxCeleb recipe
does: for each trial it repeats both embeddings to the cohort's size and
compares them with the whole cohort. It is timed on 200 trials. Then 600,000
trials over 150,000 utterances, the size of VoxCeleb1-E and -H, in one go. The floor is
the product of all utterances with the cohort.
"""

import torch
from measure import alternate, measure_floors, peak_bytes, ratio, read_options, report

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.score_norm import normalize_scores
from speechbrain_ext.processing.scoring import cosine_scores

DIM, N_COHORT, COHORT_SIZE, N_LOOP = 192, 6000, 300, 200


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


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=3, n_utterances=150_000, n_trials=600_000)
    n_utterances, n_trials, n_cohort, n_loop = (
        (300, 1200, 400, 20)
        if options.tiny
        else (options.n_utterances, options.n_trials, N_COHORT, N_LOOP)
    )
    floors = measure_floors(tiny=options.tiny)
    generator = torch.Generator().manual_seed(1)
    cohort = torch.randn(n_cohort, DIM, generator=generator)
    few = draw_case(n_loop, n_loop)
    many = draw_case(n_utterances, n_trials)
    times = alternate(
        {
            "loop": lambda: loop_over_trials(*few, cohort, "s-norm", COHORT_SIZE),
            "here": lambda: ours(*many, cohort),
        },
        options.repeats,
    )
    loop, here = times["loop"], times["here"]
    if not torch.allclose(ours(*few, cohort), loop.result.double(), atol=1e-4):
        raise SystemExit("the scores differ from those of the loop")
    flop = 2 * DIM * n_cohort * n_utterances
    rows = [
        {
            "job": "loop over the trials",
            "trials": n_loop,
            "seconds": loop.seconds(),
            "ms a trial": 1e3 * loop.seconds() / n_loop,
        },
        {
            "job": "here",
            "trials": n_trials,
            "seconds": here.seconds(),
            "ms a trial": 1e3 * here.seconds() / n_trials,
            "ratio a trial": ratio(loop.times(n_trials / n_loop), here),
            "of_floor": floors.seconds(flop) / here.seconds(),
            "peak_bytes": peak_bytes(lambda: ours(*many, cohort)),
        },
    ]
    report("score_norm", rows, options, floors, utterances=n_utterances,
           cohort=n_cohort, highest=COHORT_SIZE)  # fmt: skip


if __name__ == "__main__":
    main()
