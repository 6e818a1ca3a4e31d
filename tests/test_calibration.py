"""Calibration and its metrics."""

import math

import numpy as np
import pytest
import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.trials import Trials
from speechbrain_ext.metrics.calibration import (
    Cllr,
    actDCF,
    far_at_frr,
    minCllr,
)
from speechbrain_ext.metrics.detection import normalized_minDCF
from speechbrain_ext.processing.calibration import (
    Calibration,
    quality_columns,
    vary_durations,
)
from speechbrain_ext.utils.errors import InputError


def gaussian_scores(n=20000, seed=0):
    """Scores whose log-likelihood ratio is 2 * (s - 1)."""
    rng = np.random.default_rng(seed)
    return (
        torch.tensor(rng.normal(2, 1, n)),
        torch.tensor(rng.normal(0, 1, n)),
    )


def test_cllr_is_its_definition():
    target, nontarget = torch.tensor([1.0, -0.5]), torch.tensor([0.3])
    expected = 0.5 * (
        (math.log2(1 + math.exp(-1.0)) + math.log2(1 + math.exp(0.5))) / 2
        + math.log2(1 + math.exp(0.3))
    )
    assert Cllr(target, nontarget) == pytest.approx(expected, abs=1e-6)


def test_min_cllr_is_reached_by_true_ratios_only():
    target, nontarget = gaussian_scores()
    lowest = minCllr(target, nontarget)
    calibrated = Cllr(2 * (target - 1), 2 * (nontarget - 1))
    assert lowest <= calibrated <= lowest + 0.01
    assert minCllr(target * 9 + 4, nontarget * 9 + 4) == pytest.approx(lowest)
    assert Cllr(target * 9 + 4, nontarget * 9 + 4) > 1
    assert minCllr(nontarget, target) == pytest.approx(1.0, abs=0.01)


def test_min_cllr_by_hand():
    # Pools of (1 target, 2 non-targets) and (2 targets, 1 non-target)
    target, nontarget = torch.tensor([1.0, 2.0, 2.0]), torch.tensor([1.0, 1.0, 2.0])
    expected = 0.5 * (
        (math.log2(1 + 2) + 2 * math.log2(1 + 0.5)) / 3
        + (2 * math.log2(1 + 0.5) + math.log2(1 + 2)) / 3
    )
    assert minCllr(target, nontarget) == pytest.approx(expected, abs=1e-9)


def test_actual_cost_is_minimal_for_true_ratios():
    target, nontarget = gaussian_scores(100_000)
    for p_target in (0.05, 0.5):
        actual = actDCF(2 * (target - 1), 2 * (nontarget - 1), p_target=p_target)
        lowest = normalized_minDCF(target, nontarget, p_target=p_target)
        assert lowest <= actual <= lowest + 0.01
    assert actDCF(torch.zeros(3), torch.zeros(3), p_target=0.01) == 1.0


def test_far_at_frr():
    target, nontarget = torch.arange(1.0, 11.0), torch.arange(-4.5, 5.5)
    assert far_at_frr(target, nontarget, 0.1) == pytest.approx(0.3)
    assert far_at_frr(target, nontarget, 1.0) == 0.0
    assert far_at_frr(torch.tensor([0.0]), torch.tensor([1.0]), 0.0) == 1.0


def test_linear_calibration_finds_the_ratio():
    target, nontarget = gaussian_scores()
    scores = torch.cat([target, nontarget[:5000]])
    labels = [1] * len(target) + [0] * 5000
    for p_target in (0.5, 0.1):
        calibration = Calibration.fit(["score"], scores.unsqueeze(1), labels, p_target)
        assert calibration.weights[0] == pytest.approx(2, abs=0.1)
        assert calibration.offset == pytest.approx(-2, abs=0.1)


def test_quality_measures_help_where_quality_matters(tmp_path):
    rng = np.random.default_rng(0)
    n = 20000
    labels = rng.integers(0, 2, n)
    # Short utterances shift the scores of all trials.
    quality = rng.uniform(-3, 3, n)
    scores = rng.normal(2 * labels + quality, 1)
    columns = torch.tensor(np.stack([scores, quality], 1))
    train, test = columns[: n // 2], columns[n // 2 :]
    train_labels, test_labels = labels[: n // 2], labels[n // 2 :]
    full = Calibration.fit(["score", "quality"], train, train_labels.tolist())
    plain = Calibration.fit(["score"], train[:, :1], train_labels.tolist())
    full.save(tmp_path / "calibration.json")
    reloaded = Calibration.load(tmp_path / "calibration.json")
    assert reloaded == full
    is_target = torch.tensor(test_labels == 1)
    costs = []
    for ratios in (reloaded.apply(test), plain.apply(test[:, :1])):
        costs.append(Cllr(ratios[is_target], ratios[~is_target]))
    assert costs[0] < 0.7 * costs[1]


def test_quality_columns():
    store = EmbeddingStore(
        ["a", "b"],
        torch.tensor([[3.0, 4.0], [1.0, 0.0]]),
        ["x", "y"],
        [2.0, 8.0],
        "",
    )
    trials = Trials([0, 0], ["a", "b"], ["b", "a"])
    names, columns = quality_columns(
        torch.tensor([0.1, 0.1]), trials, store, {"a": 0.5, "b": 0.2}
    )
    row = dict(zip(names, columns[0].tolist()))
    assert torch.equal(columns[0], columns[1])
    assert row["norm_min"] == 1.0 and row["norm_max"] == 5.0
    assert row["norm_difference"] == 4.0
    assert row["duration_difference"] == pytest.approx(math.log(4))
    assert row["cohort_mean_min"] == pytest.approx(0.2)
    assert row["variance_max"] == 0.5
    assert len(names) == 13


def test_crops_lie_within_their_utterances():
    utterances = {
        f"{s}/{u}": {"wav": "", "speaker": s, "duration": 1.0 + u}
        for s in "abc"
        for u in range(5)
    }
    crops = vary_durations(utterances, 60, 2.0, 4.0, seed=0)
    assert len(crops) == 60
    counts = {}
    for name, crop in crops.items():
        source = utterances[name.split("#")[0]]
        counts[crop["speaker"]] = counts.get(crop["speaker"], 0) + 1
        assert 0 <= crop["start"]
        assert crop["start"] + crop["duration"] <= source["duration"] + 1e-9
        assert crop["duration"] <= 4.0
    assert set(counts.values()) == {20}


def test_bad_calibration(tmp_path):
    with pytest.raises(InputError, match="3 of one kind"):
        Calibration.fit(["score"], torch.zeros(3, 1), [1, 1, 1])
    with pytest.raises(InputError, match="not finite for some trials: score"):
        Calibration.fit(["score"], torch.tensor([[1.0], [torch.inf]]), [0, 1])
    with pytest.raises(InputError, match="takes 1 columns"):
        Calibration(["score"], [1.0], 0.0).apply(torch.zeros(2, 3))
    path = tmp_path / "calibration.json"
    path.write_text('{"weights": []}', encoding="utf-8")
    with pytest.raises(InputError, match="is no calibration"):
        Calibration.load(path)


@pytest.mark.parametrize("metric", [Cllr, minCllr, actDCF])
def test_empty_and_nan_scores_are_refused(metric):
    some = torch.tensor([0.5])
    with pytest.raises(ValueError, match="no target scores"):
        metric(torch.tensor([]), some)
    with pytest.raises(ValueError, match="non-target scores are NaN"):
        metric(some, torch.tensor([float("nan")]))
