"""Caches know all that they depend on: plain keys, and models' fingerprints."""

import copy
import functools
import json
import os
import shutil

import pytest
import torch
from speechbrain.lobes.models.Xvector import Xvector

from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.dataio.windows import Windows
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.inference.teacher_frames import TeacherFrames
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.features import NormalizedFbank
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.utils.cache_keys import (
    file_key,
    key_file,
    make_once,
    stable_hash,
    stale_parts,
)
from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.fingerprints import (
    fingerprint_differences,
    model_fingerprint,
)


def test_hash_is_the_same_everywhere():
    assert stable_hash({"b": [1.5, None], "a": "é\udc80"}) == (
        stable_hash({"a": "é\udc80", "b": (1.5, None)})
    )
    assert stable_hash([]).startswith("4f53cda18c2baa0c")
    with pytest.raises(TypeError):
        stable_hash({"model": object()})


@pytest.mark.parametrize("other", [1.0, "1", [1], {"a": 1}, None, True])
def test_hash_tells_kinds_apart(other):
    assert stable_hash(1) != stable_hash(other)


def test_stale_file_is_made_again(tmp_path, caplog):
    path, made = tmp_path / "a.txt", []
    key = {"n": 2, "of": {"seed": 1}, "file": file_key(tmp_path / "b.wav")}

    def make():
        made.append(key["n"])
        path.write_text("x", encoding="utf-8")

    make_once(path, key, make)
    make_once(path, copy.deepcopy(key), make)
    assert made == [2] and not caplog.text
    (tmp_path / "b.wav").write_bytes(b"123")
    key.update(n=3, of={"seed": 2}, file=file_key(tmp_path / "b.wav"))
    make_once(path, key, make)
    assert made == [2, 3]
    said = "file.size (null, not 3), file.time (null, not "
    assert f"a.txt' is of other {said}" in caplog.text
    assert "n (2, not 3), of.seed (1, not 2): remade" in caplog.text


def test_without_a_whole_key_a_file_is_made_again(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("of a former version", encoding="utf-8")
    assert stale_parts(path, {}) == ["origin (unknown)"]
    make_once(path, {}, lambda: None)
    assert stale_parts(path, {}) == []
    key_file(path).write_text("{", encoding="utf-8")
    assert stale_parts(path, {}) == ["origin (unknown)"]


def test_kill_while_a_stale_file_is_made_again(tmp_path):
    path = tmp_path / "a.txt"
    make_once(path, {"n": 2}, lambda: path.write_text("2", encoding="utf-8"))

    def killed():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_once(path, {"n": 3}, killed)
    # Neither key may match what is half of one and half of the other.
    assert stale_parts(path, {"n": 2}) and stale_parts(path, {"n": 3})


def test_half_files_of_killed_processes_go(tmp_path):
    path = tmp_path / "a.json"
    with atomic_path(path) as partial:
        partial.write_text("1", encoding="utf-8")
    mine = partial
    of_dead = mine.with_name(mine.name.replace(str(os.getpid()), "99999999"))
    of_another_host = tmp_path / ".partial-elsewhere-99999999-a.json"
    of_another_file = of_dead.with_name(of_dead.name.replace("a.json", "b.json"))
    of_running = mine.with_name(mine.name.replace(str(os.getpid()), str(os.getppid())))
    left = [of_dead, of_another_host, of_another_file, of_running]
    for file in left:
        file.write_text("half", encoding="utf-8")
    with atomic_path(path) as partial:
        partial.write_text("2", encoding="utf-8")
    assert [file.exists() for file in left] == [False, True, True, True]


def test_row_keys_depend_on_windows_of_long_recordings_only(tmp_path):
    items = {
        name: {"wav": str(tmp_path / name), "duration": duration}
        for name, duration in (("short", 5.0), ("long", 50.0))
    }
    whole, cut, other = (
        row_keys_of(items, windows)
        for windows in (None, Windows(10.0), Windows(10.0, 5.0))
    )
    assert torch.equal(whole[0], cut[0]) and torch.equal(whole[0], other[0])
    assert len({tuple(keys[1].tolist()) for keys in (whole, cut, other)}) == 3


@pytest.mark.parametrize("overlap", [0.0, 1.0, 6.5])
@pytest.mark.parametrize("duration", [7.01, 12.0, 14.0, 99.9])
def test_windows_cover_a_recording(duration, overlap):
    windows = Windows(7.0, overlap).cut(duration, start=3.0)
    assert windows[0][0] == 3.0 and {length for _, length in windows} == {7.0}
    assert windows[-1][0] + 7.0 == pytest.approx(3.0 + duration)
    steps = [b[0] - a[0] for a, b in zip(windows, windows[1:])]
    assert max(steps) <= 7.0 - overlap + 1e-9
    # No more windows than are needed.
    assert (len(windows) - 2) * (7.0 - overlap) + 7.0 < duration


def fbank_xvector(**features):
    torch.manual_seed(0)
    return SpeakerRecognition(
        NormalizedFbank(24, **features), Xvector(in_channels=24), 16000, threshold=0.25
    )


@pytest.mark.parametrize("features", [{"keep_spectrum": True}, {"preemphasis": 0.97}])
def test_other_features_are_another_model(features):
    plain, other = fbank_xvector(), fbank_xvector(**features)
    wavs = torch.rand(2, 16000)
    assert not torch.equal(plain.encode_batch(wavs), other.encode_batch(wavs))
    differing = fingerprint_differences(plain.fingerprint, other.fingerprint)
    assert differing == ["configuration"]


def test_same_model_has_the_same_fingerprint_before_and_after_use():
    model, again = fbank_xvector(), fbank_xvector()
    assert model.fingerprint == again.fingerprint
    again.threshold = 0.5
    with torch.autocast("cpu"):
        again.encode_batch(torch.rand(2, 16000), torch.tensor([1.0, 0.5]))
    assert model.fingerprint == again.fingerprint
    again.encoder.preemphasis = 0.5
    assert model.fingerprint != again.fingerprint


def frames(layers, **arguments):
    return TeacherFrames(fbank_xvector(), layers, **arguments)


def test_other_frames_of_a_teacher_are_another_model():
    last = frames(["blocks.14"])
    last(torch.rand(1, 16000))
    assert model_fingerprint(last) == model_fingerprint(frames(["blocks.14"]))
    others = [
        last,
        frames(["blocks.11"]),
        frames(["blocks.11", "blocks.14"]),
        frames(["blocks.14", "blocks.11"]),
        frames(["blocks.14"], channels_first=True),
    ]
    assert len(set(map(model_fingerprint, others))) == len(others)


def ssl_system(folder, mask="full", layers=None):
    torch.manual_seed(0)
    encoder = SSLEncoder(folder, layers=layers)
    back_end = LTDNN(
        in_channels=encoder.channels, n_layers=encoder.n_layers,
        conv_channels=8, pooled_channels=8, emb_dim=8, scale=2, mask=mask,
    )  # fmt: skip
    return SpeakerRecognition(encoder, back_end, 16000, threshold=0.25)


def test_ssl_system_by_what_it_is_and_not_by_where(tmp_path):
    here = save_small_wavlm(tmp_path / "here", n_layers=2, channels=32)
    model = ssl_system(here)
    before = model.fingerprint
    model.encode_batch(torch.rand(2, 16000), torch.tensor([1.0, 0.5]))
    assert model.fingerprint == before
    shutil.move(here, tmp_path / "moved" / "there")
    moved = str(tmp_path / "moved" / "there")
    assert ssl_system(moved).fingerprint == before
    assert ssl_system(moved, mask="pooling").fingerprint != before
    assert ssl_system(moved, layers=[2, 1, 0]).fingerprint != before
    config = tmp_path / "moved" / "there" / "config.json"
    content = json.loads(config.read_text("utf-8"))
    content["layer_norm_eps"] = 1e-3
    config.write_text(json.dumps(content), encoding="utf-8")
    assert ssl_system(moved).fingerprint != before


class Scale(torch.nn.Module):
    """Keeps what it depends on in ways that modules of users do."""

    def __init__(self, **attributes):
        super().__init__()
        for name, value in attributes.items():
            setattr(self, name, value)


class Option:
    __slots__ = ("value",)

    def __init__(self, value):
        self.value = value


def power(exponent):
    return lambda x: x**exponent


@pytest.mark.parametrize(
    "one, other",
    [
        (1, 2),
        (1, 1.0),
        ("mean", "max"),
        (torch.ones(2), torch.zeros(2)),
        (torch.float32, torch.float16),
        ([1, 2], [2, 1]),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}),
        ({1, 2}, {1, 3}),
        (torch.relu, torch.tanh),
        (functools.partial(torch.clamp, min=0), functools.partial(torch.clamp, min=1)),
        (power(2), power(3)),
        (lambda x: x + 1, lambda x: x + 2),
        (Option(1), Option(2)),
        ([torch.nn.AvgPool1d(2)], [torch.nn.AvgPool1d(3)]),
        ([torch.nn.Dropout(0.1)], [torch.nn.AlphaDropout(0.1)]),
    ],
)
def test_every_kind_of_attribute_counts(one, other):
    fingerprints = [model_fingerprint(Scale(_kept=value)) for value in (one, other)]
    assert fingerprints[0] != fingerprints[1]
    assert model_fingerprint(Scale(_kept=copy.deepcopy(one))) == fingerprints[0]


@pytest.mark.parametrize(
    "one, other",
    [
        ("/data/encoder", "/moved/encoder"),
        ("cpu", "cuda:0"),
        (torch.device("cpu"), torch.device("cuda", 0)),
    ],
)
def test_place_and_device_do_not_count(one, other):
    assert model_fingerprint(Scale(kept=one)) == model_fingerprint(Scale(kept=other))


def test_order_and_type_of_modules_count():
    relu, tanh = torch.nn.ReLU(), torch.nn.Tanh()
    chains = [
        torch.nn.Sequential(relu, tanh),
        torch.nn.Sequential(tanh, relu),
        torch.nn.Sequential(relu, relu),
        torch.nn.Sequential(relu),
    ]
    assert len(set(map(model_fingerprint, chains))) == len(chains)


def test_unsaved_buffers_and_training_mode_count():
    model, other = Scale(), Scale()
    model.register_buffer("window", torch.ones(2), persistent=False)
    other.register_buffer("window", torch.zeros(2), persistent=False)
    assert model_fingerprint(model) != model_fingerprint(other)
    assert model_fingerprint(model) != model_fingerprint(copy.deepcopy(model).eval())


def test_random_encoder_of_other_arguments_is_made_again(tmp_path, caplog):
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=1, channels=32)
    assert save_small_wavlm(folder, n_layers=1, channels=32) == folder
    assert not caplog.text
    save_small_wavlm(folder, n_layers=2, channels=32)
    assert "wavlm' is of other n_layers (1, not 2): remade" in caplog.text
    assert SSLEncoder(folder).n_layers == 3
    key_file(folder).unlink()
    with pytest.raises(FileExistsError, match="is there already"):
        save_small_wavlm(folder, n_layers=3, channels=32)
