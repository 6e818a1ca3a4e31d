"""Filter banks and MFCCs, and the recipes of the MFCC baselines."""

import json
import re

import pytest
import torch
from conftest import ROOT, TINY, TRAIN, run
from speechbrain.lobes.features import MFCC

from speechbrain_ext.lobes.features import NormalizedMFCC


def test_mfccs_are_speechbrains_less_their_mean():
    wav = torch.randn(1, 16000)
    expected = MFCC(
        deltas=False,
        context=False,
        n_mels=80,
        n_mfcc=24,
        n_fft=512,
        f_min=20,
        f_max=7600,
    )(wav)
    expected = expected - expected.mean(1, keepdim=True)
    frames, _ = NormalizedMFCC(preemphasis=0.0, normalization="mean")(wav)
    assert torch.allclose(frames, expected, atol=1e-3)
    frames, _ = NormalizedMFCC(preemphasis=0.0)(wav)
    deviation = expected.std(1, unbiased=False, keepdim=True)
    assert torch.allclose(frames, expected / deviation, atol=1e-3)


@pytest.mark.parametrize("name", ["xvector_mfcc", "ecapa_mfcc"])
def test_recipes(corpus, tmp_path, name):
    options = {
        **TINY, "data_folder": corpus, "output_folder": tmp_path / "out",
        "number_of_steps": 16, "steps_per_epoch": 2, "batch_size": 2,
    }  # fmt: skip
    channels = "xvector_channels" if name == "xvector_mfcc" else "ecapa_channels"
    options[channels] = 16
    done = run(TRAIN, ROOT / "hparams" / f"{name}.yaml", options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert 0 <= metrics["EER"] <= 1
    if name == "ecapa_mfcc":
        # Peaks after 2, 6, 10 and 14 of 16 steps, each half of the last
        log = (tmp_path / "out/train_log.txt").read_text()
        rates = [float(r) for r in re.findall(r"lr: ([\d.e+-]+)", log)]
        assert rates[::2] == pytest.approx([1e-3, 5e-4, 2.5e-4, 1.25e-4], rel=0.02)
        assert max(rates[1::2]) < 2e-8
