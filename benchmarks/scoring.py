"""Times the scoring and evaluation of all pairs of a test set.

    python benchmarks/scoring.py [--n_utterances 2500]

All pairs are scored, and EER and minDCF read off one curve. The plain loop compares
the first of the pairs one by one, as SpeechBrain's recipe does; the ratio is of the
times of a pair. The floor is the matrix product of the cosines, in float64.
"""

import torch
from measure import alternate, measure_floors, ratio, read_options, report

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.metrics.detection import DetectionCurve
from speechbrain_ext.processing.scoring import cosine_scores

DIM, N_SPEAKERS, N_LOOP = 192, 40, 2000


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
    return dict(zip(names, speakers[speaker_of] + 2 * own)), trials


def loop_over_trials(embeddings, trials):
    """Cosines, trial by trial."""
    similarity = torch.nn.CosineSimilarity(dim=-1, eps=1e-6)
    return torch.stack(
        [
            similarity(embeddings[enrol], embeddings[test])
            for enrol, test in zip(trials.enrol, trials.test)
        ]
    )


def evaluate(trials, scores):
    """EER and minDCF off one curve."""
    curve = DetectionCurve(*trials.split_by_label(scores))
    return curve.eer()[0], curve.min_dcf()[0]


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=3, n_utterances=2500)
    embeddings, trials = draw_case(60 if options.tiny else options.n_utterances)
    floors = measure_floors(dtype=torch.float64, tiny=options.tiny)
    few = Trials(None, trials.enrol[:N_LOOP], trials.test[:N_LOOP])
    scores = cosine_scores(embeddings, trials)
    times = alternate(
        {
            "loop": lambda: loop_over_trials(embeddings, few),
            "cosine scores": lambda: cosine_scores(embeddings, trials),
            "EER and minDCF": lambda: evaluate(trials, scores),
            "both": lambda: evaluate(trials, cosine_scores(embeddings, trials)),
        },
        options.repeats,
    )
    if not torch.allclose(times["loop"].result.double(), scores[:N_LOOP], atol=1e-5):
        raise SystemExit("the scores differ from those of the loop")
    whole = times["loop"].times(len(trials) / len(few))
    floor = floors.seconds(2 * DIM * len(embeddings) ** 2)
    rows = [
        {
            "job": "cosine scores, loop over the trials (of a part)",
            "seconds": whole.seconds(),
            "ratio": ratio(whole, times["cosine scores"]),
        }
    ]
    for job in ("cosine scores", "EER and minDCF", "both"):
        seconds = times[job].seconds()
        row = {"job": job, "seconds": seconds}
        if job == "cosine scores":
            row["of_floor"] = floor / seconds
        rows.append(row)
    report("scoring", rows, options, floors, pairs=len(trials),
           utterances=len(embeddings))  # fmt: skip


if __name__ == "__main__":
    main()
