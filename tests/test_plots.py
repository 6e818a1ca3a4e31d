"""Plots of scores of any range."""

import pytest
import torch

from speechbrain_ext.plots.detection import plot_det, plot_scores


@pytest.mark.parametrize("center", [0.0, 1e-7, -0.3, 1e8])
@pytest.mark.parametrize("spread", [0.0, 1e-17, 1e-9, 1.0])
def test_scores_of_any_range_are_plotted(tmp_path, center, spread):
    scores = center * (1 + spread * torch.linspace(0, 1, 8, dtype=torch.float64))
    target, nontarget = scores[4:], scores[:4]
    written = plot_scores(tmp_path / "scores", target, nontarget, {"EER": center})
    written += plot_det(tmp_path / "det", {"system": (target, nontarget)})
    assert all(path.stat().st_size > 1000 for path in written)
