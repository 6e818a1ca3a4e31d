"""A training on stored hidden states: as the encoder gives them, computed once."""

import json
import multiprocessing
import os
import re
from types import SimpleNamespace

import pytest
import torch
from conftest import LTDNN, TINY_LTDNN, TRAIN, patched_train, run, write_corpus
from trainings import utterances_of

from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.dataio.datasets import training_dataset
from speechbrain_ext.dataio.hidden_states import HiddenStates, hidden_state_crops
from speechbrain_ext.dataio.manifests import write_manifest
from speechbrain_ext.inference import hidden_state_cache
from speechbrain_ext.inference.hidden_state_cache import cache_hidden_states
from speechbrain_ext.lobes.encoders.cls_encoder import load_cls_encoder
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.encoders.random_encoder import FAMILIES, save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.stored_states import StoredStates
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.training.steps import hidden_state_datasets
from speechbrain_ext.utils.errors import InputError

SMALL = "speechbrain_ext/wavlm-small"


@pytest.fixture(scope="module")
def utterances(tmp_path_factory):
    return utterances_of(write_corpus(tmp_path_factory.mktemp("speakers"), 3, 2))


@pytest.fixture(scope="module")
def encoder():
    return load_encoder(SMALL)


@pytest.fixture
def encoded(monkeypatch):
    """Counts the utterances that an encoder is given."""
    seen = []
    forward = hidden_state_cache.Encoder.forward

    def counted(self, wav, wav_lens=None):
        seen.extend(wav)
        return forward(self, wav, wav_lens)

    monkeypatch.setattr(hidden_state_cache.Encoder, "forward", counted)
    return seen


def test_the_encoders_own_hidden_states(encoder, utterances, tmp_path, encoded):
    names = list(utterances)
    groups = [{n: utterances[n] for n in names[:4]}, {"x": utterances[names[4]]}]
    (train, valid) = cache_hidden_states(encoder, groups, tmp_path)
    assert len(encoded) == 5
    for states, group in zip((train, valid), groups):
        for name, item in group.items():
            wav = read_crop(item["wav"], 16000).unsqueeze(0)
            with torch.no_grad():
                expected, _ = encoder(wav, torch.ones(1))
            own, _ = StoredStates()(
                states.read(name, 0, states.n_frames(name)).unsqueeze(0), torch.ones(1)
            )
            torch.testing.assert_close(own, expected, rtol=2**-10, atol=1e-4)

    # Another group and another order: only what is not there is encoded.
    encoded.clear()
    (again,) = cache_hidden_states(encoder, [utterances], tmp_path)
    assert len(encoded) == 1
    name = names[1]
    n_frames = again.n_frames(name)
    assert torch.equal(again.read(name, 0, n_frames), train.read(name, 0, n_frames))

    # Another encoder, another file of the same name: others.
    encoded.clear()
    other = load_encoder(SMALL, layers=[0, 2])
    (two_layers,) = cache_hidden_states(other, groups[1:], tmp_path)
    assert len(encoded) == 1
    assert two_layers.read("x", 3, 2).shape == (2, 2, encoder.channels)
    torch.testing.assert_close(
        two_layers.read("x", 3, 2), valid.read("x", 3, 2)[:, [0, 2]],
        rtol=2**-9, atol=1e-3,
    )  # fmt: skip
    changed = {**utterances[names[0]], "start": 0.2, "duration": 0.5}
    (crop,) = cache_hidden_states(encoder, [{"crop": changed}], tmp_path)
    assert crop.n_frames("crop") == 23  # of 0.5 s
    os.utime(utterances[names[0]]["wav"])
    (touched,) = cache_hidden_states(encoder, [groups[0]], tmp_path)
    assert len(encoded) == 3


def test_crops(encoder, utterances, tmp_path):
    (states,) = cache_hidden_states(encoder, [utterances], tmp_path)

    class Labels:
        def encode_sequence_torch(self, names):
            return torch.tensor([int(name.removeprefix("spk")) for name in names])

    name = list(utterances)[3]
    whole = states.read(name, 0, states.n_frames(name))
    total = len(whole)
    short = hidden_state_crops(states, utterances, Labels(), 10)
    starts = set()
    for draw in range(40):
        item = short[3, draw]
        assert item["id"] == name and item["spk_id_encoded"].tolist() == [1]
        same = (
            (whole.unfold(0, 10, 1) == item["sig"].permute(1, 2, 0)).flatten(1).all(1)
        )
        starts.update(same.nonzero().flatten().tolist())
    assert len(starts) > 15 and starts <= set(range(total - 9))
    long = hidden_state_crops(states, utterances, Labels(), total + 7)[3]["sig"]
    assert torch.equal(long, torch.cat([whole, whole[:7]]))


@pytest.mark.parametrize("family", FAMILIES)
def test_crops_have_the_frames_of_a_crop_that_is_encoded(family, utterances, tmp_path):
    encoder = load_encoder(save_random_encoder(family, tmp_path / family))
    speakers = sorted({item["speaker"] for item in utterances.values()})
    manifest = tmp_path / "all.csv"
    write_manifest(
        manifest, [SimpleNamespace(id=n, **item) for n, item in utterances.items()]
    )
    train_data, _ = hidden_state_datasets(
        {
            "training_dataset": training_dataset,
            "hidden_state_cache": tmp_path / "states",
            "sentence_len": 0.6,
            "sample_rate": 16000,
            "max_batch_duration": 10.0,
            "num_workers": 0,
        },
        {"train": manifest, "valid": manifest},
        speakers,
        encoder,
        {"device": "cpu"},
    )
    states, _ = encoder(torch.rand(1, 9600))
    assert len(train_data[0]["sig"]) == states.shape[2]


def test_what_cannot_be_stored(encoder, utterances, tmp_path, monkeypatch):
    def refused(encoder, message, utterances=utterances):
        with pytest.raises(InputError, match=message):
            cache_hidden_states(encoder, [utterances], tmp_path)

    refused(load_encoder(SMALL, freeze=False), "the encoder is trained")
    refused(load_cls_encoder(SMALL), "no hidden states of which any stretch")
    refused(NormalizedFbank(8), "NormalizedFbank gives no hidden states")
    name, item = next(iter(utterances.items()))
    refused(encoder, "601 s, more than", {name: {**item, "duration": 601.0}})
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(hidden_state_cache.shutil, "disk_usage", lambda path: usage)
    refused(
        encoder, r"7 layers of 192 channels of 0\.00 h take 0\.00 GiB in '.*which has"
    )
    assert not list(tmp_path.rglob("*.safetensors"))
    monkeypatch.undo()
    loud = load_encoder(SMALL)
    with torch.no_grad():
        loud.model.encoder.layers[-1].final_layer_norm.weight.fill_(1e6)
    refused(loud, "that float16 cannot hold")
    (states,) = cache_hidden_states(encoder, [utterances], tmp_path)
    part = next(tmp_path.rglob("*.safetensors"))
    part.write_bytes(b"text")
    refused(encoder, "has no hidden states .* delete it")


def test_a_killed_run_goes_on(encoder, utterances, tmp_path, monkeypatch, encoded):
    monkeypatch.setattr(hidden_state_cache, "PART_BYTES", 1)
    write, written = HiddenStates.write, []

    def killed(path, frames, keys):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(path)
        write(path, frames, keys)

    monkeypatch.setattr(HiddenStates, "write", staticmethod(killed))
    arguments = encoder, [utterances], tmp_path, "cpu", 1.0
    with pytest.raises(KeyboardInterrupt):
        cache_hidden_states(*arguments)
    assert len(encoded) == 3
    monkeypatch.setattr(HiddenStates, "write", staticmethod(write))
    encoded.clear()
    (states,) = cache_hidden_states(*arguments)
    assert len(encoded) == 4 and not states.missing


def holding(folder, held, go_on):
    from speechbrain_ext.utils.locks import in_turn

    with in_turn(folder):
        held.set()
        go_on.wait()


def test_two_trainings_at_once_encode_once(encoder, utterances, tmp_path, encoded):
    """The second waits until the first has written, and finds all there."""
    (states,) = cache_hidden_states(encoder, [utterances], tmp_path)
    (folder,) = tmp_path.iterdir()
    parts = {path: path.read_bytes() for path in folder.glob("*.safetensors")}
    for path in parts:
        path.unlink()
    encoded.clear()
    context = multiprocessing.get_context("fork")
    held, go_on = context.Event(), context.Event()
    other = context.Process(target=holding, args=(folder, held, go_on))
    other.start()
    held.wait()

    def finish(text, *args):
        assert text.startswith("Waits for process")
        for path, content in parts.items():
            path.write_bytes(content)
        go_on.set()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("speechbrain_ext.utils.locks.logger.info", finish)
        (again,) = cache_hidden_states(encoder, [utterances], tmp_path)
    other.join()
    assert not encoded and not again.missing


TERM_AFTER_TWO_STEPS = """
import signal
from speechbrain_ext.training.brains import SpeakerBrain
start = SpeakerBrain.on_fit_batch_start
def on_fit_batch_start(self, batch, should_step):
    if self.optimizer_step == 2:
        signal.raise_signal(signal.SIGTERM)
    start(self, batch, should_step)
SpeakerBrain.on_fit_batch_start = on_fit_batch_start
"""
NO_ENCODER = """
from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.training import steps
def refuse(self, *args):
    raise AssertionError("the encoder runs")
forward, Encoder.forward = Encoder.forward, refuse
verify = steps.verify_training
def verify_training(*args):
    Encoder.forward = forward
    verify(*args)
steps.verify_training = verify_training
"""


@pytest.mark.slow  # three trainings
def test_trainings_on_one_cache(tmp_path):
    """A resumed one and a second one run no encoder, and give the same."""
    corpus = write_corpus(tmp_path / "corpus")
    options = {
        **TINY_LTDNN,
        "data_folder": corpus,
        "ssl_hub": save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32),
        "hidden_state_cache": tmp_path / "states",
    }

    def train(name, script=TRAIN, code=0, **others):
        output = tmp_path / name
        given = {**options, **others, "output_folder": output}
        result = run(script, LTDNN, given, tmp_path)
        assert result.returncode == code, result.stderr[-3000:]
        return output, (output / "log.txt").read_text()

    killed = patched_train(tmp_path, TERM_AFTER_TWO_STEPS)
    _, log = train("first", killed, code=143)
    assert "3 layers of 32 channels of 0.01 h take" in log
    parts = {p: p.stat().st_mtime_ns for p in tmp_path.glob("states/*/*.safetensors")}
    assert parts
    no_encoder = patched_train(tmp_path, NO_ENCODER)
    first, log = train("first", no_encoder)
    assert "Resumed after 3 optimiser steps" in log
    second, log = train("second", no_encoder)
    assert "3 layers of 32 channels" not in log
    assert parts == {p: p.stat().st_mtime_ns for p in parts}
    for file in ("train_log.txt", "test/scores.txt"):
        resumed, whole = (
            re.sub("minutes: [^,]*", "", (folder / file).read_text())
            for folder in (first, second)
        )
        assert resumed == whole and len(whole) > 0
    metrics = json.loads((first / "test" / "metrics.json").read_text())
    assert metrics["parameters"]["encoder"] > 10000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--freeze=False"], "give it to the stage with freeze: True alone"),
        (["--lora_rank=4"], "give lora_rank 0"),
        (["--augment=True"], "cannot be augmented"),
        (["--speeds=[100, 90]"], "have one speed"),
        (["--mask_time_prob=0.1"], "mask_time_prob has no effect with freeze: True"),
    ],
)
def test_what_has_no_effect_on_stored_hidden_states(options, message, tmp_path):
    arguments = [str(LTDNN), "--hidden_state_cache=states", *options]
    with pytest.raises(InputError, match=message):
        for stage in training_stages(read_configuration(arguments)):
            stage.values()
