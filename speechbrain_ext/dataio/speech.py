"""Whether there is enough speech in a recording to tell who speaks."""

import functools
import math

import torch

from speechbrain_ext.dataio.audio import read_crop, require_header
from speechbrain_ext.utils.packages import optional_package

SAMPLE_RATE = 16000
BLOCK = 60.0  # seconds that are read at a time
SHORT = 0.5  # seconds below which embeddings say little
SILENCE = 1e-4  # highest amplitude of a silent recording, -80 dB of full scale


def doubt_about(path, min_speech=None):
    """Says why a recording is too short or too quiet, if it is.

    Arguments
    ---------
    path : str or Path
        Audio file.
    min_speech : float
        Seconds of speech that there must be, by silero-vad; if None, the whole
        duration and the amplitude are looked at.

    Returns
    -------
    str or None
        The reason.

    Raises
    ------
    InputError
        If silero-vad is needed and not installed, or the file cannot be read.

    Example
    -------
    >>> import numpy, soundfile
    >>> path = getfixture("tmpdir") / "nothing.wav"
    >>> soundfile.write(path, numpy.zeros(16000), 16000)
    >>> doubt_about(path)
    'it is silent'
    """
    duration = require_header(path).duration
    if min_speech is not None:
        seconds = speech_seconds(path, min_speech)
        if seconds >= min_speech:
            return None
        return f"it has {seconds:.2f} s of speech, less than {min_speech:g} s"
    if duration < SHORT:
        return f"it has {duration:.2f} s only"
    if all(block.abs().max() < SILENCE for block in _blocks(path, duration)):
        return "it is silent"
    return None


def doubts_about(utterances, min_speech=None):
    """Says of which utterances the recordings are too short or too quiet, and why.

    Arguments
    ---------
    utterances : dict
        Utterances as `find_recordings` gives them.
    min_speech : float
        As of `doubt_about`.

    Returns
    -------
    dict
        The reason, for each of their ids.

    Raises
    ------
    InputError
        As of `doubt_about`.
    """
    doubts = {
        name: doubt_about(item["wav"], min_speech) for name, item in utterances.items()
    }
    return {name: doubt for name, doubt in doubts.items() if doubt is not None}


def speech_seconds(path, enough=math.inf):
    """Seconds of speech that silero-vad finds in a recording.

    Arguments
    ---------
    path : str or Path
        Audio file of any duration, which is read block by block.
    enough : float
        Seconds of speech after which the rest is left unread.

    Returns
    -------
    float
        Seconds.

    Raises
    ------
    InputError
        If silero-vad is not installed, or the file cannot be read.
    """
    find_speech, model = _silero()
    total = 0
    for block in _blocks(path, require_header(path).duration):
        for span in find_speech(block, model, sampling_rate=SAMPLE_RATE):
            total += span["end"] - span["start"]
        if total / SAMPLE_RATE >= enough:
            break
    return total / SAMPLE_RATE


def _blocks(path, duration):
    start = 0.0
    while start < duration:
        block = read_crop(path, SAMPLE_RATE, start, BLOCK)
        if len(block) == 0:
            return
        yield block
        start += BLOCK


@functools.cache
def _silero():
    silero_vad = optional_package("silero_vad", "min_speech needs", "vad")
    n_threads = torch.get_num_threads()
    model = silero_vad.load_silero_vad()
    # It sets one thread for the whole process.
    torch.set_num_threads(n_threads)
    return silero_vad.get_speech_timestamps, model
