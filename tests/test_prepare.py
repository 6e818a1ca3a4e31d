"""Preparation: splits, trial lists, stale files, broken input."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import write_voice

from speechbrain_ext.dataio.manifests import manifest_paths, read_manifest
from speechbrain_ext.dataio.prepare import (
    check_disjoint,
    prepare_corpus,
    prepare_trials,
)
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.utils.errors import InputError

SPLIT = dict(valid_speakers=2, test_speakers=3)


def speakers(path):
    return {item["speaker"] for item in read_manifest(path).values()}


def prepare(corpus, tmp_path, **changes):
    arguments = {
        "dataset": "folder",
        "data_folder": str(corpus),
        "save_folder": str(tmp_path / "save"),
        **SPLIT,
        **changes,
    }
    return prepare_corpus(**arguments)


def test_folder_is_split_by_speaker(corpus, tmp_path):
    paths = prepare(corpus, tmp_path)
    train, valid, test = (speakers(paths[s]) for s in ("train", "valid", "test"))
    assert (len(train), len(valid), len(test)) == (5, 2, 3)
    assert not train & valid and not train & test and not valid & test
    trials = read_trials(paths["test_trials"])
    assert trials.labels.count(1) == trials.labels.count(0) == 18
    assert trials.utterances() <= set(read_manifest(paths["test"]))
    first = read_manifest(paths["train"])
    item = next(iter(first.values()))
    assert item["duration"] == pytest.approx(1.2)
    assert os.path.isfile(item["wav"])


def test_same_seed_same_split(corpus, tmp_path):
    first = prepare(corpus, tmp_path, save_folder=tmp_path / "1")
    second = prepare(corpus, tmp_path, save_folder=tmp_path / "2")
    other = prepare(corpus, tmp_path, save_folder=tmp_path / "3", seed=7)
    assert speakers(first["test"]) == speakers(second["test"])
    assert speakers(first["test"]) != speakers(other["test"])


def stamp(paths):
    return Path(paths["train"]).stat().st_mtime_ns


def test_prepared_again_only_when_something_changed(corpus, tmp_path):
    paths = prepare(corpus, tmp_path)
    before = stamp(paths)
    prepare(corpus, tmp_path)
    assert stamp(paths) == before
    trial_list = tmp_path / "mine.txt"
    text = "1 spk0/0.wav spk0/1.wav\n0 spk0/0.wav spk1/1.wav\n"
    trial_list.write_text(text)
    prepare(corpus, tmp_path, verification_file=str(trial_list))
    assert len(read_trials(paths["test_trials"])) == 2
    # Only the content of the trial list changes.
    trial_list.write_text(text + "0 spk0/1.wav spk1/1.wav\n")
    prepare(corpus, tmp_path, verification_file=str(trial_list))
    assert len(read_trials(paths["test_trials"])) == 3
    before = stamp(paths)
    write_voice(corpus / "spk9" / "new.wav", 9, 9)
    prepare(corpus, tmp_path, verification_file=str(trial_list))
    assert stamp(paths) != before
    os.remove(paths["valid"])
    prepare(corpus, tmp_path, verification_file=str(trial_list))
    assert os.path.isfile(paths["valid"])


def test_speakers_of_given_trials_are_kept_out_of_training(corpus, tmp_path):
    trial_list = tmp_path / "mine.txt"
    trial_list.write_text("1 spk0/0.wav spk0/1.wav\n0 spk0/0.wav spk1/1.wav\n")
    paths = prepare(corpus, tmp_path, verification_file=str(trial_list))
    assert speakers(paths["test"]) == {"spk0", "spk1"}
    assert len(speakers(paths["train"])) == 6
    assert not speakers(paths["train"]) & {"spk0", "spk1"}


def test_names_with_dots_spaces_and_dollars(tmp_path):
    root = tmp_path / "c"
    for speaker in range(8):
        for utterance in range(2):
            name = f"s.p {speaker}$x/{{v}}1.{utterance}.wav"
            write_voice(root / name, speaker, utterance)
    paths = prepare(root, tmp_path, test_speakers=2)
    manifest = read_manifest(paths["test"])
    trials = read_trials(paths["test_trials"])
    assert trials.utterances() <= set(manifest)
    assert all(os.path.isfile(item["wav"]) for item in manifest.values())


@pytest.fixture
def voxceleb(tmp_path):
    """VoxCeleb 1 and 2 in their layouts, with Vox1-O-like trials."""
    root1, root2 = tmp_path / "vox1", tmp_path / "vox2"
    for number in range(10270, 10278):
        for utterance in range(3):
            name = f"wav/id{number}/abc-.{number}/{utterance:05d}.wav"
            write_voice(root1 / name, number % 10, utterance)
    for part, numbers in (("dev", range(12, 17)), ("test", (17, 61))):
        for number in numbers:
            name = f"{part}/wav/id{number:05d}/xyz/00001.wav"
            write_voice(root2 / name, number % 10, 0)
            write_voice(root2 / name.replace("00001", "00002"), 1, 1)
    trial_list = tmp_path / "veri_test.txt"
    a, b = "id10270/abc-.10270", "id10271/abc-.10271"
    trial_list.write_text(
        f"1 {a}/00000.wav {a}/00001.wav\n0 {a}/00000.wav {b}/00001.wav\n"
    )
    return root1, root2, str(trial_list)


@pytest.mark.parametrize(
    "dataset, expected",
    [("voxceleb1", 6), ("voxceleb2", 5), ("voxceleb12", 11)],
)
def test_voxceleb_layouts(voxceleb, tmp_path, dataset, expected):
    root1, root2, trial_list = voxceleb
    paths = prepare_corpus(
        dataset,
        [str(root1), str(root2)],
        str(tmp_path / "save"),
        verification_file=trial_list,
    )
    train = speakers(paths["train"])
    assert len(train) == expected
    assert not train & {"id10270", "id10271", "id00017", "id00061"}
    assert speakers(paths["valid"]) == {"id00017", "id00061"}
    assert speakers(paths["test"]) == {"id10270", "id10271"}


def test_no_speakers_left_for_training(voxceleb, tmp_path):
    root1, _, _ = voxceleb
    lines = []
    for number in range(10270, 10278):
        mine = f"id{number}/abc-.{number}/0000"
        other = number + 1 if number < 10277 else 10270
        lines += [f"1 {mine}0.wav {mine}1.wav"]
        lines += [f"0 {mine}0.wav id{other}/abc-.{other}/00001.wav"]
    trial_list = tmp_path / "hard.txt"
    trial_list.write_text("\n".join(lines))
    with pytest.raises(InputError, match="valid_speakers=2.* 0 speakers"):
        prepare_corpus(
            "voxceleb1",
            str(root1),
            str(tmp_path / "save"),
            verification_file=str(trial_list),
            valid_speakers=2,
        )


def test_download_that_fails_says_what_to_do(corpus, tmp_path):
    with pytest.raises(InputError, match="give its path as verification_file"):
        prepare(corpus, tmp_path, verification_file="http://127.0.0.1:9/veri.txt")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"dataset": "voxceleb3"}, "dataset 'voxceleb3': use one of"),
        ({"data_folder": "/no/such/folder"}, "no folder '/no/such/folder'"),
        ({"dataset": "voxceleb1"}, "no audio in .*expected wav/idNNNNN"),
        ({"test_speakers": 50}, "test_speakers=50: .* 10 speakers"),
        ({"verification_file": "no.txt"}, "no trial list 'no.txt'"),
    ],
)
def test_wrong_settings(corpus, tmp_path, changes, message):
    if changes.get("dataset") == "voxceleb1":
        changes = {**changes, "verification_file": "no.txt"}
    with pytest.raises(InputError, match=message):
        prepare(corpus, tmp_path, **changes)


def test_empty_folder(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no audio in .*empty"):
        prepare(tmp_path / "empty", tmp_path)


def test_unknown_utterances_in_trials(corpus, tmp_path):
    trial_list = tmp_path / "mine.txt"
    trial_list.write_text("1 spk0/0.wav spk0/7.wav\n0 spk0/0.wav spk1/1.wav\n")
    with pytest.raises(InputError, match="mine.txt' names 1 .*spk0/7.wav"):
        prepare(corpus, tmp_path, verification_file=str(trial_list))


def test_speaker_with_one_utterance_is_trained_on_only(corpus, tmp_path, caplog):
    write_voice(corpus / "lonely" / "0.wav", 5, 0)
    paths = prepare(corpus, tmp_path, seed=3)
    assert "lonely" in speakers(paths["train"])
    assert "1 speakers have one utterance" in caplog.text


def break_files(corpus):
    (corpus / "spk0" / "text.wav").write_text("no audio")
    soundfile.write(corpus / "spk1" / "empty.wav", np.zeros(0), 16000)
    soundfile.write(corpus / "spk2" / "short.wav", np.zeros(800), 16000)
    soundfile.write(
        corpus / "spk3" / "nan.wav", np.full(9000, np.nan), 16000,
        subtype="FLOAT",
    )  # fmt: skip


def test_many_broken_files_stop_unless_allowed(corpus, tmp_path, caplog):
    break_files(corpus)
    with pytest.raises(InputError, match="4 of 44 .*text.wav.*allow_broken"):
        prepare(corpus, tmp_path)
    paths = prepare(corpus, tmp_path, allow_broken=True)
    assert "4 of 44 audio files are broken" in caplog.text
    with open(tmp_path / "save" / "broken_files.csv", newline="") as file:
        reasons = {
            os.path.basename(row["wav"]): row["reason"] for row in csv.DictReader(file)
        }
    assert reasons["empty.wav"] == "zero length"
    assert reasons["nan.wav"] == "NaN samples"
    assert reasons["short.wav"] == "too short: 0.05 s"
    assert reasons["text.wav"].startswith("unreadable")
    prepared = [
        name
        for split in ("train", "valid", "test")
        for name in read_manifest(paths[split])
    ]
    assert not [name for name in prepared if "nan" in name or "text" in name]


def test_wrong_rate_and_stereo_are_said_once(corpus, tmp_path, caplog):
    soundfile.write(corpus / "spk0" / "a.wav", np.zeros((8000, 2)), 8000)
    soundfile.write(corpus / "spk1" / "a.wav", np.zeros((8000, 2)), 8000)
    prepare(corpus, tmp_path)
    assert caplog.text.count("2 files are not at 16000 Hz") == 1
    assert caplog.text.count("2 files are not mono") == 1


def test_trials_for_a_trained_model(corpus, tmp_path):
    manifest, trial_list = prepare_trials(
        "folder", str(corpus), str(tmp_path / "v"), n_trials=40
    )
    assert len(read_trials(trial_list)) == 40
    assert manifest == manifest_paths(tmp_path / "v")["test"]
    with pytest.raises(InputError, match="1 speakers .* trained on: spk3"):
        prepare_trials(
            "folder",
            str(corpus),
            str(tmp_path / "v"),
            train_speakers={"spk3", "other"},
        )


def test_disjointness_is_checked():
    check_disjoint({"a"}, {"b"})
    with pytest.raises(InputError, match="2 speakers .*: a, b"):
        check_disjoint({"a", "b", "c"}, {"a", "b"})
