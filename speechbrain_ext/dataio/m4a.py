"""Reading m4a, the format of VoxCeleb2, which libsndfile does not decode.

FFmpeg does: in this process by PyAV (the extra m4a), else by the programs `ffmpeg` and
`ffprobe`, whose start takes far longer than the decoding of a crop.
"""

import contextlib
import functools
import io
import json
import math
import shutil
import subprocess
import tempfile

import numpy as np
import soundfile

from speechbrain_ext.utils.errors import InputError

PROGRAMS = ("ffmpeg", "ffprobe")
# What a decoder has to have seen before a sample, to give it as if it had seen all
WARM_UP = 4096  # samples
WARM_UP_SECONDS = 1.0  # as many at least


@functools.cache
def _pyav():
    try:
        import av
    except ImportError:
        return None
    return av


def decoder():
    """What decodes m4a here.

    Returns
    -------
    str or None
        "PyAV", "FFmpeg", or None where there is neither.

    Example
    -------
    >>> decoder() in ("PyAV", "FFmpeg", None)
    True
    """
    if _pyav() is not None:
        return "PyAV"
    return "FFmpeg" if all(map(shutil.which, PROGRAMS)) else None


def read_m4a_header(file):
    """Reads what the header of an m4a file says.

    Arguments
    ---------
    file : str, Path or io.BytesIO
        The file.

    Returns
    -------
    sample_rate : int
        Sample rate in Hz.
    n_samples : int
        Samples of each channel.
    n_channels : int
        Number of channels.

    Raises
    ------
    InputError
        If it is unreadable, or nothing decodes m4a here.
    """
    if _pyav() is not None:
        with _stream(file) as (container, stream):
            rate, n_channels = stream.codec_context.rate, stream.channels
            seconds = container.duration and container.duration / _pyav().time_base
    else:
        rate, n_channels, seconds = _probe(file)
    if not rate or not seconds:
        raise InputError("unreadable: no duration or sample rate")
    return rate, round(seconds * rate), n_channels


def read_m4a_crop(file, start=0.0, duration=None):
    """Decodes a part of an m4a file.

    Arguments
    ---------
    file : str, Path or io.BytesIO
        The file.
    start : float
        Start in seconds.
    duration : float
        Duration in seconds; to the end if None.

    Returns
    -------
    samples : numpy.ndarray
        In float32, of shape (time, channel): what decoding the whole file gives there.
    sample_rate : int
        Sample rate of the file, in Hz.

    Raises
    ------
    InputError
        If it cannot be decoded, or nothing decodes m4a here.
    """
    decode = _decode if _pyav() is not None else _decode_by_program
    return decode(file, start, duration)


@contextlib.contextmanager
def _stream(file):
    av = _pyav()
    try:
        with av.open(file if isinstance(file, io.BytesIO) else str(file)) as container:
            if not container.streams.audio:
                raise InputError("unreadable: no audio stream")
            yield container, container.streams.audio[0]
    except av.error.FFmpegError as error:
        raise InputError(f"unreadable: {error.strerror}") from None


def _decode(file, start, duration):
    with _stream(file) as (container, stream):
        rate = stream.codec_context.rate
        first = round(start * rate)
        last = math.inf if duration is None else first + round(duration * rate)
        if first > WARM_UP:
            seconds = (first - WARM_UP) / rate
            container.seek(int(seconds / stream.time_base), stream=stream)
        parts, begin, end = [], None, 0
        for frame in container.decode(stream):
            at = round(frame.time * rate)
            begin, end = at if begin is None else begin, at + frame.samples
            parts.append(_samples(frame))
            if end >= last:
                break
    if not parts:
        raise InputError("unreadable: no audio")
    n_samples = None if duration is None else round(duration * rate)
    return np.concatenate(parts)[max(0, first - begin) :][:n_samples], rate


def _samples(frame):
    """Samples of a frame, of shape (time, channel)."""
    samples = frame.to_ndarray()
    # Of Apple Lossless, and where another format has this extension
    if samples.dtype.kind != "f":
        limits = np.iinfo(samples.dtype)
        steps = limits.max - limits.min + 1.0
        samples = samples * 2 / steps - (1 + 2 * limits.min / steps)
    samples = samples.astype(np.float32, copy=False)
    if frame.format.is_planar:
        return samples.T
    return samples.reshape(-1, frame.layout.nb_channels)


def _probe(file):
    """Sample rate, channels and seconds."""
    entries = "stream=sample_rate,channels:format=duration"
    found = json.loads(
        _run("ffprobe", file, lambda path: (
            "-select_streams", "a:0", "-show_entries", entries, "-of", "json", path,
        ))
    )  # fmt: skip
    if not found.get("streams"):
        raise InputError("unreadable: no audio stream")
    stream = found["streams"][0]
    try:
        seconds = float(found["format"]["duration"])
        return int(stream["sample_rate"]), int(stream["channels"]), seconds
    except (KeyError, ValueError):
        return 0, 0, 0.0


def _decode_by_program(file, start, duration):
    early = max(0.0, start - WARM_UP_SECONDS)
    length = () if duration is None else ("-t", duration)
    # The header of AU has the sample rate, and needs no length.
    content = _run("ffmpeg", file, lambda path: (
        "-ss", early, "-i", path, "-ss", start - early, *length,
        "-f", "au", "-c:a", "pcm_f32be", "-",
    ))  # fmt: skip
    return soundfile.read(io.BytesIO(content), dtype="float32", always_2d=True)


def _run(program, file, arguments):
    """What a program of FFmpeg prints, given its arguments for a path."""
    if shutil.which(program) is None:
        raise InputError(
            "m4a needs PyAV (pip install 'speechbrain_ext[m4a]') or the program "
            f"'{program}' (part of FFmpeg): install it or convert the files to wav"
        )
    with contextlib.ExitStack() as stack:
        if isinstance(file, io.BytesIO):
            copy = stack.enter_context(tempfile.NamedTemporaryFile(suffix=".m4a"))
            copy.write(file.getbuffer())
            copy.flush()
            file = copy.name
        result = subprocess.run(
            [program, "-v", "error", *map(str, arguments(file))],
            capture_output=True,
            check=False,
        )
    if result.returncode or not result.stdout:
        message = result.stderr.decode(errors="replace").strip()
        raise InputError(f"unreadable: {message or 'no audio'}")
    return result.stdout
