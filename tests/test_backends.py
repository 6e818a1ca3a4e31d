"""Back ends: enrolment from several utterances, conventions, options."""

import itertools

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.stats import multivariate_normal

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.metrics.detection import EER, DetectionCurve
from speechbrain_ext.processing.backends import Backend, CosineBackend, PLDABackend
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.processing.plda import PLDA
from speechbrain_ext.processing.score_norm import KINDS
from speechbrain_ext.processing.scoring import cosine_scores
from speechbrain_ext.utils.errors import InputError


def make_store(n_speakers, prefix, seed, n_utterances=5, dim=12):
    rng = np.random.default_rng(seed)
    ids = [f"{prefix}{s}/{u}" for s in range(n_speakers) for u in range(n_utterances)]
    centers = np.repeat(rng.normal(size=(n_speakers, dim)), n_utterances, axis=0)
    x = centers + 0.6 * rng.normal(size=centers.shape) + 0.5
    x *= rng.uniform(0.5, 2, size=(len(x), 1))  # norms differ
    speakers = [name.split("/")[0] for name in ids]
    return EmbeddingStore(ids, torch.tensor(x).float(), speakers, [2.0] * len(ids), "")


TEST, COHORT = make_store(8, "t", 0), make_store(20, "c", 1)
PAIRS = list(itertools.combinations(TEST.ids, 2))
TRIALS = Trials(
    [int(a.split("/")[0] == b.split("/")[0]) for a, b in PAIRS], *map(list, zip(*PAIRS))
)
SETTINGS = [
    (CosineBackend, {"subtract_mean": mean, "score_norm": kind, "cohort_size": size})
    for mean in (False, True)
    for kind, size in [(None, None), *itertools.product(KINDS, (None, 6))]
]
SETTINGS += [
    (PLDABackend, {"lda_dim": lda_dim, "adapt": adapt})
    for lda_dim in (None, 6, "auto")
    for adapt in (False, True)
]


def fitted(kind, settings):
    backend = kind(**settings)
    return backend.fit(COHORT) if backend.needs_cohort else backend


@pytest.mark.parametrize("kind, settings", SETTINGS, ids=str)
def test_an_enrolment_of_one_utterance_is_the_utterance(kind, settings):
    backend = fitted(kind, settings)
    plain = backend.score(TEST, TRIALS)
    assert plain.dtype == torch.float64
    models = {f"model of {name}": [name] for name in TEST.ids}
    enrol = [f"model of {name}" for name in TRIALS.enrol]
    renamed = Trials(TRIALS.labels, enrol, TRIALS.test)
    for average in ("embeddings", "scores"):
        scores = backend.score(TEST, renamed, models, average)
        assert torch.equal(scores, plain)


@pytest.mark.parametrize("kind, settings", SETTINGS, ids=str)
def test_more_enrolment_utterances_lower_the_error_rate(kind, settings):
    backend = fitted(kind, settings)
    models = {f"t{s}": [f"t{s}/{u}" for u in range(4)] for s in range(8)}
    pairs = [(m, f"t{s}/4") for m in models for s in range(8)]
    labels = [int(f"{m}/4" == test) for m, test in pairs]
    trials = Trials(labels, *map(list, zip(*pairs)))
    eer, _ = EER(*trials.split_by_label(backend.score(TEST, trials, models)))
    single, _ = EER(*TRIALS.split_by_label(backend.score(TEST, TRIALS)))
    assert eer <= single


@pytest.mark.parametrize("n_enrol", [1, 2, 4])
def test_plda_of_several_utterances_is_the_ratio_of_joint_gaussians(n_enrol):
    backend = PLDABackend(lda_dim=5).fit(COHORT)
    models = {"m": TEST.ids[:n_enrol]}
    trials = Trials([1, 0], ["m", "m"], [TEST.ids[4], TEST.ids[7]])
    scores = backend.score(TEST, trials, models)
    plda, rows = backend.plda, TEST.by_id()
    enrol = torch.stack([rows[name] for name in models["m"]])
    test = torch.stack([rows[name] for name in trials.test])
    by_pairs = plda.score_pairs(enrol.unsqueeze(0).expand(2, -1, -1), test)
    torch.testing.assert_close(scores, by_pairs)
    enrol, test = plda.transform(enrol).numpy(), plda.transform(test).numpy()
    for score, one in zip(scores.tolist(), test):
        expected = 0.0
        for d, between in enumerate(plda.between):
            joint = np.eye(n_enrol + 1) + between  # W is 1
            together = np.append(enrol[:, d], one[d])
            expected += multivariate_normal.logpdf(together, cov=joint)
            expected -= multivariate_normal.logpdf(enrol[:, d], cov=joint[:-1, :-1])
            expected -= multivariate_normal.logpdf(one[d], cov=1 + between)
        assert score == pytest.approx(expected, abs=1e-8)


def test_cosine_averages_unit_vectors_after_mean_subtraction():
    backend = CosineBackend(subtract_mean=True).fit(COHORT)
    scores = backend.score(TEST, Trials([1], ["m"], [TEST.ids[4]]), {"m": TEST.ids[:3]})
    mean = COHORT.embeddings.double().mean(0)
    x = torch.nn.functional.normalize(TEST.embeddings.double() - mean, dim=1)
    expected = torch.cosine_similarity(x[:3].mean(0), x[4], dim=0)
    assert scores[0].item() == pytest.approx(expected.item(), abs=1e-12)


def brute_force_as_norm(n_top, over_n, raw):
    """AS-norm with mean subtraction in plain numpy, trial by trial."""
    train = COHORT.embeddings.double().numpy()
    mean = train.mean(axis=0)
    speakers = np.array(COHORT.speakers)

    def unit(x):
        return x / np.linalg.norm(x, axis=-1, keepdims=True)

    vectors = train - mean if raw else unit(train - mean)
    cohort = unit(np.stack([vectors[speakers == s].mean(0) for s in set(speakers)]))
    x = dict(zip(TEST.ids, unit(TEST.embeddings.double().numpy() - mean)))
    expected = []
    for enrol, test in zip(TRIALS.enrol, TRIALS.test):
        score, sides = x[enrol] @ x[test], []
        for side in (x[enrol], x[test]):
            top = np.sort(cohort @ side)[::-1][:n_top]
            sides.append((score - top.mean()) / top.std(ddof=0 if over_n else 1))
        expected.append(sum(sides) / 2)
    return torch.tensor(np.array(expected))


@pytest.mark.parametrize("over_n", [False, True])
@pytest.mark.parametrize("raw", [False, True])
def test_as_norm_of_both_conventions(over_n, raw):
    backend = CosineBackend(True, "s-norm", 7, not over_n, not raw).fit(COHORT)
    expected = brute_force_as_norm(7, over_n, raw)
    assert (backend.score(TEST, TRIALS) - expected).abs().max() < 1e-4
    for others in itertools.product([False, True], repeat=2):
        if others != (over_n, raw):
            assert (brute_force_as_norm(7, *others) - expected).abs().max() > 1e-3


def test_a_new_back_end_is_one_class():
    class Distance(Backend):
        def compare(self, enrol, test, n_enrol):
            return -(enrol - test).norm(dim=1) * n_enrol[:, 0]

    trials = Trials([1], ["m"], [TEST.ids[2]])
    score = Distance().score(TEST, trials, {"m": TEST.ids[:2]})
    x = TEST.embeddings.double()
    expected = -2 * (x[:2].mean(0) - x[2]).norm()
    assert score[0].item() == pytest.approx(expected.item())


@pytest.mark.parametrize(
    "kind, settings, message",
    [
        (CosineBackend, {"cohort_size": 5}, "cohort_size has no effect"),
        (CosineBackend, {"unbiased_std": False}, "unbiased_std has no effect"),
        (CosineBackend, {"unit_length_cohort": False}, "unit_length_cohort has no"),
        (CosineBackend, {"score_norm": "a-norm"}, "score_norm 'a-norm': use one of"),
        *[
            (CosineBackend, {"score_norm": "s-norm", "cohort_size": size}, "from 2 up")
            for size in (-1, 0, 1, 2.5, "x", True)
        ],
        *[(PLDABackend, {"lda_dim": d}, "from 1 up") for d in (-1, 0, 1.5, "x", False)],
    ],
)
def test_settings_that_make_no_sense(kind, settings, message):
    with pytest.raises(InputError, match=message):
        kind(**settings)


def test_embeddings_that_cannot_be_used():
    bad = make_store(4, "c", 1)
    bad.embeddings[3, 2] = torch.nan
    other = make_store(20, "c", 1, dim=8)
    for backend in (PLDABackend(), CosineBackend(score_norm="s-norm")):
        with pytest.raises(InputError, match="needs a cohort"):
            backend.score(TEST, TRIALS)
        with pytest.raises(InputError, match="1 utterances of the cohort .*: c0/3"):
            backend.fit(bad)
        with pytest.raises(InputError, match="trials have 12 dimensions.*cohort 8"):
            backend.fit(other).score(TEST, TRIALS)
    with pytest.raises(InputError, match="1 models .* not enrolled: t0/0"):
        CosineBackend().score(TEST, Trials([1], ["t0/0"], ["t0/1"]), {"m": ["t0/2"]})
    with pytest.raises(InputError, match="different dimensions"):
        cosine_scores({"a": torch.ones(2), "b": torch.ones(3)}, Trials([1], "a", "b"))


def test_lda_with_fewer_utterances_than_dimensions():
    few, test = make_store(12, "c", 0, 2, dim=96), make_store(8, "t", 3, dim=96)
    for lda_dim in (8, "auto", None):
        backend = PLDABackend(lda_dim).fit(few)
        eer, _ = EER(*TRIALS.split_by_label(backend.score(test, TRIALS)))
        assert eer < 0.2
    assert PLDABackend("auto").fit(few).details()["lda_dim"] == 11
    with pytest.raises(InputError, match="lda_dim=12: 12 speakers .* at most 11"):
        PLDABackend(12).fit(few)


def test_an_embedding_at_the_centre_has_a_score():
    plda = PLDA.fit(COHORT.embeddings, COHORT.speakers)
    center = torch.tensor(plda.center).unsqueeze(0)
    assert torch.isfinite(plda.score_pairs(center, TEST.embeddings[:1])).all()


def test_cosines_stay_within_one():
    torch.manual_seed(0)
    store = {str(i): e for i, e in enumerate(torch.randn(500, 192))}
    scores = cosine_scores(store, Trials([1] * 500, list(store), list(store)))
    assert scores.max() <= 1 and scores.min() > 1 - 1e-9


def test_all_metrics_read_one_curve():
    rng = np.random.default_rng(0)
    target, nontarget = (torch.tensor(rng.normal(m, 1, 300)) for m in (1, 0))
    # Ties, infinities, and neighbours between which there is no number
    ends = torch.tensor([np.inf, -np.inf, 1.0, np.nextafter(1.0, 2)])
    target, nontarget = torch.cat([target, ends]), torch.cat([nontarget, ends])
    curve = DetectionCurve(target, nontarget)
    for far, frr, threshold in zip(curve.far, curve.frr, curve.thresholds):
        assert frr.item() == pytest.approx((target <= threshold).double().mean().item())
        assert far.item() == pytest.approx(
            (nontarget > threshold).double().mean().item()
        )


@pytest.mark.parametrize("p_target", [0.05, 0.5])
def test_calibration_converges(p_target):
    rng = np.random.default_rng(0)
    labels = (np.arange(3000) % 5 == 0).astype(int)
    # Of different scales, correlated, and far from the origin
    score = 0.1 * rng.normal(labels, 1) + 7
    columns = np.stack([score, 40 * score + 3 * rng.normal(size=3000)], axis=1)
    share = labels.mean()
    weights = np.where(labels == 1, p_target / share, (1 - p_target) / (1 - share))
    z = (columns - columns.mean(0)) / columns.std(0)
    z = np.hstack([z, np.ones((3000, 1))])

    def cost(w):
        margin = (2 * labels - 1) * (z @ w)
        slope = -weights * (2 * labels - 1) / (1 + np.exp(margin))
        return (weights * np.logaddexp(0, -margin)).mean(), z.T @ slope / 3000

    best = minimize(cost, np.zeros(3), jac=True, method="BFGS", options={"gtol": 1e-11})
    expected = z @ best.x - np.log(p_target / (1 - p_target))
    calibration = Calibration.fit(["a", "b"], columns, labels.tolist(), p_target)
    ratios = calibration.apply(torch.tensor(columns)).numpy()
    assert np.abs(ratios - expected).max() < 1e-4


def test_dense_and_sparse_lists_have_the_same_cosines():
    """All pairs are scored by a matrix product, few ones pair by pair."""
    generator = torch.Generator().manual_seed(0)
    store = {f"u{i}": torch.randn(8, generator=generator) for i in range(12)}
    pairs = [(a, b) for a in store for b in store]
    dense = cosine_scores(store, Trials([1] * 144, *map(list, zip(*pairs))))
    sparse = [cosine_scores(store, Trials([1], [a], [b])) for a, b in pairs if a != b]
    different = torch.tensor([a != b for a, b in pairs])
    assert (dense[different] - torch.cat(sparse)).abs().max() < 1e-14
    assert (dense[~different] - 1).abs().max() < 1e-14 and dense.max() <= 1
