"""VCTK and LibriSpeech in their folder layouts, and their balanced trials."""

from collections import Counter

import pytest
import soundfile
from conftest import write_voice

from speechbrain_ext.dataio import corpora
from speechbrain_ext.dataio.corpora import get_corpus, voxceleb
from speechbrain_ext.dataio.corpora.base import PublishedTrials
from speechbrain_ext.dataio.corpora.librispeech import LibriSpeech
from speechbrain_ext.dataio.corpora.vctk import VCTK
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import (
    list_utterances,
    prepare_corpus,
    prepare_trials,
)
from speechbrain_ext.dataio.trials import (
    Trials,
    draw_trials,
    match_utterances,
    read_trials,
)
from speechbrain_ext.utils.errors import InputError

ACCENTS = ("English", "Scottish")
SPEAKERS = [*(f"p{number}" for number in range(225, 244)), "p280"]


def write_flac(path, speaker, utterance):
    write_voice(path.with_suffix(".wav"), speaker, utterance)
    wav, sample_rate = soundfile.read(path.with_suffix(".wav"))
    soundfile.write(path, wav, sample_rate)
    path.with_suffix(".wav").unlink()


def write_vctk(root, release):
    """Twenty speakers, of which one lacks metadata, and the two left out."""
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS"]
    for number, speaker in enumerate([*SPEAKERS, "p315", "s5"]):
        for utterance in (1, 24, 25, 30, 400):
            name = f"{speaker}_{utterance:03}"
            if release == "0.80":
                path = root / "wav48" / speaker / f"{name}.wav"
                write_voice(path, number, utterance, sample_rate=48000)
            else:
                folder = root / "wav48_silence_trimmed" / speaker
                write_flac(folder / f"{name}_mic1.flac", number, utterance)
                if utterance != 30:
                    write_flac(folder / f"{name}_mic2.flac", number, utterance)
        listed = speaker[1:] if release == "0.80" else speaker
        if speaker != "p280":
            lines.append(
                f"{listed}  2{number % 4}  {'FM'[number % 2]}    "
                f"{ACCENTS[number // 2 % 2]}    Southern  England"
                "  (mic2 files unavailable)"
            )
    lines.append("p999  30  F  Irish  Dublin")
    (root / "speaker-info.txt").write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize("release", ["0.80", "0.92"])
def test_vctk(tmp_path, release):
    write_vctk(tmp_path / "VCTK", release)
    paths = prepare_corpus(
        "vctk", tmp_path / "VCTK", tmp_path / "save",
        valid_speakers=4, test_speakers=8, n_test_trials=60,
    )  # fmt: skip
    manifests = {s: read_manifest(paths[s]) for s in ("train", "valid", "test")}
    speakers = {s: {i["speaker"] for i in m.values()} for s, m in manifests.items()}
    assert [len(speakers[s]) for s in ("train", "valid", "test")] == [8, 4, 8]
    assert set().union(*speakers.values()) == set(SPEAKERS)
    ending = ".wav" if release == "0.80" else ".flac"
    assert set(manifests["train"]) == {
        f"{speaker}/{speaker}_{utterance:03}{ending}"
        for speaker in speakers["train"]
        for utterance in (25, 30, 400)
    }
    # Non-targets: as many for each combination of gender and accent
    of_speaker = VCTK().speakers(tmp_path / "VCTK")
    assert of_speaker["p225"]["region"] == "Southern England"
    assert "p280" not in of_speaker and "p999" in of_speaker
    trials = read_trials(paths["test_trials"])
    counts = Counter()
    for label, enrol, test in zip(trials.labels, trials.enrol, trials.test):
        first, second = (of_speaker.get(u.split("/")[0]) for u in (enrol, test))
        if not label and first and second:
            counts[
                first["gender"] == second["gender"],
                first["accent"] == second["accent"],
            ] += 1
    assert trials.labels.count(0) == trials.labels.count(1) > 20
    assert len(counts) == 4
    assert max(counts.values()) - min(counts.values()) <= 8


def test_splits_of_vctk_are_stratified_whatever_the_seed(tmp_path):
    """Each combination of gender and accent has its share in each split."""
    write_vctk(tmp_path / "VCTK", "0.80")
    lists = []
    for seed in (1, 2):
        paths = prepare_corpus(
            "vctk", tmp_path / "VCTK", tmp_path / str(seed),
            valid_speakers=4, test_speakers=5, seed=seed,
        )  # fmt: skip
        lists.append(read_trials(paths["test_trials"]))
    assert lists[0] == lists[1]
    of_speaker = VCTK().speakers(tmp_path / "VCTK")
    for split, most in (("test", 2), ("valid", 2), ("train", 4)):
        manifest = read_manifest(paths[split]).values()
        counts = Counter(
            (of_speaker[name]["gender"], of_speaker[name]["accent"])
            for name in {item["speaker"] for item in manifest} & set(of_speaker)
        )
        assert len(counts) == 4 and max(counts.values()) <= most


def test_librispeech(tmp_path):
    root = tmp_path / "LibriSpeech"
    lines = [";ID |SEX| SUBSET |MINUTES| NAME", "; a comment"]
    parts = ["train-clean-100", "train-other-500", "dev-clean", "dev-other"]
    for place, part in enumerate([*parts, "test-clean", "test-other"]):
        for number in range(4):
            speaker = 10 * place + number
            for utterance in range(3):
                name = f"{speaker}-7-{utterance:04}.flac"
                path = root / part / str(speaker) / "7" / name
                write_flac(path, speaker, utterance)
            lines.append(f"{speaker} | {'FM'[number % 2]} | {part} | 25.0 | A B")
    lines.append("9999 | F | train-clean-360 | 25.0 | Nobody")
    (root / "SPEAKERS.TXT").write_text("\n".join(lines) + "\n")
    paths = prepare_corpus("librispeech", root, tmp_path / "save", n_test_trials=40)
    for split, places in (("train", "01"), ("valid", "23"), ("test", "45")):
        speakers = {i["speaker"] for i in read_manifest(paths[split]).values()}
        assert {s.rjust(2, "0")[0] for s in speakers} == set(places)
        assert len(speakers) == 8
    assert "dev-clean/20/7/20-7-0000.flac" in read_manifest(paths["valid"])
    genders = LibriSpeech().speakers(root)
    trials = read_trials(paths["test_trials"])
    same = Counter(
        genders[enrol.split("/")[1]] == genders[test.split("/")[1]]
        for label, enrol, test in zip(trials.labels, trials.enrol, trials.test)
        if not label
    )
    assert same[True] == same[False] == 10
    # For a model trained elsewhere, the test parts alone
    manifest, _ = prepare_trials("librispeech", root, tmp_path / "trials")
    assert set(read_manifest(manifest)) == set(read_manifest(paths["test"]))


def test_published_lists_of_vctk(tmp_path):
    """Their ids are of release 0.80, whichever one is on the disk."""
    write_vctk(tmp_path / "VCTK", "0.92")
    lists = {}
    for split, first in (("valid", 0), ("test", 4)):
        lists[split] = tmp_path / f"trials-{split}.csv"
        one, other = SPEAKERS[first : first + 2]
        lists[split].write_text(
            "LABEL,SAMPLE1,SAMPLE2,SAMPLE_MATCH,GENDER_MATCH\n"
            f"1,{one}/{one}_025.wav,{one}/{one}_030.wav,0,1\n"
            f"0,{one}/{one}_025.wav,{other}/{other}_030.wav,0,0\n"
        )
    paths = prepare_corpus(
        "vctk", tmp_path / "VCTK", tmp_path / "save",
        verification_file=str(lists["test"]),
        valid_verification_file=str(lists["valid"]),
    )  # fmt: skip
    assert set(read_manifest(paths["test"])) == {
        "p229/p229_025.flac", "p229/p229_030.flac", "p230/p230_030.flac",
    }  # fmt: skip
    assert len({i["speaker"] for i in read_manifest(paths["train"]).values()}) == 16


def test_published_lists_of_librispeech_and_voxceleb():
    """One lacks the chapter's folder, the other has one more in front."""
    known = [
        "test-clean/6829/68771/6829-68771-0026.flac",
        "test-clean/6829/68769/6829-68769-0043.flac",
        "id10270/x6uYqmx31kE/00001.wav",
        "id10270/8jEAjG6SegY/00008.wav",
    ]
    listed = Trials(
        [1, 1],
        ["test-clean/6829/6829-68771-0026.wav", f"vox1_test_wav/{known[2]}"],
        ["test-clean/6829/6829-68769-0043.wav", f"vox1_test_wav/{known[3]}"],
    )
    matched = match_utterances(listed, known, "list")
    assert [matched.enrol, matched.test] == [known[0::2], known[1::2]]
    # The only file of that name, but another speaker's
    wrong = Trials([1], ["id10271/x6uYqmx31kE/00001.wav"], [known[3]])
    with pytest.raises(InputError, match="names 1 utterances"):
        match_utterances(wrong, known, "list")


def write_voxceleb(root, in_one_folder):
    """Two training and two test speakers of each, as wav files."""
    for number, (place, speaker) in enumerate(
        [
            ("vox1/wav", "id10001"), ("vox1/wav", "id10002"),
            ("vox1/wav", "id10270"), ("vox1/wav", "id10271"),
            ("vox2/dev/aac", "id00012"), ("vox2/dev/aac", "id00015"),
            ("vox2/test/aac", "id00017"), ("vox2/test/aac", "id00061"),
        ]
    ):  # fmt: skip
        if in_one_folder:
            place = place.replace("test/", "dev/")
        for utterance in range(3):
            path = root / place / speaker / "session" / f"{utterance:05}.wav"
            write_voice(path, number, utterance)
    trials = root / "veri_test2.txt"
    first, second = (f"id1027{n}/session" for n in range(2))
    trials.write_text(
        f"1 {first}/00000.wav {first}/00001.wav\n"
        f"0 {first}/00000.wav {second}/00001.wav\n"
    )
    return str(trials)


@pytest.mark.parametrize("in_one_folder", [False, True])
def test_voxceleb_protocols(tmp_path, in_one_folder, monkeypatch):
    vox1_o = write_voxceleb(tmp_path, in_one_folder)
    monkeypatch.setitem(voxceleb.PUBLISHED_TRIALS, "vox1-o", PublishedTrials(vox1_o))
    folders = [tmp_path / "vox1", tmp_path / "vox2"]
    expected = {
        "voxceleb1": [{"id10001", "id10002"}, {"id00017", "id00061"}, "vox1-o"],
        "voxceleb2": [{"id00012", "id00015"}, "vox1-o", {"id00017", "id00061"}],
    }
    for dataset, splits in expected.items():
        paths = prepare_corpus(dataset, folders, tmp_path / dataset)
        for split, wanted in zip(("train", "valid", "test"), splits):
            if wanted == "vox1-o":
                wanted = {"id10270", "id10271"}
            manifest = read_manifest(paths[split])
            assert {i["speaker"] for i in manifest.values()} == wanted
    # Vox1-O to test on although VoxCeleb2 is trained on, as most do
    paths = prepare_corpus(
        "voxceleb2", folders, tmp_path / "usual", verification_file="vox1-o"
    )
    valid = read_manifest(paths["valid"])
    assert {i["speaker"] for i in valid.values()} == {"id00017", "id00061"}
    manifest, trial_list = prepare_trials(
        "voxceleb2", folders, tmp_path / "trials", n_trials=10
    )
    speakers = {i["speaker"] for i in read_manifest(manifest).values()}
    assert speakers == {"id00017", "id00061"}
    assert len(read_trials(trial_list)) == 10


def test_voxceleb2_without_its_test_part(tmp_path, monkeypatch, caplog):
    vox1_o = write_voxceleb(tmp_path, in_one_folder=False)
    monkeypatch.setitem(voxceleb.PUBLISHED_TRIALS, "vox1-o", PublishedTrials(vox1_o))
    folders = [tmp_path / "vox1", tmp_path / "vox2" / "dev"]
    with pytest.raises(InputError, match="test trials: .*118 speakers"):
        prepare_corpus("voxceleb2", folders, tmp_path / "save")
    for number in range(10003, 10006):
        for utterance in range(2):
            path = tmp_path / f"vox1/wav/id{number}/session/{utterance:05}.wav"
            write_voice(path, number - 10000, utterance)
    paths = prepare_corpus("voxceleb1", folders, tmp_path / "save")
    assert "training speakers are held out" in caplog.text
    valid = read_manifest(paths["valid"])
    assert {i["speaker"][:3] for i in valid.values()} == {"id1"}


@pytest.mark.parametrize(
    "dataset, test, valid, expected",
    [
        ("voxceleb1", None, None, ("vox1-o", "vox2-test")),
        ("voxceleb2", None, None, ("vox2-test", "vox1-o")),
        ("voxceleb2", "vox1-h", None, ("vox1-h", "vox2-test")),
        ("voxceleb2", "vox2-test-original", None, ("vox2-test-original", "vox1-o")),
        ("voxceleb2", None, "vox2-test-original", ("vox1-o", "vox2-test-original")),
        ("voxceleb1", None, "vox1-o-original", ("vox2-test", "vox1-o-original")),
        ("voxceleb1", None, "mine.txt", ("vox1-o", "mine.txt")),
    ],
)
def test_speakers_of_voxceleb_do_not_test_and_validate(dataset, test, valid, expected):
    sources = get_corpus(dataset).trial_sources(test, valid)
    assert (sources["test"], sources["valid"]) == expected


NEW_CORPUS = """
from speechbrain_ext.dataio.corpora.base import Corpus, Utterance, audio_files

class Flat(Corpus):
    name = "flat"
    expected = "<speaker>_<number>.wav"

    def utterances(self, root, left_out):
        for file in audio_files(root, left_out):
            name = file.path.name
            yield Utterance.of_file(file, name, name.partition("_")[0])

CORPORA = (Flat(),)
"""


def test_a_new_corpus_is_one_module(tmp_path, monkeypatch):
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "flat.py").write_text(NEW_CORPUS)
    folders = [*corpora.__path__, str(tmp_path / "modules")]
    monkeypatch.setattr(corpora, "__path__", folders)
    corpora._modules.cache_clear()
    try:
        for speaker in range(6):
            for utterance in range(2):
                write_voice(tmp_path / f"data/s{speaker}_{utterance}.wav", speaker, 0)
        paths = prepare_corpus(
            "flat", tmp_path / "data", tmp_path / "save",
            valid_speakers=2, test_speakers=2,
        )  # fmt: skip
        assert len(read_manifest(paths["train"])) == 4
    finally:
        corpora._modules.cache_clear()


def test_original_trials_of_voxceleb2():
    """Numbers of arXiv 2409.07770, with as many utterances as it takes."""
    speaker_of = {
        f"{speaker}/video{video}/{utterance:05}.m4a": speaker
        for speaker in sorted(voxceleb.VOXCELEB2_TEST_SPEAKERS)
        for video in range(5)
        for utterance in range(9)
    }
    trials = voxceleb.draw_original_vox2_trials(speaker_of, seed=0)
    assert trials.labels.count(1) == 32096 and trials.labels.count(0) == 34515
    same_video, of_speaker, of_pair = Counter(), Counter(), Counter()
    for label, *names in zip(trials.labels, trials.enrol, trials.test):
        first, second = (name.split("/") for name in names)
        assert label == (first[0] == second[0])
        if label:
            of_speaker[first[0]] += 1
            same_video[first[1] == second[1]] += 1
        else:
            of_pair[frozenset((first[0], second[0]))] += 1
    assert set(of_speaker.values()) == {272}
    assert same_video[True] == same_video[False] == 16048
    assert len(of_pair) == 6903 and set(of_pair.values()) == {5}
    assert len(set(zip(trials.enrol, trials.test))) == len(trials)
    assert trials == voxceleb.draw_original_vox2_trials(speaker_of, seed=0)
    assert trials != voxceleb.draw_original_vox2_trials(speaker_of, seed=1)


def test_original_trials_of_voxceleb2_are_prepared(tmp_path, monkeypatch):
    vox1_o = write_voxceleb(tmp_path, in_one_folder=False)
    monkeypatch.setitem(voxceleb.PUBLISHED_TRIALS, "vox1-o", PublishedTrials(vox1_o))
    paths = prepare_corpus(
        "voxceleb2", [tmp_path / "vox1", tmp_path / "vox2"], tmp_path / "save",
        verification_file="vox2-test-original",
    )  # fmt: skip
    trials = read_trials(paths["test_trials"])
    # Three utterances of one video for each of two speakers
    assert trials.labels.count(1) == 6 and trials.labels.count(0) == 5
    valid = read_manifest(paths["valid"]).values()
    assert {item["speaker"] for item in valid} == {"id10270", "id10271"}


def test_corpora_that_are_something_else(tmp_path):
    with pytest.raises(InputError, match="wav48_silence_trimmed"):
        list_utterances("vctk", tmp_path)
    with pytest.raises(InputError, match="no part train-"):
        list_utterances("librispeech", tmp_path)
    (tmp_path / "wav48" / "p225").mkdir(parents=True)
    with pytest.raises(InputError, match="no audio in .* wav48/pNNN"):
        list_utterances("vctk", tmp_path)
    write_voice(tmp_path / "wav48/p225/p225_025.wav", 0, 0)
    with pytest.raises(InputError, match="no speaker-info.txt"):
        prepare_corpus("vctk", tmp_path, tmp_path / "save")


def test_unknown_attributes_match_nothing():
    speaker_of = {f"{s}/{u}": s for s in "abcd" for u in range(5)}
    attributes_of = {"a": {"gender": "F"}, "b": {"gender": "F"}}
    trials = draw_trials(speaker_of, 40, 0, attributes_of)
    pairs = Counter(
        frozenset((enrol[0], test[0]))
        for label, enrol, test in zip(trials.labels, trials.enrol, trials.test)
        if not label
    )
    assert pairs[frozenset("ab")] == 10


def test_csv_of_published_trials(tmp_path):
    path = tmp_path / "trials.csv"
    path.write_text(
        "LABEL,SAMPLE1,SAMPLE2,GENDER_MATCH,ACCENT_MATCH\n"
        '1,p225/1.wav,"p225/a, b.wav",1,1\n0,p225/1.wav,p226/1.wav,0,1\n'
    )
    trials = read_trials(path)
    assert trials.labels == [1, 0]
    assert trials.test == ["p225/a, b.wav", "p226/1.wav"]
    path.write_text("LABEL,SAMPLE1,SAMPLE2\n1,p225/1.wav\n")
    with pytest.raises(InputError, match="line 2: 2 fields"):
        read_trials(path)
