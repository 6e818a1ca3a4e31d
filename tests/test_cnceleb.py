"""CN-Celeb: its layouts, its test, models of several utterances."""

import json
import shutil

import pytest
import soundfile
import torch
from conftest import write_voice

from speechbrain_ext.cli import main
from speechbrain_ext.dataio.corpora.cnceleb import CNCeleb
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.enrolments import read_enrolments
from speechbrain_ext.dataio.layouts import lay_out_corpus
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import (
    prepare_corpus,
    prepare_trials,
    resolve_test_trials,
)
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.utils.errors import InputError

GENRES = ("speech-01-001", "singing-01-002", "drama-02-001")


def write(path, speaker, utterance):
    write_voice(path.with_suffix(".wav"), speaker, utterance)
    if path.suffix == ".flac":
        wav, sample_rate = soundfile.read(path.with_suffix(".wav"))
        soundfile.write(path, wav, sample_rate)
        path.with_suffix(".wav").unlink()


@pytest.fixture(params=["flac", "wav"])
def cnceleb(tmp_path, request):
    """CN-Celeb1 with six and two speakers, CN-Celeb2 with three."""
    one, two = tmp_path / "CN-Celeb", tmp_path / "CN-Celeb2"
    for number in (*range(6), 800, 801):
        for utterance, genre in enumerate(GENRES):
            path = one / f"data/id{number:05}/{genre}.{request.param}"
            write(path, number % 50, utterance)
    for number in range(10000, 10003):
        for utterance, genre in enumerate(GENRES):
            path = two / f"data/id{number}/{genre}.{request.param}"
            write(path, number % 50 + 10, utterance)
    tests = [f"id{n:05}-singing-01-002" for n in (800, 801)]
    for number, name in zip((0, 1), tests):
        write(one / f"eval/test/{name}.{request.param}", number, 2)
        enrolled = f"id{800 + number:05}-enroll.{request.param}"
        write(one / "eval/enroll" / enrolled, number, 1)
    lists = one / "eval" / "lists"
    lists.mkdir()
    models = [f"id{n:05}-enroll" for n in (800, 801)]
    (lists / "enroll.lst").write_text("".join(f"{m} enroll/{m}.wav\n" for m in models))
    (lists / "enroll.map").write_text(
        "".join(
            f"{m} {m[:7]}/speech-01-001.wav {m[:7]}/drama-02-001.wav\n" for m in models
        )
    )
    (lists / "trials.lst").write_text(
        "".join(
            f"{m} test/{t}.wav {int(m[:7] == t[:7])}\n" for m in models for t in tests
        )
    )
    (one / "dev").mkdir()
    (one / "dev" / "dev.lst").write_text("".join(f"id{n:05}\n" for n in range(6)))
    return one, two, request.param


def speakers(path):
    return {item["speaker"] for item in read_manifest(path).values()}


@pytest.mark.parametrize("both", [False, True])
def test_splits_and_trials(cnceleb, tmp_path, both):
    one, two, extension = cnceleb
    folders = [two, one] if both else one
    paths = prepare_corpus("cnceleb", folders, tmp_path / "save", valid_speakers=2)
    train, valid = speakers(paths["train"]), speakers(paths["valid"])
    assert speakers(paths["test"]) == {"id00800", "id00801"}
    expected = {f"id{n:05}" for n in range(6)}
    if both:
        expected |= {"id10000", "id10001", "id10002"}
    assert train | valid == expected and not train & valid and len(valid) == 2
    trials = read_trials(paths["test_trials"])
    assert trials.labels == [1, 0, 0, 1]
    assert trials.enrol[0] == f"eval/enroll/id00800-enroll.{extension}"
    assert trials.test[1] == f"eval/test/id00801-singing-01-002.{extension}"
    # The same models as single utterances, which are in the manifest
    enrolments = read_enrolments(tmp_path / "save" / "test_enrolments.txt")
    assert set(enrolments) == set(trials.enrol)
    assert enrolments[trials.enrol[0]] == [
        f"data/id00800/{genre}.{extension}" for genre in GENRES[::2]
    ]
    used = {name for names in enrolments.values() for name in names}
    assert set(read_manifest(paths["test"])) == trials.utterances() | used


def test_trials_for_a_trained_model(cnceleb, tmp_path):
    one, two, _ = cnceleb
    manifest, trial_list = prepare_trials("cnceleb", one, tmp_path / "save")
    assert len(read_trials(trial_list)) == 4
    assert len(read_manifest(manifest)) == 8
    assert (tmp_path / "save" / "test_enrolments.txt").is_file()
    # Other trials have no models of several utterances.
    mine = tmp_path / "mine.txt"
    a, b = "data/id00001", "data/id00002"
    mine.write_text(
        f"1 {a}/{GENRES[0]} {a}/{GENRES[1]}\n0 {a}/{GENRES[0]} {b}/{GENRES[1]}\n"
    )
    prepare_trials("cnceleb", one, tmp_path / "save", verification_file=str(mine))
    assert not (tmp_path / "save" / "test_enrolments.txt").exists()
    with pytest.raises(InputError, match="cnceleb-e: data_folder has no eval/lists"):
        prepare_trials("cnceleb", two, tmp_path / "other")


def test_models_of_several_utterances_are_scored(cnceleb, tmp_path):
    """The command takes the lists as they are written."""
    one, _, _ = cnceleb
    manifest, trial_list = prepare_trials("cnceleb", one, tmp_path / "save")
    utterances = read_manifest(manifest)
    speakers_of_test = [item["speaker"] for item in utterances.values()]
    of_speaker = dict(zip(sorted(set(speakers_of_test)), torch.eye(2)))
    store = EmbeddingStore(
        list(utterances),
        torch.stack([of_speaker[speaker] for speaker in speakers_of_test]),
        speakers_of_test,
        [item["duration"] for item in utterances.values()],
        "",
    )
    store.save(tmp_path / "test.safetensors")
    main(
        [
            "score", str(tmp_path / "test.safetensors"), "--trials", trial_list,
            "--enrolments", str(tmp_path / "save" / "test_enrolments.txt"),
            "--output", str(tmp_path / "out"),
        ]
    )  # fmt: skip
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["EER"] == 0 and metrics["n_nontarget"] == 2


def test_utterance_of_a_model_that_is_broken(cnceleb, tmp_path):
    one, _, extension = cnceleb
    (one / f"data/id00800/drama-02-001.{extension}").write_bytes(b"")
    prepare_corpus("cnceleb", one, tmp_path, valid_speakers=2, allow_broken=True)
    enrolments = read_enrolments(tmp_path / "test_enrolments.txt")
    assert sorted(map(len, enrolments.values())) == [1, 2]


def test_the_speakers_to_train_on_are_known(cnceleb, tmp_path):
    one, _, _ = cnceleb
    (one / "dev" / "dev.lst").unlink()
    with pytest.raises(InputError, match="no dev/dev.lst"):
        prepare_corpus("cnceleb", one, tmp_path)


def test_malformed_trials(cnceleb, tmp_path):
    one, _, _ = cnceleb
    path = one / "eval/lists/trials.lst"
    for line in ("1 id00800-enroll test/id00800-singing-01-002.wav", "a b", "a b 2"):
        path.write_text(f"id00800-enroll test/id00801-singing-01-002.wav 0\n{line}\n")
        with pytest.raises(InputError, match="trials.lst', line 2: .*model test label"):
            CNCeleb().read_own_trials(path)
    assert resolve_test_trials("cnceleb") == "cnceleb-e"


def test_laid_out_corpus_is_prepared(tmp_path):
    rows = ["path,speaker,gender,age"]
    for speaker in range(10):
        for utterance in range(4):
            path = f"audio/{speaker}/{utterance}.wav"
            write_voice(tmp_path / path, speaker, utterance)
            rows.append(f"{path},{speaker},f,30")
    (tmp_path / "utterances.csv").write_text("\n".join(rows))
    root = tmp_path / "CN-Celeb_flac"
    lay_out_corpus(tmp_path / "utterances.csv", "cnceleb", root)
    paths = prepare_corpus("cnceleb", root, tmp_path / "save", valid_speakers=2)
    assert len(speakers(paths["train"])) == 6
    trials = read_trials(paths["test_trials"])
    assert (trials.labels.count(1), trials.labels.count(0)) == (4, 4)
    enrolments = read_enrolments(tmp_path / "save" / "test_enrolments.txt")
    test = read_manifest(paths["test"])
    for model, names in enrolments.items():
        parts = [test[name]["duration"] for name in names]
        assert len(parts) == 2
        assert test[model]["duration"] == pytest.approx(sum(parts))
        assert not set(names) & set(trials.test)
    shutil.rmtree(root / "eval" / "enroll")
    with pytest.raises(InputError, match="names 2 utterances that are not in the data"):
        prepare_corpus("cnceleb", root, tmp_path / "save", valid_speakers=2)
