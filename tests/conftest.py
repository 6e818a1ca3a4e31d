"""Shared fixtures: where the reference tensors are, small corpora."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
from speechbrain.utils.importutils import LazyModule

# Hypothesis asks each module for its file; SpeechBrain's lazy ones would import
# packages for that which are not needed here.
LazyModule.__file__ = None

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture
def reference():
    """Loads a file of reference tensors, or skips where there are none."""

    def load(name):
        from safetensors.torch import load_file

        path = SHARED / "fixtures" / name
        if not path.is_file():
            pytest.skip(f"needs the reference tensors {path}")
        return load_file(path)

    return load


def write_voice(path, speaker, utterance, duration=1.2, sample_rate=16000):
    """Writes a harmonic tone whose pitch tells the speaker."""
    rng = np.random.default_rng([speaker, utterance])
    time = np.arange(int(duration * sample_rate)) / sample_rate
    pitch = 90 + 17 * speaker + rng.normal()
    wav = sum(
        np.sin(2 * np.pi * pitch * k * time) / (k + speaker % 3)
        for k in range(1, 9)
    )
    wav = 0.1 * wav + 0.01 * rng.standard_normal(len(time))
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wav, sample_rate)


@pytest.fixture
def corpus(tmp_path):
    """A folder of 10 speakers with 4 utterances each."""
    root = tmp_path / "corpus"
    for speaker in range(10):
        for utterance in range(4):
            write_voice(
                root / f"spk{speaker}" / f"{utterance}.wav", speaker, utterance
            )
    return root
