"""Voices, rooms and other speakers that pre-training adds."""

import csv
from pathlib import Path

import numpy as np
import pytest
import scipy.signal
import soundfile
import torch
from conftest import write_voice
from speechbrain.augment.time_domain import AddReverb

from speechbrain_ext.augment import rooms as rooms_module
from speechbrain_ext.augment.rooms import simulated_rooms
from speechbrain_ext.augment.utterance_mixing import UtteranceMixing
from speechbrain_ext.augment.vocal_tract import VocalTractPerturb
from speechbrain_ext.dataio.datasets import crop_pair_dataset
from speechbrain_ext.utils.errors import InputError

RATE = 16000


def vowel(pitch, formant, seconds=1.0):
    """A pulse train through one resonance."""
    pulses = np.zeros(int(seconds * RATE))
    pulses[:: RATE // pitch] = 1.0
    b, a = scipy.signal.iirpeak(formant, Q=4, fs=RATE)
    wav = scipy.signal.lfilter(b, a, pulses)
    return torch.tensor(wav / np.abs(wav).max(), dtype=torch.float32)


def spectral_centre(wav):
    frequencies, power = scipy.signal.welch(wav.numpy(), RATE, nperseg=4096)
    return float((frequencies * power).sum() / power.sum())


def pitch_of(wav):
    correlation = scipy.signal.correlate(wav.numpy(), wav.numpy())
    correlation = correlation[len(wav) - 1 :]
    lag = 60 + np.argmax(correlation[60:400])
    return RATE / lag


def test_vocal_tract_moves_formants_and_not_pitch():
    wav = vowel(pitch=100, formant=1500).unsqueeze(0)
    centres = {}
    for factor in (0.8, 1.0, 1.25):
        changed = VocalTractPerturb(factor, factor)(wav)
        assert changed.shape == wav.shape
        assert pitch_of(changed[0]) == pytest.approx(100, rel=0.01)
        centres[factor] = spectral_centre(changed[0])
    assert centres[0.8] < 0.9 * centres[1.0]
    assert centres[1.25] > 1.1 * centres[1.0]


def test_vocal_tract_with_factor_one_changes_nothing():
    wavs = torch.randn(2, 8000)
    assert torch.allclose(VocalTractPerturb(1.0, 1.0)(wavs), wavs, atol=1e-5)


@pytest.mark.parametrize("prob, expected", [(0.0, 0), (1.0, 64)])
def test_share_of_mixed_utterances(prob, expected):
    wavs = torch.randn(64, 4000)
    mixed = UtteranceMixing(prob)(wavs)
    assert int((mixed != wavs).any(1).sum()) == expected


def test_mixed_part_is_short_and_as_loud_as_asked():
    torch.manual_seed(0)
    wavs = torch.randn(200, 4000) * torch.logspace(-2, 0, 200).unsqueeze(1)
    added = UtteranceMixing(1.0, snr_low=-5, snr_high=5)(wavs) - wavs
    for main, other in zip(wavs, added):
        positions = torch.nonzero(other).flatten()
        length = int(positions[-1] - positions[0]) + 1
        assert length <= 2000
        if length > 500:
            part = other[positions[0] : positions[-1] + 1]
            snr = 10 * torch.log10(main.pow(2).mean() / part.pow(2).mean())
            assert -6 < snr < 6


def test_alone_in_a_batch_nothing_is_mixed():
    wavs = torch.randn(1, 4000)
    assert torch.equal(UtteranceMixing(1.0)(wavs), wavs)


def test_rooms_reverberate_and_are_made_once(tmp_path, monkeypatch):
    pytest.importorskip("pyroomacoustics")
    table = simulated_rooms(tmp_path / "rooms", n_rooms=3)
    with open(table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 3
    for row in rows:
        response, rate = soundfile.read(row["wav"])
        assert rate == RATE and np.abs(response).max() == 1.0
        half = len(response) // 2
        assert (response[half:] ** 2).sum() < 0.1 * (response[:half] ** 2).sum()
    wav = torch.zeros(1, RATE)
    wav[0, 1000] = 1.0
    assert (AddReverb(table)(wav) != 0).sum() > 500
    monkeypatch.setattr(rooms_module, "tqdm", None)
    assert simulated_rooms(tmp_path / "rooms", n_rooms=3) == table


@pytest.mark.parametrize(
    "change, said",
    [
        ({"n_rooms": 3}, "n_rooms (2, not 3)"),
        ({"sample_rate": 8000}, "sample_rate (16000, not 8000)"),
        ({"seed": 7}, "seed (1986, not 7)"),
    ],
)
def test_other_rooms_are_made_again(tmp_path, caplog, change, said):
    pytest.importorskip("pyroomacoustics")
    before = Path(simulated_rooms(tmp_path / "rooms", n_rooms=2)).read_text("utf-8")
    table = simulated_rooms(tmp_path / "rooms", **{"n_rooms": 2, **change})
    assert f"rooms.csv' is of other {said}: remade" in caplog.text
    assert Path(table).read_text("utf-8") != before
    with open(table, encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == change.get("n_rooms", 2)
    rates = {soundfile.read(row["wav"])[1] for row in rows}
    assert rates == {change.get("sample_rate", 16000)}


def test_moved_rooms_are_made_again(tmp_path):
    pytest.importorskip("pyroomacoustics")
    simulated_rooms(tmp_path / "rooms", n_rooms=1)
    (tmp_path / "rooms").rename(tmp_path / "moved")
    table = simulated_rooms(tmp_path / "moved", n_rooms=1)
    with open(table, encoding="utf-8") as file:
        assert [Path(row["wav"]).is_file() for row in csv.DictReader(file)] == [True]


def test_pairs_are_other_crops_of_one_voice(tmp_path):
    write_voice(tmp_path / "voice.wav", speaker=1, utterance=0, duration=4.0)
    calls = []

    def change_voice(wavs):
        calls.append(wavs.shape)
        return 2 * wavs[:, :-3000]

    utterances = {"u": {"wav": str(tmp_path / "voice.wav"), "duration": 4.0}}
    plain = crop_pair_dataset(utterances, RATE, 1.0)[0]
    assert plain["first"].shape == plain["second"].shape == (RATE,)
    assert not torch.equal(plain["first"], plain["second"])
    changed = crop_pair_dataset(utterances, RATE, 1.0, change_voice)[0]
    assert calls == [(2, 20000)] and changed["first"].shape == (RATE,)


def test_without_pyroomacoustics_the_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pyroomacoustics", None)
    with pytest.raises(InputError, match="pip install 'speechbrain_ext.rooms"):
        simulated_rooms(tmp_path / "rooms")
