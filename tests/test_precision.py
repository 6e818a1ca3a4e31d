"""`precision: auto` takes what is faster on the machine."""

import logging

import pytest
import speechbrain as sb
import torch

from speechbrain_ext.training.brains import StepBrain
from speechbrain_ext.utils import precision
from speechbrain_ext.utils.precision import choose_precision, matrix_rate


def set_rates(monkeypatch, bf16, fp32):
    rates = {torch.bfloat16: bf16, torch.float32: fp32}
    monkeypatch.setattr(precision, "matrix_rate", lambda dtype, *_: rates[dtype])


def test_rate_is_measured_once(monkeypatch):
    precision._matrix_rate.cache_clear()
    first = matrix_rate(torch.float32)
    assert 1e7 < first < 1e16
    monkeypatch.setattr(precision.time, "perf_counter", lambda: pytest.fail("again"))
    assert matrix_rate(torch.float32) == first


@pytest.mark.parametrize(
    ("bf16", "chosen"), [(1e9, "fp32"), (1.4e11, "fp32"), (4e11, "bf16")]
)
def test_auto_on_a_processor(monkeypatch, caplog, bf16, chosen):
    set_rates(monkeypatch, bf16, 1e11)
    with caplog.at_level(logging.WARNING):
        assert choose_precision("auto", "cpu") == chosen
    assert caplog.text == ""


@pytest.mark.parametrize("has_bf16", [True, False])
def test_auto_on_a_gpu(monkeypatch, has_bf16):
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: has_bf16
    )
    assert choose_precision("auto", "cuda:0") == ("bf16" if has_bf16 else "fp32")


def test_slow_bf16_warns_with_both_figures(monkeypatch, caplog):
    set_rates(monkeypatch, 3e8, 2e10)
    assert choose_precision("bf16", "cpu", "eval_precision") == "bf16"
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert "eval_precision bf16" in record.message
    assert "0.3 GFLOP/s in bf16, 20 in fp32" in record.message
    caplog.clear()
    set_rates(monkeypatch, 9e10, 2e10)
    assert choose_precision("bf16", "cpu") == "bf16"
    assert choose_precision("fp32", "cpu") == "fp32"
    assert not caplog.records


@pytest.mark.parametrize(
    ("bf16", "dtype"), [(1e9, torch.float32), (1e12, torch.bfloat16)]
)
def test_brain_computes_in_the_chosen_precision(monkeypatch, bf16, dtype):
    set_rates(monkeypatch, bf16, 1e11)
    hparams = {"precision": "auto", "eval_precision": "auto"}
    modules = {"layer": torch.nn.Linear(4, 4)}
    brain = StepBrain(modules, hparams=hparams, run_opts={"device": "cpu"})
    for context in (brain.training_ctx, brain.evaluation_ctx):
        with context:
            assert brain.modules.layer(torch.ones(1, 4)).dtype == dtype
    assert hparams["precision"] == "auto"


def test_brain_without_precision_keeps_speechbrains_default():
    brain = StepBrain({}, run_opts={"device": "cpu"})
    assert brain.precision == sb.Brain({}, run_opts={"device": "cpu"}).precision
