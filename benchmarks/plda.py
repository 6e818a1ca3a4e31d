"""Times PLDA against SpeechBrain's, training and scoring, in one run.

    python benchmarks/plda.py

Both are trained with ten iterations on the same utterances, and score all pairs of two
sets of utterances with the covariances of ours. SpeechBrain scores all pairs in any
case; ours scores the listed ones. The floors are the operations of the scatter matrices
of the training and of one product of all pairs, in float64.
"""

import copy

import numpy as np
import torch
from measure import alternate, measure_floors, ratio, read_options, report
from speechbrain.processing import PLDA_LDA

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.plda import PLDA

N_ITERATIONS = 10


def statistics_of(names, models, matrix):
    """SpeechBrain's container of embeddings."""
    nothing = np.array([None] * len(names))
    return PLDA_LDA.StatObject_SB(
        modelset=np.array(models, dtype="|O"),
        segset=np.array(names, dtype="|O"),
        start=nothing,
        stop=nothing,
        stat0=np.ones((len(names), 1)),
        stat1=matrix,
    )


def main():
    """Measures and reports."""
    options = read_options(
        __doc__, repeats=3, n_speakers=500, dim=128, n_enrol=500, n_test=500
    )
    if options.tiny:
        options.n_speakers, options.dim = 20, 8
        options.n_enrol = options.n_test = 10
    dim = options.dim
    rng = np.random.default_rng(0)
    speakers = np.repeat(np.arange(options.n_speakers), 10)
    x = rng.normal(size=(options.n_speakers, dim))[speakers]
    x = x + 0.7 * rng.normal(size=x.shape)
    names = [f"utterance{i:06}" for i in range(len(x))]
    ours = PLDA.fit(torch.tensor(x), speakers.tolist(), n_iterations=N_ITERATIONS)
    training = statistics_of(names, [f"speaker{s:05}" for s in speakers], x)

    def train_theirs():
        plda = PLDA_LDA.PLDA(rank_f=dim, nb_iter=N_ITERATIONS)
        plda.plda(copy.deepcopy(training))
        return plda

    enrol, test = names[: options.n_enrol], names[-options.n_test :]
    z = ours.transform(torch.tensor(x)).numpy()
    sides = [
        statistics_of(part, part, z[[names.index(n) for n in part]])
        for part in (enrol, test)
    ]
    ndx = PLDA_LDA.Ndx(models=np.array(enrol, "|O"), testsegs=np.array(test, "|O"))
    pairs = [(a, b) for a in enrol for b in test]
    trials = Trials(None, *map(list, zip(*pairs)))
    embeddings = dict(zip(names, torch.tensor(x)))
    jobs = {
        "training": {
            "SpeechBrain": train_theirs,
            "here": lambda: PLDA.fit(
                torch.tensor(x), speakers.tolist(), n_iterations=N_ITERATIONS
            ),
        },
        "all pairs": {
            "SpeechBrain": lambda: (
                PLDA_LDA.fast_PLDA_scoring(
                    *sides,
                    ndx,
                    np.zeros(dim),
                    np.diag(np.sqrt(ours.between)),
                    np.eye(dim),
                ).scoremat
            ),
            "here": lambda: ours.score(embeddings, trials),
        },
    }
    floors = measure_floors(dtype=torch.float64, tiny=options.tiny)
    flop = {
        "training": 2 * len(x) * dim**2,
        "all pairs": 2 * len(enrol) * len(test) * dim,
    }
    rows = []
    for job, both in jobs.items():
        times = alternate(both, options.repeats)
        theirs, mine = times["SpeechBrain"], times["here"]
        if job == "all pairs" and not np.allclose(
            theirs.result.ravel(), mine.result.numpy(), atol=1e-6
        ):
            raise SystemExit("the scores differ from SpeechBrain's")
        rows.append(
            {
                "job": job,
                "SpeechBrain (s)": theirs.seconds(),
                "here (s)": mine.seconds(),
                "ratio": ratio(theirs, mine),
                "of_floor": floors.seconds(flop[job]) / mine.seconds(),
            }
        )
    report("plda", rows, options, floors, utterances=len(x), dimensions=dim,
           trials=len(trials))  # fmt: skip


if __name__ == "__main__":
    main()
