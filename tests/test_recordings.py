"""Noise and rooms from folders."""

import csv
import logging
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_voice
from speechbrain.augment.augmenter import Augmenter

from speechbrain_ext.augment import recordings
from speechbrain_ext.augment.recordings import (
    RecordedNoise,
    recorded_augmentations,
    rooms_table,
)
from speechbrain_ext.utils.errors import InputError


@pytest.fixture
def folders(tmp_path):
    rng = np.random.default_rng(0)
    noise, rooms = tmp_path / "noise" / "free", tmp_path / "rooms"
    noise.mkdir(parents=True)
    rooms.mkdir()
    soundfile.write(noise / "long.wav", rng.standard_normal(64000) / 9, 16000)
    soundfile.write(noise / "short.flac", rng.standard_normal(2000) / 9, 8000)
    response = np.zeros(1600)
    response[[0, 400]] = 1.0, 0.5
    soundfile.write(rooms / "mono.wav", response, 16000)
    soundfile.write(rooms / "array.wav", np.stack([response] * 4, 1), 16000)
    soundfile.write(rooms / "narrow.wav", response, 8000)
    return tmp_path


def test_each_waveform_gets_noise_of_its_own(folders):
    random.seed(1)  # draws both; the short one has one crop only
    noise = RecordedNoise(folders / "noise")(torch.zeros(6, 16000))
    assert noise.shape == (6, 16000) and noise.std(1).min() > 0.05
    assert len({tuple(row[:5].tolist()) for row in noise}) > 2


def test_only_mono_rooms_of_the_right_rate(folders, tmp_path):
    rooms_table(folders / "rooms", tmp_path / "rooms.csv", 16000)
    with open(tmp_path / "rooms.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    assert row["wav"].endswith("mono.wav") and float(row["duration"]) == 0.1
    with pytest.raises(InputError, match="no mono response at 44100 Hz"):
        rooms_table(folders / "rooms", tmp_path / "rooms.csv", 44100)


def test_augmenter_takes_them(folders, tmp_path):
    noise, rooms = recorded_augmentations(
        folders / "noise", folders / "rooms", tmp_path, snr_low=5, snr_high=5
    )
    torch.manual_seed(0)
    wavs = torch.randn(3, 16000)
    lengths = torch.ones(3)
    augmenter = Augmenter(
        min_augmentations=1, max_augmentations=2, augmentations=[noise, rooms]
    )
    for _ in range(4):
        augmented, _ = augmenter(wavs, lengths)
        assert augmented.shape == wavs.shape
        assert not torch.allclose(augmented, wavs)
    click = torch.zeros(1, 16000)
    click[0, 100] = 1.0
    reverberant = rooms(click)[0]
    assert reverberant[500] == pytest.approx(0.5 * reverberant[100].item(), rel=1e-3)


@pytest.mark.parametrize(
    "noise_folder, url, message",
    [
        (None, None, "noise_folder is not given"),
        ("nowhere", None, "no folder 'nowhere' and noise_url is not given"),
        ("nowhere", "http://localhost:9/a.zip", "could not be downloaded"),
    ],
)
def test_what_is_not_there_is_named_and_left_out(
    folders, tmp_path, monkeypatch, caplog, noise_folder, url, message
):
    monkeypatch.chdir(tmp_path)
    with caplog.at_level(logging.WARNING):
        (rooms,) = recorded_augmentations(
            noise_folder, folders / "rooms", tmp_path, noise_url=url
        )
    assert type(rooms).__name__ == "AddReverb"
    assert message in caplog.text and "without added noise" in caplog.text


def test_without_recordings_nothing_changes(tmp_path):
    augmenter = Augmenter(
        min_augmentations=1, max_augmentations=1,
        augmentations=recorded_augmentations(None, None, tmp_path),
    )  # fmt: skip
    wavs = torch.randn(2, 800)
    augmented, lengths = augmenter(wavs, torch.ones(2))
    assert torch.equal(augmented, wavs) and len(lengths) == 2


def test_empty_folder_is_an_error(tmp_path):
    with pytest.raises(InputError, match="no audio"):
        RecordedNoise(tmp_path)


def test_half_download_is_no_folder(tmp_path, monkeypatch):
    folder, fetched = tmp_path / "noise", []

    def download(url, target, extension, table):
        fetched.append(url)
        write_voice(Path(target) / "a.wav", 0, 0)
        if len(fetched) == 1:
            raise KeyboardInterrupt
        Path(table).write_text("", encoding="utf-8")

    monkeypatch.setattr(recordings, "prepare_dataset_from_URL", download)
    arguments = (folder, None, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        recorded_augmentations(*arguments, noise_url="http://x/noise.zip")
    assert not folder.exists()
    for _ in range(2):
        (noise,) = recorded_augmentations(*arguments, noise_url="http://x/noise.zip")
    assert len(fetched) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["noise"]
