"""Metrics against SpeechBrain's and against scikit-learn's ROC."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_curve
from speechbrain.utils import metric_stats

from speechbrain_ext.metrics.detection import (
    EER,
    EER_star,
    det_points,
    minDCF,
    normalized_minDCF,
)
from speechbrain_ext.plots import detection


def draw(kind, rng):
    n_positive, n_negative = rng.integers(1, 80, size=2)
    positive = torch.tensor(rng.normal(1, 1, n_positive), dtype=torch.float32)
    negative = torch.tensor(rng.normal(0, 1, n_negative), dtype=torch.float32)
    if kind == "tied":
        return (positive * 3).round() / 3, (negative * 3).round() / 3
    if kind == "tiny":
        return positive * 1e-7, negative * 1e-7
    if kind == "single":
        return positive[:1], negative[:1]
    if kind == "separate":
        return positive + 10, negative
    if kind == "reversed":
        return positive - 10, negative
    if kind == "constant":
        return torch.ones(n_positive), torch.ones(n_negative)
    return positive, negative


KINDS = "random tied tiny single separate reversed constant".split()


@pytest.mark.parametrize("kind", KINDS)
def test_same_numbers_as_speechbrain(kind):
    rng = np.random.default_rng(0)
    for _ in range(150):
        scores = draw(kind, rng)
        assert EER(*scores) == metric_stats.EER(*scores)
        assert minDCF(*scores) == metric_stats.minDCF(*scores)
        costs = dict(c_miss=10.0, c_fa=2.0, p_target=0.3)
        expected = metric_stats.minDCF(*scores, **costs)
        assert minDCF(*scores, **costs) == expected


def test_agrees_with_roc_curve():
    rng = np.random.default_rng(1)
    positive = rng.normal(1.5, 1, 4000)
    negative = rng.normal(0, 1, 6000)
    labels = np.r_[np.ones(4000), np.zeros(6000)]
    far, hit, _ = roc_curve(labels, np.r_[positive, negative], drop_intermediate=False)
    frr = 1 - hit
    scores = torch.tensor(positive), torch.tensor(negative)
    index = np.argmin(np.abs(far - frr))
    assert EER(*scores)[0] == pytest.approx((far[index] + frr[index]) / 2, abs=1e-6)
    for p_target in (0.01, 0.05, 0.5):
        cost = p_target * frr + (1 - p_target) * far
        expected = cost.min() / min(p_target, 1 - p_target)
        assert normalized_minDCF(*scores, p_target=p_target) == pytest.approx(
            expected, abs=1e-6
        )


def test_normalized_cost_never_exceeds_a_trivial_system():
    positive, negative = torch.zeros(10), torch.ones(10)
    assert normalized_minDCF(positive, negative, p_target=0.5) == 1.0


def test_eer_star_is_the_eer_at_its_own_threshold():
    torch.manual_seed(0)
    positive, negative = torch.randn(500) + 1, torch.randn(700)
    eer, threshold = EER(positive, negative)
    assert EER_star(positive, negative, threshold) == pytest.approx(eer)
    assert EER_star(positive, negative, -100.0) == 0.5
    assert EER_star(positive, negative, 100.0) == 0.5
    assert EER_star(torch.tensor([1.0]), torch.tensor([1.0]), 1.0) == 0.5


def test_det_points_are_monotonic():
    torch.manual_seed(0)
    far, frr, thresholds = det_points(torch.randn(300) + 1, torch.randn(200))
    assert (far.diff() <= 0).all()
    assert (frr.diff() >= 0).all()
    assert (thresholds.diff() > 0).all()
    assert len(thresholds) == 2 * 500 - 1


@pytest.mark.parametrize("metric", [EER, minDCF, normalized_minDCF])
def test_bad_scores_are_refused(metric):
    some = torch.tensor([0.5])
    with pytest.raises(ValueError, match="no target scores"):
        metric(torch.tensor([]), some)
    with pytest.raises(ValueError, match="no non-target scores"):
        metric(some, torch.tensor([]))
    with pytest.raises(ValueError, match="1 of 2 non-target scores are NaN"):
        metric(some, torch.tensor([0.1, float("nan")]))


def test_vox1_e_size_fits_in_memory():
    torch.manual_seed(0)
    positive, negative = torch.randn(300_000) + 3, torch.randn(300_000)
    eer, threshold = EER(positive, negative)
    # Phi(-1.5) and the midpoint of the two means
    assert eer == pytest.approx(0.0668, abs=0.002)
    assert threshold == pytest.approx(1.5, abs=0.02)


def test_histograms_hold_the_extreme_scores(tmp_path, monkeypatch):
    """Scores are in double precision, and the last bin ends with the highest."""
    monkeypatch.setattr(detection, "save_figure", lambda figure, path: figure)
    for target, nontarget in ((0.1, 0.7), (0.7, 0.1), (0.3, 0.3)):
        scores = (torch.tensor([s], dtype=torch.float64) for s in (target, nontarget))
        figure = detection.plot_scores(tmp_path / "scores", *scores, {})
        (axes,) = figure.axes
        for bars in axes.containers:
            area = sum(bar.get_height() * bar.get_width() for bar in bars)
            assert area == pytest.approx(1)
