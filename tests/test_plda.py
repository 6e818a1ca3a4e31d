"""PLDA against a closed form, simulated data and SpeechBrain's scoring."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from speechbrain.processing.PLDA_LDA import (
    Ndx,
    StatObject_SB,
    fast_PLDA_scoring,
)

from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.metrics.detection import EER
from speechbrain_ext.processing.plda import PLDA, _two_covariances
from speechbrain_ext.utils.errors import InputError


def simulate(n_speakers, n_utterances, between, within, seed=0):
    rng = np.random.default_rng(seed)
    dim = len(between)
    speakers = np.repeat(np.arange(n_speakers), n_utterances)
    y = rng.multivariate_normal(np.zeros(dim), between, n_speakers)
    e = rng.multivariate_normal(np.zeros(dim), within, len(speakers))
    return y[speakers] + e, speakers


BETWEEN = np.array([[2.0, 0.5, 0.0], [0.5, 1.0, 0.2], [0.0, 0.2, 0.3]])
WITHIN = np.array([[1.0, -0.3, 0.1], [-0.3, 0.8, 0.0], [0.1, 0.0, 0.5]])


@pytest.fixture
def trained():
    x, speakers = simulate(200, 5, BETWEEN, WITHIN)
    return PLDA.fit(torch.tensor(x), speakers.tolist()), torch.tensor(x)


def test_expectation_maximisation_recovers_the_covariances():
    rng = np.random.default_rng(1)
    x, speakers = simulate(4000, 6, BETWEEN, WITHIN)
    # Unequal numbers of utterances
    kept = (np.arange(len(x)) % 6 < 2) | (rng.random(len(x)) < 0.5)
    x, speakers = x[kept], speakers[kept]
    between, within = _two_covariances(x - x.mean(axis=0), speakers, 50)
    np.testing.assert_allclose(between, BETWEEN, atol=0.12)
    np.testing.assert_allclose(within, WITHIN, atol=0.04)


@pytest.mark.parametrize("n_enrol", [1, 3])
def test_scores_are_the_ratio_of_two_gaussians(trained, n_enrol):
    plda, x = trained
    enrol, test = plda.transform(x[:20]), plda.transform(x[20:40])
    ours = plda.log_ratios(enrol, test, n_enrol)
    for i in range(20):
        expected = 0.0
        for d, b in enumerate(plda.between):
            # The mean of n utterances varies by b + 1 / n.
            same = [[b + 1 / n_enrol, b], [b, b + 1]]
            different = np.diag([b + 1 / n_enrol, b + 1])
            pair = [enrol[i, d], test[i, d]]
            expected += multivariate_normal.logpdf(pair, cov=same)
            expected -= multivariate_normal.logpdf(pair, cov=different)
        assert ours[i].item() == pytest.approx(expected, abs=1e-8)


def test_same_scores_as_speechbrain(trained):
    plda, x = trained
    z = plda.transform(x[:12]).numpy()
    names = np.array([f"utterance{i:02d}" for i in range(12)], dtype="|O")

    def stat_object(rows):
        return StatObject_SB(
            modelset=names[rows],
            segset=names[rows],
            start=np.array([None] * len(rows)),
            stop=np.array([None] * len(rows)),
            stat0=np.ones((len(rows), 1)),
            stat1=z[rows],
        )

    enrol, test = np.arange(6), np.arange(6, 12)
    theirs = fast_PLDA_scoring(
        stat_object(enrol),
        stat_object(test),
        Ndx(models=names[enrol], testsegs=names[test]),
        np.zeros(z.shape[1]),
        np.diag(np.sqrt(plda.between)),
        np.eye(z.shape[1]),
    )
    pairs = [(i, j) for i in range(6) for j in range(6)]
    embeddings = dict(zip(names.tolist(), x[:12]))
    trials = Trials(
        [1] * 36,
        [names[enrol[i]] for i, _ in pairs],
        [names[test[j]] for _, j in pairs],
    )
    ours = plda.score(embeddings, trials).reshape(6, 6).numpy()
    np.testing.assert_allclose(ours, theirs.scoremat, atol=1e-6)


def test_names_that_contain_each_other_are_kept_apart(trained):
    plda, x = trained
    embeddings = {"id1": x[0], "id10": x[50], "t": x[1]}
    both = plda.score(embeddings, Trials([1, 0], ["id1", "id10"], ["t", "t"]))
    alone = plda.score(embeddings, Trials([1], ["id1"], ["t"]))
    assert both[0] == alone[0] and both[0] != both[1]


def eer_of_trials(plda, x, speakers):
    i, j = np.triu_indices(len(x), 1)
    keep = np.random.default_rng(0).permutation(len(i))[:20000]
    i, j = i[keep], j[keep]
    scores = plda.score_pairs(x[i], x[j])
    same = torch.tensor(speakers[i] == speakers[j])
    return EER(scores[same], scores[~same])[0]


def test_lda_finds_the_dimensions_of_speakers():
    between = np.diag([3.0, 3.0, 3.0, 3.0] + [0.0] * 56)
    within = np.diag([1.0] * 4 + [30.0] * 56)
    x, speakers = simulate(150, 8, between, within)
    plda = PLDA.fit(torch.tensor(x), speakers.tolist(), lda_dim=4)
    new_x, new_speakers = simulate(50, 6, between, within, seed=9)
    with_lda = eer_of_trials(plda, torch.tensor(new_x), new_speakers)
    no_lda = PLDA.fit(torch.tensor(x), speakers.tolist(), n_iterations=1)
    assert np.abs(plda.projection[4:]).max() < 0.05 * np.abs(plda.projection).max()
    assert with_lda < 0.3
    assert with_lda < eer_of_trials(no_lda, torch.tensor(new_x), new_speakers)


def test_adaptation_follows_a_shifted_domain(trained):
    plda, _ = trained
    dim = 3
    shift = np.array([1.5, -1.0, 0.5])
    x, speakers = simulate(100, 6, BETWEEN, WITHIN + np.eye(dim), seed=5)
    x = torch.tensor(x + shift)
    adapted = plda.adapt(x)
    # The mean of the new domain is the origin, and its excess variance is known.
    z = adapted.transform(x)
    assert z.mean(dim=0).abs().max() < 1e-6
    total = torch.tensor(np.cov(z.T.numpy(), bias=True))
    model = torch.tensor(1 + adapted.between)
    assert (total.diagonal() <= model + 1e-6).all()
    assert eer_of_trials(adapted, x, speakers) <= eer_of_trials(plda, x, speakers)


def test_bad_training_sets():
    x = torch.randn(6, 3)
    with pytest.raises(InputError, match="6 utterances of 6 speakers"):
        PLDA.fit(x, list("abcdef"))
    with pytest.raises(InputError, match="6 utterances of 1 speakers"):
        PLDA.fit(x, ["a"] * 6)
    with pytest.raises(InputError, match="lda_dim=3: 3 speakers .* at most 2"):
        PLDA.fit(x, list("aabbcc"), lda_dim=3)


def test_missing_embeddings(trained):
    plda, x = trained
    trials = Trials([1, 0], ["a", "b"], ["c", "a"])
    with pytest.raises(InputError, match="2 utterances .*: b, c"):
        plda.score({"a": x[0]}, trials)
