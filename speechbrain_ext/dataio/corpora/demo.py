"""A corpus of synthetic voices in VoxCeleb's layout, for runs without data.

The voices come from eSpeak NG, which the package espeakng-loader carries.
They show that everything works; error rates on them say nothing about people.
"""

import csv
import ctypes
import functools
import json
import random
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scipy.signal
import soundfile
from tqdm import tqdm

from speechbrain_ext.dataio.corpora.voxceleb import VoxCeleb
from speechbrain_ext.dataio.trials import draw_trials, write_trials
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, write_json
from speechbrain_ext.utils.packages import optional_package

SAMPLE_RATE = 16000
N_SPEAKERS = 48
N_TEST_SPEAKERS = 10
N_SESSIONS = 3
N_UTTERANCES_PER_SESSION = 4
N_TEST_TRIALS = 2000
VERSION = 2

VARIANTS = (
    "m1", "m2", "m3", "m4", "m5", "m6", "m7", "m8", "f1", "f2", "f3", "f4",
    "f5", "anika", "annie", "belinda", "linda", "steph", "max", "michael",
)  # fmt: skip
ACCENTS = ("en-us", "en", "en-gb-scotland", "en-029")
SUBJECTS = (
    "The old fisherman", "My younger sister", "A tired engineer",
    "The village doctor", "Our new neighbour", "Every good teacher",
    "The quiet librarian", "Somebody in the crowd",
)  # fmt: skip
VERBS = (
    "walked slowly towards", "never forgot", "carefully painted",
    "wanted to sell", "was talking about", "could hardly see",
    "had already visited", "dreamed all night of",
)  # fmt: skip
OBJECTS = (
    "the broken bridge", "a house by the sea", "three hundred oranges",
    "the first snow of winter", "an empty railway station", "the judge's hat",
    "a very long journey", "the music from upstairs",
)  # fmt: skip
ENDINGS = (
    "before the sun came up.", "without asking why.", "on a rainy Thursday.",
    "because nobody else would.", "and laughed out loud.",
    "as the church bells rang.", "while the children slept.", "once again.",
)  # fmt: skip


class _Event(ctypes.Structure):
    """espeak_EVENT of eSpeak NG's speak_lib.h."""

    _fields_ = (
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("name", ctypes.c_char * 8),
    )

    LAST, PHONE = 0, 7


class ESpeak:
    """The part of the eSpeak NG library that speaks into an array.

    Example
    -------
    >>> wav, phones = ESpeak().speak(
    ...     "Hello.", "en-us+f2", words_per_minute=170, pitch=50
    ... )
    >>> wav.dtype, len(wav) > 5000
    (dtype('float32'), True)
    >>> [name for start, name in phones]
    ['h', '@', 'l', "'oU", '_:', '_']
    """

    _SYNCHRONOUS = 2
    _PHONE_EVENTS = 1
    _UTF8 = 1
    _CHARACTERS = 1
    _RATE, _PITCH = 1, 3

    def __init__(self) -> None:
        espeakng_loader = optional_package(
            "espeakng_loader", "the demo voices need", "demo"
        )
        # The library's state goes on from one text to the next. A copy of its
        # own gives each instance the same start, and so the same speech.
        installed = espeakng_loader.get_library_path()
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            self._library = ctypes.CDLL(shutil.copy(installed, folder))
        self.sample_rate = self._library.espeak_Initialize(
            self._SYNCHRONOUS,
            0,
            espeakng_loader.get_data_path().encode(),
            self._PHONE_EVENTS,
        )
        if self.sample_rate <= 0:
            raise InputError("eSpeak NG could not be initialised")
        self._chunks: list[np.ndarray] = []
        self._phones: list[tuple[float, str]] = []
        callback_type = ctypes.CFUNCTYPE(
            ctypes.c_int,
            ctypes.POINTER(ctypes.c_short),
            ctypes.c_int,
            ctypes.POINTER(_Event),
        )
        # Kept as an attribute, since the library calls it later.
        self._callback = callback_type(self._receive)
        self._library.espeak_SetSynthCallback(self._callback)

    def _receive(self, samples: Any, n_samples: int, events: Any) -> int:
        for event in events:
            if event.type == _Event.LAST:
                break
            if event.type == _Event.PHONE:
                start = event.sample / self.sample_rate
                self._phones.append((start, event.name.decode()))
        if samples and n_samples > 0:
            chunk = np.ctypeslib.as_array(samples, (n_samples,))
            self._chunks.append(chunk.astype(np.float32) / 32768)
        return 0

    def speak(
        self, text: str, voice: str, words_per_minute: int, pitch: int
    ) -> tuple[np.ndarray, list[tuple[float, str]]]:
        """Synthesises a text.

        Arguments
        ---------
        text : str
            What to say.
        voice : str
            Language and variant, such as "en-us+f2".
        words_per_minute : int
            Speaking rate.
        pitch : int
            Pitch, from 0 to 99.

        Returns
        -------
        numpy.ndarray
            Waveform in [-1, 1] at `sample_rate`, of shape (time,).
        list of tuple
            Start (seconds) and name of each phone.

        Raises
        ------
        InputError
            If the library does not have the voice.
        """
        if self._library.espeak_SetVoiceByName(voice.encode()) != 0:
            raise InputError(f"eSpeak NG has no voice '{voice}'")
        self._library.espeak_SetParameter(self._RATE, words_per_minute, 0)
        self._library.espeak_SetParameter(self._PITCH, pitch, 0)
        self._chunks.clear()
        self._phones.clear()
        encoded = text.encode()
        self._library.espeak_Synth(
            encoded, len(encoded) + 1, 0, self._CHARACTERS, 0, self._UTF8,
            None, None,
        )  # fmt: skip
        self._library.espeak_Synchronize()
        return np.concatenate(self._chunks), list(self._phones)


class Demo(VoxCeleb):
    """Synthetic voices in VoxCeleb's layout, made where they are not there.

    Example
    -------
    >>> Demo().trial_sources()
    {'test': 'demo', 'valid': None}
    """

    own_trials = {"demo": "veri_test.txt"}

    def __init__(self) -> None:
        super().__init__("demo", range(10001, 11252), "demo")

    def build(self, roots: list[Path]) -> None:
        """Makes the corpus unless it is there, as `Corpus.build`."""
        for root in roots:
            build_demo_corpus(root)

    def trial_sources(
        self, test: str | None = None, valid: str | None = None
    ) -> dict[str, str | None]:
        """Where trials are from, as `Corpus.trial_sources`."""
        return {"test": test or self.usual_test, "valid": valid}


CORPORA = (Demo(),)


def build_demo_corpus(folder: str | Path) -> tuple[str, str]:
    """Builds the corpus, unless it is there.

    Sessions differ in noise, room and channel. The same folder content comes
    out on every machine with the same eSpeak NG.

    Arguments
    ---------
    folder : str or Path
        Root, to hold wav/idNNNNN/sessionN/NNNNN.wav, veri_test.txt and
        phones.csv: id, start (seconds) and name of each phone.

    Returns
    -------
    tuple of str
        The root and the list of test trials.
    """
    folder = Path(folder)
    trial_list = folder / "veri_test.txt"
    complete = folder / "demo.json"
    if complete.is_file() and VERSION == json.loads(
        complete.read_text(encoding="utf-8")
    ).get("version"):
        return str(folder), str(trial_list)
    espeak = ESpeak()
    phones: list[tuple[str, float, str]] = []
    for number in tqdm(range(N_SPEAKERS), desc="Making demo voices"):
        phones += _write_speaker(espeak, folder / "wav", number)
    with atomic_path(folder / "phones.csv") as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("id", "start", "phone"), *phones])
    speaker_of = {name: name.split("/")[0] for name, _, _ in phones}
    speakers = sorted(set(speaker_of.values()))
    test_speakers = set(random.Random(VERSION).sample(speakers, N_TEST_SPEAKERS))
    held_out = {u: s for u, s in speaker_of.items() if s in test_speakers}
    write_trials(trial_list, draw_trials(held_out, N_TEST_TRIALS, VERSION))
    write_json(complete, {"speakers": N_SPEAKERS, "version": VERSION})
    return str(folder), str(trial_list)


def _write_speaker(
    espeak: ESpeak, root: Path, number: int
) -> list[tuple[str, float, str]]:
    rng = random.Random(f"speaker {number}")
    voice = f"{rng.choice(ACCENTS)}+{VARIANTS[number % len(VARIANTS)]}"
    pitch = rng.randint(20, 80)
    words_per_minute = rng.randint(140, 190)
    # Played faster, all formants rise: a shorter vocal tract.
    vocal_tract = rng.uniform(0.88, 1.14)
    speaker = f"id{10001 + number}"
    phones: list[tuple[str, float, str]] = []
    for session in range(N_SESSIONS):
        channel = _draw_channel(rng)
        for utterance in range(N_UTTERANCES_PER_SESSION):
            text = " ".join(
                rng.choice(part) for part in (SUBJECTS, VERBS, OBJECTS, ENDINGS)
            )
            wav, phones_at = espeak.speak(
                text,
                voice,
                round(words_per_minute / vocal_tract),
                min(99, max(0, pitch + rng.randint(-6, 6))),
            )
            played_rate = round(espeak.sample_rate * vocal_tract / 50) * 50
            wav = scipy.signal.resample_poly(wav, SAMPLE_RATE, played_rate)
            wav = channel(wav)
            name = f"{speaker}/session{session + 1}/{utterance + 1:05d}.wav"
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, wav, SAMPLE_RATE, subtype="PCM_16")
            slowed = espeak.sample_rate / played_rate
            phones += [
                (name, round(start * slowed, 4), phone) for start, phone in phones_at
            ]
    return phones


def _draw_channel(rng: random.Random) -> Callable[[np.ndarray], np.ndarray]:
    """Draws a session's microphone, room and noise."""
    noise_rng = np.random.default_rng(rng.getrandbits(32))
    low, high = rng.uniform(60, 200), rng.uniform(4000, 7600)
    band = scipy.signal.butter(
        2, [low, high], btype="bandpass", fs=SAMPLE_RATE, output="sos"
    )
    decay = np.exp(-np.arange(4000) / (SAMPLE_RATE * rng.uniform(0.01, 0.06)))
    room = noise_rng.standard_normal(4000) * decay * rng.uniform(0.01, 0.06)
    room[0] = 1.0
    return functools.partial(
        _apply_channel,
        band=band,
        room=room,
        tilt=rng.uniform(0.0, 0.9),
        snr_db=rng.uniform(15, 35),
        level=rng.uniform(0.1, 0.7),
        noise_rng=noise_rng,
    )


def _apply_channel(
    wav: np.ndarray,
    band: np.ndarray,
    room: np.ndarray,
    tilt: float,
    snr_db: float,
    level: float,
    noise_rng: np.random.Generator,
) -> np.ndarray:
    wav = scipy.signal.fftconvolve(wav, room)[: len(wav)]
    white = noise_rng.standard_normal(len(wav))
    noise = scipy.signal.lfilter([1.0], [1.0, -tilt], white)
    gain = np.sqrt(np.mean(wav**2) / np.mean(noise**2)) * 10 ** (-snr_db / 20)
    wav = scipy.signal.sosfilt(band, wav + gain * noise)
    return level * wav / np.abs(wav).max()
