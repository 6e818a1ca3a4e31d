"""`precision: auto` takes what is faster on the machine."""

import logging

import pytest
import speechbrain as sb
import torch
from conftest import write_voice

from speechbrain_ext.cli import main
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes import LTDNN, load_encoder
from speechbrain_ext.training.brains import StepBrain
from speechbrain_ext.training.verification import load_speaker_model
from speechbrain_ext.utils import precision
from speechbrain_ext.utils.errors import InputError
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


@pytest.fixture
def voices(tmp_path):
    """Three short utterances: processors without bfloat16 emulate it slowly."""
    items = {}
    for i, seconds in enumerate((0.7, 0.65, 0.6)):
        wav = tmp_path / "voices" / f"{i}.wav"
        write_voice(wav, i, i, seconds)
        items[str(i)] = {"wav": str(wav), "speaker": str(i), "duration": seconds}
    return items


def test_embeddings_of_each_precision(voices, tmp_path):
    encoder = load_encoder("speechbrain_ext/wavlm-small", freeze=True)
    sizes = {"in_channels": encoder.channels, "n_layers": encoder.n_layers}
    back_end = LTDNN(**sizes, conv_channels=16, pooled_channels=16, n_heads=2)
    model = SpeakerRecognition(encoder, back_end, 16000)
    before, n_threads = model.fingerprint, torch.get_num_threads()
    stores = {}
    try:
        for name in ("fp32", "bf16", "fp32 again", "bf16 on two cores"):
            torch.set_num_threads(2 if "cores" in name else 1)
            model.precision = name.split()[0]
            path = tmp_path / f"{name}.safetensors"
            stores[name] = extract_embeddings(model, voices, path, 0.7)
            one = model.encode_file(voices["0"]["wav"])
            assert torch.allclose(stores[name].embeddings[0], one, atol=1e-5)
    finally:
        torch.set_num_threads(n_threads)
    full, half, again, both = (store.embeddings for store in stores.values())
    assert half.dtype == torch.float32
    # Nothing that follows from weights is kept in another precision.
    assert torch.equal(full, again) and torch.equal(half, both)
    assert 1e-4 < (full - half).abs().max()
    assert torch.cosine_similarity(full, half).min() > 0.999
    # Embeddings of versions before there was a choice are those of float32.
    assert stores["fp32"].fingerprint == stores["fp32 again"].fingerprint == before
    assert stores["bf16"].fingerprint != before
    with pytest.raises(InputError, match="'int8'; give fp32, fp16 or bf16"):
        model.precision = "int8"


def test_embed_in_the_chosen_precision(
    voices, model_folder, tmp_path, monkeypatch, caplog
):
    path = tmp_path / "e.safetensors"
    command = ["embed", str(model_folder), str(tmp_path / "voices")]
    command += ["--output", str(path), "--device", "cpu"]
    main(command)
    before = load_model(model_folder, "cpu")
    assert EmbeddingStore.load(path).fingerprint == before.fingerprint
    set_rates(monkeypatch, 4e11, 1e11)
    with caplog.at_level(logging.WARNING):
        main([*command, "--precision", "auto"])
    assert "3 of other model (configuration): embedded again" in caplog.text
    before.precision = "bf16"
    assert EmbeddingStore.load(path).fingerprint == before.fingerprint
    set_rates(monkeypatch, 1e9, 1e11)
    caplog.clear()
    main([*command, "--precision", "bf16"])
    assert "precision bf16 is slow on this processor" in caplog.text
    assert "embedded again" not in caplog.text


@pytest.mark.parametrize(("bf16", "chosen"), [(1e9, "fp32"), (4e11, "bf16")])
def test_verification_in_the_chosen_precision(training, monkeypatch, bf16, chosen):
    set_rates(monkeypatch, bf16, 1e11)
    hparams = {"trained_model": training, "trust_source": False, "precision": "auto"}
    assert load_speaker_model(hparams, {"device": "cpu"}).precision == chosen
