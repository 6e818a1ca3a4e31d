"""The demo's voices: layout, determinism, sessions that differ."""

import numpy as np
import pytest
import soundfile

from speechbrain_ext.dataio.corpora import demo as demo_corpus
from speechbrain_ext.dataio.corpora.demo import build_demo_corpus
from speechbrain_ext.dataio.trials import read_trials


@pytest.fixture
def few_speakers(monkeypatch):
    monkeypatch.setattr(demo_corpus, "N_SPEAKERS", 4)
    monkeypatch.setattr(demo_corpus, "N_TEST_SPEAKERS", 3)


def test_size():
    n_utterances = demo_corpus.N_SESSIONS * demo_corpus.N_UTTERANCES_PER_SESSION
    assert demo_corpus.N_SPEAKERS >= 40 and n_utterances >= 10


def test_layout_and_determinism(tmp_path, few_speakers):
    root, trial_list = build_demo_corpus(tmp_path / "1")
    again, _ = build_demo_corpus(tmp_path / "2")
    names = sorted(
        p.relative_to(root).as_posix() for p in (tmp_path / "1").rglob("*.wav")
    )
    assert len(names) == 48
    assert names[0] == "wav/id10001/session1/00001.wav"
    for name in names[::7]:
        first, rate = soundfile.read(f"{root}/{name}")
        second, _ = soundfile.read(f"{again}/{name}")
        assert rate == 16000 and 1.5 < len(first) / rate < 10
        assert np.array_equal(first, second)
        assert 0.05 < np.abs(first).max() <= 1.0
    trials = read_trials(trial_list)
    assert len({name.split("/")[0] for name in trials.utterances()}) == 3
    assert all((tmp_path / "1/wav" / name).is_file() for name in trials.enrol)


def test_an_interrupted_build_is_finished(tmp_path, few_speakers):
    root, _ = build_demo_corpus(tmp_path / "demo")
    wav = tmp_path / "demo/wav/id10002/session1/00002.wav"
    wav.unlink()
    (tmp_path / "demo" / "demo.json").unlink()
    build_demo_corpus(root)
    assert wav.is_file()
