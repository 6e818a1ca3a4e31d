"""Reading audio files: headers without decoding, crops as mono waveforms.

libsndfile (SpeechBrain's reader) decodes wav, flac, ogg, opus and mp3; m4a,
the format of VoxCeleb2, goes through the `ffmpeg` program where it is there.
"""

import dataclasses
import functools
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from speechbrain_ext.utils.errors import InputError

AUDIO_EXTENSIONS = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a")


@dataclasses.dataclass(frozen=True)
class AudioHeader:
    """What a header says of an audio file.

    Arguments
    ---------
    sample_rate : int
        In Hz.
    n_samples : int
        Samples of each channel.
    n_channels : int
        Number of channels.

    Example
    -------
    >>> AudioHeader(sample_rate=16000, n_samples=8000, n_channels=1).duration
    0.5
    """

    sample_rate: int
    n_samples: int
    n_channels: int

    @property
    def duration(self):
        """Duration in seconds."""
        return self.n_samples / self.sample_rate


def read_header(path):
    """Reads the header of an audio file and probes that the file is whole.

    Arguments
    ---------
    path : str or Path
        Audio file.

    Returns
    -------
    AudioHeader
        Of the file.

    Raises
    ------
    InputError
        If the file is unreadable, cut short, empty or has NaN samples.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.wav"
    >>> soundfile.write(path, np.zeros(8000), 16000)
    >>> read_header(path)
    AudioHeader(sample_rate=16000, n_samples=8000, n_channels=1)
    """
    if Path(path).suffix.lower() == ".m4a":
        return _m4a_header(path)
    try:
        with soundfile.SoundFile(path) as audio:
            header = AudioHeader(
                audio.samplerate, audio.frames, audio.channels
            )
            if header.n_samples == 0:
                raise InputError("zero length")
            # Only floating point samples can be NaN.
            if audio.subtype in ("FLOAT", "DOUBLE"):
                if np.isnan(audio.read(dtype="float32")).any():
                    raise InputError("NaN samples")
            else:
                tail = min(header.n_samples, header.sample_rate // 10)
                audio.seek(header.n_samples - tail)
                if len(audio.read(tail, dtype="int16")) < tail:
                    raise InputError("cut short")
    except soundfile.LibsndfileError as error:
        raise InputError(f"unreadable: {error.error_string}") from None
    return header


def read_crop(path, sample_rate, start=0.0, duration=None):
    """Reads a part of an audio file as a mono waveform.

    Arguments
    ---------
    path : str or Path
        Audio file.
    sample_rate : int
        Of the result, in Hz; other files are resampled.
    start : float
        In seconds.
    duration : float
        In seconds; to the end if None.

    Returns
    -------
    torch.Tensor
        Waveform of shape (time,), the mean of the channels.

    Raises
    ------
    InputError
        If the file cannot be decoded.

    Example
    -------
    >>> path = getfixture("tmpdir") / "stereo.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> read_crop(path, sample_rate=16000, start=0.5, duration=0.25).shape
    torch.Size([4000])
    """
    if Path(path).suffix.lower() == ".m4a":
        return _m4a_crop(path, sample_rate, start, duration)
    try:
        with soundfile.SoundFile(path) as audio:
            audio.seek(min(round(start * audio.samplerate), audio.frames))
            n_samples = (
                -1 if duration is None else round(duration * audio.samplerate)
            )
            samples = audio.read(n_samples, dtype="float32", always_2d=True)
            file_rate = audio.samplerate
    except soundfile.LibsndfileError as error:
        raise InputError(
            f"'{path}' cannot be decoded ({error.error_string}); repair or "
            "remove the file and start again"
        ) from None
    return _normalizer(sample_rate)(torch.from_numpy(samples), file_rate)


@functools.lru_cache
def _normalizer(sample_rate):
    # One for each rate: it caches SpeechBrain's resampling filters.
    return AudioNormalizer(sample_rate)


def _run(program, *arguments):
    if shutil.which(program) is None:
        raise InputError(
            f"m4a needs the program '{program}' (part of FFmpeg): install it "
            "or convert the files to wav"
        )
    result = subprocess.run(
        [program, "-v", "error", *map(str, arguments)],
        capture_output=True,
        check=False,
    )
    if result.returncode or not result.stdout:
        message = result.stderr.decode(errors="replace").strip()
        raise InputError(f"unreadable: {message or 'no audio'}")
    return result.stdout


def _m4a_header(path):
    entries = "stream=sample_rate,channels:format=duration"
    found = json.loads(
        _run("ffprobe", "-select_streams", "a:0", "-show_entries", entries,
             "-of", "json", path)
    )  # fmt: skip
    if not found.get("streams"):
        raise InputError("unreadable: no audio stream")
    stream = found["streams"][0]
    sample_rate = int(stream["sample_rate"])
    n_samples = round(float(found["format"]["duration"]) * sample_rate)
    if n_samples == 0:
        raise InputError("zero length")
    return AudioHeader(sample_rate, n_samples, int(stream["channels"]))


def _m4a_crop(path, sample_rate, start, duration):
    length = () if duration is None else ("-t", duration)
    raw = _run("ffmpeg", "-ss", start, "-i", path, *length, "-f", "f32le",
               "-ac", 1, "-ar", sample_rate, "-")  # fmt: skip
    return torch.from_numpy(np.frombuffer(raw, dtype=np.float32).copy())
