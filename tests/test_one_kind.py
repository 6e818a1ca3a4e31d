"""The augmentation of LAP: one of five kinds for each utterance."""

import random
from collections import Counter

import numpy as np
import pytest
import soundfile
import torch
from conftest import ROOT

from speechbrain_ext.augment.one_kind import (
    BABBLE,
    AddedRecordings,
    OneKindEach,
    Reverberation,
    Television,
    one_kind_each,
)
from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.utils.errors import InputError


@pytest.fixture
def folders(tmp_path):
    """A MUSAN and rooms, each of a few recordings."""
    rng = np.random.default_rng(0)
    for name in ("noise", "music", "speech"):
        (tmp_path / "musan" / name / "part").mkdir(parents=True)
        for number in range(3):
            noise = 0.1 * rng.standard_normal(24000)
            path = tmp_path / "musan" / name / "part" / f"{number}.wav"
            soundfile.write(path, noise, 16000)
    (tmp_path / "rooms").mkdir()
    response = np.zeros((1600, 2))
    response[100], response[500, 1] = 2.0, 1.0
    soundfile.write(tmp_path / "rooms" / "array.wav", response, 16000, subtype="FLOAT")
    return tmp_path


def test_kinds_are_as_likely_as_each_other():
    random.seed(0)
    kinds = [lambda wav, k=kind: torch.full_like(wav, k + 1.0) for kind in range(5)]
    augment = OneKindEach(kinds, prob=0.6)
    drawn, lengths = augment(torch.zeros(2000, 1), torch.ones(2000))
    counts = Counter(drawn.flatten().tolist())
    assert counts[0.0] == pytest.approx(800, abs=90)
    assert all(counts[k] == pytest.approx(240, abs=70) for k in range(1, 6))
    assert lengths.shape == (2000,)
    labels = torch.tensor([[3], [4]])
    assert augment.replicate_labels(labels) is labels


def test_musan_and_rooms_give_five_kinds(folders):
    kinds = one_kind_each(folders / "musan", folders / "rooms").kinds
    assert [type(kind) for kind in kinds] == [
        Reverberation, AddedRecordings, AddedRecordings, AddedRecordings, Television
    ]  # fmt: skip
    assert [kind.snr for kind in kinds[1:4]] == [(0, 15), (5, 15), (13, 20)]
    assert [kind.n_recordings for kind in kinds[1:4]] == [(1, 1), (1, 1), (4, 7)]
    wav = torch.randn(8000)
    for kind in kinds:
        changed = kind(wav)
        assert changed.shape == wav.shape and changed.isfinite().all()
        assert not torch.equal(changed, wav)


def test_other_folders_are_noise_and_what_is_missing_is_named(folders, caplog):
    (noise,) = one_kind_each(folders / "musan" / "noise", None).kinds
    assert noise.snr == (0, 15) and len(noise.recordings) == 3
    assert "rir_folder is not given" in caplog.text
    augment = one_kind_each(None, None)
    wavs = torch.randn(2, 800)
    assert torch.equal(augment(wavs, torch.ones(2))[0], wavs)


def test_rooms_keep_the_level_and_draw_a_channel(folders):
    random.seed(0)
    room = Reverberation(folders / "rooms")
    click = torch.zeros(2000)
    click[0] = 1.0
    heard = [room(click) for _ in range(8)]
    assert {round(float(wav[500]), 3) for wav in heard} == {0.0, 0.447}
    assert all(wav.norm() == pytest.approx(1.0, abs=1e-4) for wav in heard)
    soundfile.write(folders / "rooms" / "array.wav", np.ones(9), 8000)
    with pytest.raises(InputError, match="no response at 16000 Hz"):
        Reverberation(folders / "rooms")


@pytest.mark.parametrize("snr, n_recordings", [((6, 6), (1, 1)), ((13, 13), (4, 4))])
def test_levels_of_added_recordings(folders, snr, n_recordings):
    noise = AddedRecordings(
        folders / "musan", n_recordings=n_recordings, snr=snr, durations=((1.0, 1.0),)
    )
    wav = torch.randn(16000)
    added = noise(wav) - wav
    ratio = 10 * torch.log10(wav.pow(2).mean() / added.pow(2).mean())
    expected = snr[0] - 10 * np.log10(n_recordings[0])
    assert float(ratio) == pytest.approx(expected, abs=0.7)


def test_babble_is_heard_in_a_part(folders):
    random.seed(0)
    babble = AddedRecordings(
        folders / "musan" / "speech", **BABBLE, durations=((0.2, 0.4),)
    )
    wav = torch.randn(16000)
    heard = [(babble(wav) != wav).float().mean() for _ in range(5)]
    assert all(0.2 <= share < 1 for share in heard)


@pytest.mark.parametrize(
    "given, augmented", [([], True), (["--augment_fine_tuning=False"], False)]
)
def test_stages_of_lap(given, augmented):
    path = str(ROOT / "hparams" / "lap_wavlm.yaml")
    configuration = read_configuration([path, *given], demo=False)
    frozen, *joint = (stage.values() for stage in training_stages(configuration))
    assert frozen["augment"] is True and frozen["speeds"] != [100]
    assert frozen["max_grad_norm"] > 1000
    for stage in joint:
        assert stage["augment"] is augmented and stage["speeds"] == [100]
        assert stage["freeze_feature_extractor"] is False
