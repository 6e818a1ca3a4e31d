"""Audio: formats, crops, resampling, broken files."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_voice

from speechbrain_ext.dataio import audio
from speechbrain_ext.dataio.audio import read_crop, read_header
from speechbrain_ext.utils.errors import InputError


def ramp(n_samples):
    return np.linspace(-0.5, 0.5, n_samples)


@pytest.mark.parametrize(
    "name, kwargs",
    [
        ("a.wav", {}),
        ("a.flac", {}),
        ("a.ogg", {}),
        ("a.mp3", {}),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}),
    ],
)
def test_formats(tmp_path, name, kwargs):
    path = tmp_path / name
    soundfile.write(path, ramp(16000), 16000, **kwargs)
    header = read_header(path)
    assert header.sample_rate == 16000
    assert header.duration == pytest.approx(1.0, abs=0.1)
    assert len(read_crop(path, 16000, 0.25, 0.5)) == 8000


def test_crop_is_the_asked_part(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, ramp(16000), 16000, subtype="FLOAT")
    crop = read_crop(path, 16000, start=0.5, duration=0.25)
    expected = torch.tensor(ramp(16000)[8000:12000], dtype=torch.float32)
    torch.testing.assert_close(crop, expected)
    assert len(read_crop(path, 16000, start=0.9)) == 1600
    assert len(read_crop(path, 16000, start=5.0, duration=1.0)) == 0


def test_stereo_is_mixed_down_and_rates_are_resampled(tmp_path):
    path = tmp_path / "a.wav"
    time = np.arange(48000) / 48000
    left = np.sin(2 * np.pi * 200 * time)
    soundfile.write(path, np.stack([left, 0 * left], 1), 48000)
    wav = read_crop(path, 16000)
    assert wav.shape == (16000,)
    expected = torch.tensor(0.5 * left[::3], dtype=torch.float32)
    assert (wav - expected)[200:-200].abs().max() < 0.01


def test_nan_samples(tmp_path):
    path = tmp_path / "nan.wav"
    wav = ramp(16000)
    wav[77] = np.nan
    soundfile.write(path, wav, 16000, subtype="FLOAT")
    with pytest.raises(InputError, match="NaN"):
        read_header(path)


def test_zero_length(tmp_path):
    path = tmp_path / "empty.wav"
    soundfile.write(path, np.zeros(0), 16000)
    with pytest.raises(InputError, match="zero length"):
        read_header(path)


def test_unreadable(tmp_path):
    path = tmp_path / "text.wav"
    path.write_text("no audio", encoding="utf-8")
    with pytest.raises(InputError, match="unreadable"):
        read_header(path)
    with pytest.raises(InputError, match="text.wav' cannot be decoded"):
        read_crop(path, 16000)


def test_truncated_flac(tmp_path):
    path = tmp_path / "cut.flac"
    rng = np.random.default_rng(0)
    soundfile.write(path, 0.1 * rng.standard_normal(32000), 16000)
    path.write_bytes(path.read_bytes()[:20000])
    with pytest.raises(InputError, match="cut short|unreadable"):
        read_header(path)


def test_m4a_without_ffmpeg_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"m4a")
    monkeypatch.setattr(audio.shutil, "which", lambda program: None)
    with pytest.raises(InputError, match="install it or convert"):
        read_header(tmp_path / "a.m4a")


@pytest.mark.skipif(
    shutil.which("ffmpeg") is None, reason="needs FFmpeg to write and read m4a"
)
def test_m4a_where_ffmpeg_is(tmp_path):
    write_voice(tmp_path / "a.wav", 0, 0, duration=2.0)
    subprocess.run(
        ["ffmpeg", "-v", "error", "-i", tmp_path / "a.wav", tmp_path / "a.m4a"],
        check=True,
    )
    header = read_header(tmp_path / "a.m4a")
    assert header.sample_rate == 16000 and header.n_channels == 1
    assert abs(header.duration - 2.0) < 0.1
    whole = read_crop(tmp_path / "a.m4a", 16000)
    assert abs(len(whole) - 32000) < 1600
    crop = read_crop(tmp_path / "a.m4a", 16000, start=0.5, duration=1.0)
    assert crop.shape == (16000,)
    # The codec delays and rounds, but the tone is the same.
    original, decoded = (
        torch.fft.rfft(read_crop(tmp_path / name, 16000)[:30000]).abs()
        for name in ("a.wav", "a.m4a")
    )
    assert torch.cosine_similarity(original, decoded, dim=0) > 0.9
