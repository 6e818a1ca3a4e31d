"""Score normalisation against SpeechBrain's loop over the trials."""

import importlib
from pathlib import Path

import pytest
import torch

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.processing.score_norm import (
    cohort_statistics,
    normalize_scores,
    speaker_means,
)
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.errors import InputError

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def benchmark():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(BENCHMARKS)
        yield importlib.import_module("score_norm")


@pytest.fixture
def case():
    torch.manual_seed(0)
    embeddings = {f"s{i % 5}/{i}": torch.randn(16) + 0.3 for i in range(20)}
    names = list(embeddings)
    pairs = [(a, b) for a in names[:8] for b in names[8:]]
    labels = [int(a[:2] == b[:2]) for a, b in pairs]
    trials = Trials(labels, *map(list, zip(*pairs)))
    return embeddings, trials, torch.randn(50, 16) + 0.3


@pytest.mark.parametrize("kind", ["z-norm", "t-norm", "s-norm"])
@pytest.mark.parametrize("cohort_size", [None, 7])
def test_same_numbers_as_the_loop_over_trials(benchmark, case, kind, cohort_size):
    embeddings, trials, cohort = case
    ours = normalize_scores(
        cosine_scores(embeddings, trials),
        trials,
        embeddings,
        cohort,
        kind,
        cohort_size,
    )
    theirs = benchmark.loop_over_trials(embeddings, trials, cohort, kind, cohort_size)
    assert (ours - theirs).abs().max() <= 1e-5


@pytest.mark.parametrize("n_threads", [2, 5])
def test_threads_change_no_number(case, n_threads):
    embeddings, _, cohort = case
    matrix = torch.stack(list(embeddings.values()))[:3]
    expected = cohort_statistics(matrix, cohort, 7)
    before = torch.get_num_threads()
    torch.set_num_threads(n_threads)
    try:
        threaded = cohort_statistics(matrix, cohort, 7)
    finally:
        torch.set_num_threads(before)
    for ours, theirs in zip(threaded, expected):
        torch.testing.assert_close(ours, theirs)


def test_speaker_means_average_directions():
    embeddings = {
        "a/1": torch.tensor([3.0, 0.0]),
        "a/2": torch.tensor([0.0, 1.0]),
        "b/1": torch.tensor([0.0, -2.0]),
    }
    means = speaker_means(embeddings, {n: n[0] for n in embeddings})
    assert means.tolist() == [[0.5, 0.5], [0.0, -1.0]]


def test_bad_cohorts(case):
    embeddings, trials, cohort = case
    scores = cosine_scores(embeddings, trials)
    with pytest.raises(InputError, match="cohort_size=51, .* 50 members"):
        normalize_scores(scores, trials, embeddings, cohort, "s-norm", 51)
    with pytest.raises(InputError, match="score_norm 'a-norm'"):
        normalize_scores(scores, trials, embeddings, cohort, "a-norm")
    with pytest.raises(InputError, match="two or more"):
        cohort_statistics(torch.randn(2, 16), cohort[:1])
    same = torch.ones(5, 16)
    with pytest.raises(InputError, match="3 utterances have the same score"):
        cohort_statistics(torch.randn(3, 16), same)


def test_bad_embeddings_are_all_counted(case):
    embeddings, trials, _ = case
    first, second = trials.enrol[0], trials.test[0]
    missing = {n: e for n, e in embeddings.items() if n not in (first, second)}
    with pytest.raises(InputError, match="2 utterances .* no embedding"):
        cosine_scores(missing, trials)
    bad = {**embeddings, first: torch.zeros(16), second: torch.full((16,), torch.nan)}
    with pytest.raises(InputError, match="2 utterances .* NaN, infinite or zero"):
        cosine_scores(bad, trials)
