"""Reading audio files: headers without decoding, crops as mono waveforms.

A crop may also be of a file that is packed into a shard.

libsndfile (SpeechBrain's reader) decodes wav, flac, ogg, opus and mp3; m4a is left to
`dataio.m4a`.
"""

import contextlib
import dataclasses
import functools
import io
import math
import os
import stat
import threading
from pathlib import Path

import numpy as np
import soundfile
import torch
from speechbrain.dataio.preprocess import AudioNormalizer

from speechbrain_ext.dataio.m4a import read_m4a_crop, read_m4a_header
from speechbrain_ext.utils.errors import InputError

# In order of preference, where a recording is there in several
AUDIO_EXTENSIONS = (".wav", ".flac", ".opus", ".ogg", ".mp3", ".m4a")
# What a header may claim, in Hz; another rate is an error in the header, and the
# filters that resample from it would be as large as it is wrong.
SAMPLE_RATES = range(4000, 384001)
# Weights of the largest resampling filter, 128 MiB; rates without a large common
# divisor, such as 44,101 and 16,000 Hz, need gigabytes.
MAX_FILTER = 2**25
FLOATS = ("FLOAT", "DOUBLE")  # samples that can be infinite or NaN
BLOCK = 2**16  # samples that are checked at a time
READ_AHEAD = 2**17  # bytes; more at a time is more than Linux reads ahead by default
MAX_BLOCKS = 256  # all of 17 minutes at 16 kHz in mono


@dataclasses.dataclass(frozen=True)
class AudioHeader:
    """What a header says of an audio file.

    Arguments
    ---------
    sample_rate : int
        Sample rate in Hz.
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


@dataclasses.dataclass(frozen=True, slots=True)
class PackedFile:
    """An audio file whose bytes are read from a shard.

    Its path stays that of the file, which need not be there.

    Arguments
    ---------
    path : str
        Path of the file.
    shard : str
        File that has its bytes among others.
    start : int
        Where they start, in bytes.
    size : int
        How many they are.

    Example
    -------
    >>> shard = getfixture("tmpdir") / "shard"
    >>> shard.write_binary(b"onetwothree")
    >>> file = PackedFile("two.wav", str(shard), start=3, size=3)
    >>> file.read(), os.fspath(file)
    (b'two', 'two.wav')
    """

    path: str
    shard: str
    start: int
    size: int

    def __fspath__(self):
        return self.path

    def __str__(self):
        return f"{self.path} in {self.shard}"

    def read(self):
        """Reads the bytes of the file.

        Returns
        -------
        bytes
            As many as its size says.

        Raises
        ------
        InputError
            If the shard ends before.
        """
        _read_ahead(self.shard)
        with open(self.shard, "rb", buffering=0) as file:
            file.seek(self.start)
            content = file.read(self.size)
        if len(content) < self.size:
            raise InputError("its shard is cut short; copy or write the shard again")
        return content


@functools.lru_cache(maxsize=4)
def _read_ahead(shard):
    """Lets the system read a shard from start to end, for files in any order."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        threading.Thread(target=_advise, args=[shard], daemon=True).start()


def _advise(shard):
    # What cannot be opened is an error where it is read.
    with contextlib.suppress(OSError), open(shard, "rb", buffering=0) as file:
        for start in range(0, os.fstat(file.fileno()).st_size, READ_AHEAD):
            os.posix_fadvise(file.fileno(), start, READ_AHEAD, os.POSIX_FADV_WILLNEED)


def read_header(path):
    """Reads the header of an audio file and probes that the file is whole.

    Of integer samples the last tenth of a second is read. Floating point
    samples are checked to be finite, all of them in files of up to 16 million
    samples; of longer files that many, spread evenly.

    Arguments
    ---------
    path : str or Path
        Audio file.

    Returns
    -------
    AudioHeader
        What the header of the file says.

    Raises
    ------
    InputError
        If the file is missing, unreadable, cut short, empty, cannot be read
        from the middle, claims an impossible sample rate or has infinite or NaN
        samples. The message leaves the path to the caller.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.wav"
    >>> soundfile.write(path, np.zeros(8000), 16000)
    >>> read_header(path)
    AudioHeader(sample_rate=16000, n_samples=8000, n_channels=1)
    """
    missing = _why_no_file(path)
    if missing:
        raise InputError(missing)
    if Path(path).suffix.lower() == ".m4a":
        return _checked(AudioHeader(*read_m4a_header(path)))
    try:
        with soundfile.SoundFile(path) as audio:
            header = _checked(
                AudioHeader(audio.samplerate, audio.frames, audio.channels)
            )
            if not audio.seekable():
                raise InputError(
                    f"{audio.subtype_info} has no random access; convert it to "
                    "16-bit wav or flac"
                )
            if audio.subtype in FLOATS:
                _check_finite(audio)
            else:
                tail = min(header.n_samples, header.sample_rate // 10)
                audio.seek(header.n_samples - tail)
                if len(audio.read(tail, dtype="int16")) < tail:
                    raise InputError("cut short")
    except soundfile.SoundFileError as error:
        raise InputError(f"unreadable: {_reason(error)}") from None
    return header


def require_header(path):
    """Reads the header of an audio file that is needed.

    Arguments
    ---------
    path : str or Path
        Audio file.

    Returns
    -------
    AudioHeader
        What `read_header` returns.

    Raises
    ------
    InputError
        As of `read_header`; the message names the file.

    Example
    -------
    >>> require_header("gone.wav")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: 'gone.wav': there is no such file
    """
    try:
        return read_header(path)
    except InputError as error:
        raise InputError(f"'{path}': {error}") from None


def _why_no_file(path):
    """Says why there is nothing to read; a pipe would never end, for one."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        return "there is no such file"
    except OSError as error:
        return f"unreadable: {error.strerror}"
    if not stat.S_ISREG(mode):
        return "not a regular file"
    # libsndfile would have to be told their rate and type.
    is_raw = Path(path).suffix.lower() == ".raw"
    return "raw samples have no header; convert it to wav" if is_raw else None


def _checked(header):
    if header.n_samples == 0:
        raise InputError("zero length")
    if header.sample_rate not in SAMPLE_RATES:
        raise InputError(
            f"its header claims a sample rate of {header.sample_rate} Hz; "
            f"{SAMPLE_RATES[0]} to {SAMPLE_RATES[-1]} Hz can be read"
        )
    return header


def _check_finite(audio):
    block = max(1, BLOCK // audio.channels)
    n_blocks = -(-audio.frames // block)
    for number in np.unique(
        np.linspace(0, n_blocks - 1, min(n_blocks, MAX_BLOCKS)).astype(int)
    ):
        start = int(number) * block
        audio.seek(start)
        samples = audio.read(block, dtype="float32")
        if len(samples) < min(block, audio.frames - start):
            raise InputError("cut short")
        _require_finite(samples)


def _require_finite(samples):
    if not np.isfinite(samples).all():
        kind = "NaN" if np.isnan(samples).any() else "infinite"
        raise InputError(f"{kind} samples")


def _reason(error):
    return getattr(error, "error_string", str(error))


def why_not_resampled(sample_rate, wanted):
    """Says why one sample rate cannot become another one, if so.

    Arguments
    ---------
    sample_rate : int
        Sample rate of the file, in Hz.
    wanted : int
        Sample rate of the model, in Hz.

    Returns
    -------
    str or None
        The reason.

    Example
    -------
    >>> why_not_resampled(44100, 16000) is None
    True
    >>> why_not_resampled(44101, 16000)
    'its sample rate of 44101 Hz has too small a divisor in common with 16000 Hz; \
convert it to a usual rate'
    """
    divisor = math.gcd(sample_rate, wanted)
    if sample_rate == wanted or sample_rate * wanted // divisor**2 <= MAX_FILTER:
        return None
    return (
        f"its sample rate of {sample_rate} Hz has too small a divisor in common "
        f"with {wanted} Hz; convert it to a usual rate"
    )


def read_crop(path, sample_rate, start=0.0, duration=None):
    """Reads a part of an audio file as a mono waveform.

    Arguments
    ---------
    path : str or Path or PackedFile
        Audio file.
    sample_rate : int
        Sample rate of the result, in Hz; other files are resampled.
    start : float
        Start in seconds.
    duration : float
        Duration in seconds; to the end if None.

    Returns
    -------
    torch.Tensor
        Waveform of shape (time,), the mean of the channels.

    Raises
    ------
    InputError
        If the file is missing, cannot be decoded or has infinite or NaN
        samples; the message names it.

    Example
    -------
    >>> path = getfixture("tmpdir") / "stereo.wav"
    >>> soundfile.write(path, np.zeros((8000, 2)), 8000)
    >>> read_crop(path, sample_rate=16000, start=0.5, duration=0.25).shape
    torch.Size([4000])
    """
    packed = isinstance(path, PackedFile)
    missing = None if packed else _why_no_file(path)
    if missing:
        raise InputError(f"'{path}': {missing}")
    try:
        file = io.BytesIO(path.read()) if packed else path
        if Path(path).suffix.lower() == ".m4a":
            samples, file_rate = read_m4a_crop(file, start, duration)
        else:
            samples, file_rate = _read_samples(file, start, duration)
        reason = why_not_resampled(file_rate, sample_rate)
        if reason:
            raise InputError(reason)
    except (InputError, soundfile.SoundFileError) as error:
        raise InputError(
            f"'{path}' cannot be decoded ({_reason(error)}); repair or "
            "remove the file and start again"
        ) from None
    return _normalizer(sample_rate)(torch.from_numpy(samples), file_rate)


def _read_samples(file, start, duration):
    with soundfile.SoundFile(file) as audio:
        audio.seek(min(round(start * audio.samplerate), audio.frames))
        n_samples = -1 if duration is None else round(duration * audio.samplerate)
        samples = audio.read(n_samples, dtype="float32", always_2d=True)
        if audio.subtype in FLOATS:
            _require_finite(samples)
        return samples, audio.samplerate


@functools.lru_cache
def _normalizer(sample_rate):
    # One for each rate: it caches SpeechBrain's resampling filters.
    return AudioNormalizer(sample_rate)
