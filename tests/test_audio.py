"""Audio: formats, crops, resampling, broken files."""

import shutil
import subprocess

import numpy as np
import pytest
import soundfile
import torch
from conftest import write_voice

from speechbrain_ext.dataio import m4a
from speechbrain_ext.dataio.audio import PackedFile, read_crop, read_header
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


def test_m4a_without_a_decoder_says_what_to_do(tmp_path, monkeypatch):
    (tmp_path / "a.m4a").write_bytes(b"m4a")
    monkeypatch.setattr(m4a, "_pyav", lambda: None)
    monkeypatch.setattr(m4a.shutil, "which", lambda program: None)
    assert m4a.decoder() is None
    with pytest.raises(InputError, match=r"\[m4a\].* install it or convert"):
        read_header(tmp_path / "a.m4a")


@pytest.fixture(params=["PyAV", "FFmpeg"])
def m4a_decoder(request, monkeypatch):
    if request.param == "PyAV":
        pytest.importorskip("av")
    else:
        monkeypatch.setattr(m4a, "_pyav", lambda: None)
    if m4a.decoder() != request.param:
        pytest.skip("needs the programs of FFmpeg")
    return request.param


def write_m4a(path, samples, sample_rate):
    """As AAC, by PyAV, which the tests need for it."""
    av = pytest.importorskip("av")
    samples = np.atleast_2d(samples).astype(np.float32)
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=sample_rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
        frame.sample_rate = sample_rate
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)


def test_crops_of_m4a_are_of_the_whole_file(tmp_path, m4a_decoder):
    path = tmp_path / "a.m4a"
    write_m4a(path, 0.3 * np.sin(np.cumsum(np.linspace(0.1, 0.9, 48000))), 16000)
    whole = read_crop(path, 16000)
    content = path.read_bytes()
    (tmp_path / "shard").write_bytes(b"before" + content)
    packed = PackedFile("gone.m4a", str(tmp_path / "shard"), 6, len(content))
    for start in (0.0, 0.11, 0.5, 1.23456, 1.9):
        crop = read_crop(path, 16000, start, 1.0)
        expected = whole[round(16000 * start) :][:16000]
        # The whole first frame would be wrong without those before it.
        torch.testing.assert_close(crop, expected, atol=1e-3, rtol=0)
        assert torch.equal(read_crop(packed, 16000, start, 1.0), crop)
    assert len(read_crop(path, 16000, 2.5, 1.0)) == len(whole) - 40000


def test_m4a_of_two_channels_and_another_rate(tmp_path, m4a_decoder):
    path = tmp_path / "a.m4a"
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(2 * 44100) / 44100)
    write_m4a(path, np.stack([tone, 0 * tone]), 44100)
    header = read_header(path)
    assert (header.sample_rate, header.n_channels) == (44100, 2)
    assert header.duration == pytest.approx(2.0, abs=0.1)
    crop = read_crop(path, 16000, 0.5, 1.0)
    assert crop.shape == (16000,)
    spectrum = torch.fft.rfft(crop).abs()
    assert int(spectrum.argmax()) == 440  # Hz, as of 1 s
    assert float(spectrum[440]) == pytest.approx(0.15 * 8000, rel=0.05)


@pytest.mark.parametrize("bits", [16, 24])
def test_m4a_without_loss(tmp_path, m4a_decoder, bits):
    """Apple Lossless, whose samples are integers."""
    av = pytest.importorskip("av")
    path, wave = tmp_path / "a.m4a", 0.3 * np.sin(np.arange(16000) / 7)
    kind, scale = ("s16p", 2**15) if bits == 16 else ("s32p", 2**31)
    samples = (wave * scale).astype(np.int16 if bits == 16 else np.int32)
    with av.open(str(path), "w", format="ipod") as container:
        stream = container.add_stream("alac", rate=16000, layout="mono", format=kind)
        frame = av.AudioFrame.from_ndarray(samples[None], format=kind, layout="mono")
        frame.sample_rate = 16000
        for packet in [*stream.encode(frame), *stream.encode(None)]:
            container.mux(packet)
    assert read_header(path).n_samples == 16000
    expected = torch.from_numpy(wave).float()
    torch.testing.assert_close(read_crop(path, 16000), expected, atol=2**-14, rtol=0)


def test_m4a_by_name_alone(tmp_path, m4a_decoder):
    write_voice(tmp_path / "a.wav", 0, 0)
    shutil.copy(tmp_path / "a.wav", tmp_path / "b.m4a")
    of_wav, of_m4a = (read_crop(tmp_path / name, 16000) for name in ("a.wav", "b.m4a"))
    torch.testing.assert_close(of_m4a, of_wav, atol=1e-6, rtol=0)


def test_m4a_that_is_none(tmp_path, m4a_decoder):
    (tmp_path / "a.m4a").write_bytes(b"this is no audio at all" * 100)
    with pytest.raises(InputError, match="^unreadable: "):
        read_header(tmp_path / "a.m4a")
    with pytest.raises(InputError, match="a.m4a' cannot be decoded .unreadable: "):
        read_crop(tmp_path / "a.m4a", 16000)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs FFmpeg to write m4a")
def test_m4a_of_ffmpeg(tmp_path, m4a_decoder):
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
