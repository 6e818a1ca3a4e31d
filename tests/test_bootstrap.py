"""Intervals over speakers."""

import numpy as np
import pytest
import torch

from speechbrain_ext.metrics.bootstrap import eer_interval
from speechbrain_ext.metrics.detection import EER


def simulate(n_speakers, speaker_spread, seed):
    """All trials of speakers of whom some are easier than others."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0, speaker_spread, n_speakers)
    enrol, test, labels, scores = [], [], [], []
    for i in range(n_speakers):
        for j in range(i, n_speakers):
            for _ in range(20 if i == j else 2):
                enrol.append(f"s{i}")
                test.append(f"s{j}")
                labels.append(int(i == j))
                mean = 2 + ease[i] if i == j else 0
                scores.append(rng.normal(mean, 1))
    return torch.tensor(scores), labels, enrol, test


def test_covers_the_eer_and_knows_that_speakers_differ():
    widths = []
    for spread in (0.0, 1.0):
        trials = simulate(40, spread, seed=1)
        low, high = eer_interval(*trials, n_draws=300)
        is_target = torch.tensor(trials[1], dtype=torch.bool)
        eer, _ = EER(trials[0][is_target], trials[0][~is_target])
        assert low < eer < high
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_coverage():
    true_eer = 0.1587  # Phi(-1)
    covered = 0
    for seed in range(40):
        low, high = eer_interval(*simulate(25, 0.0, seed), n_draws=200)
        covered += low <= true_eer <= high
    assert covered >= 32


def test_constant_weights_give_the_point_estimate():
    scores = torch.tensor([3.0, 2.0, 1.0, 0.0])
    low, high = eer_interval(
        scores, [1, 1, 0, 0], ["a", "b", "a", "b"], ["a", "b", "b", "a"]
    )
    assert (low, high) == (0.0, 0.0)


def test_same_seed_same_interval():
    trials = simulate(10, 0.5, 0)
    assert eer_interval(*trials, n_draws=50) == pytest.approx(
        eer_interval(*trials, n_draws=50)
    )
