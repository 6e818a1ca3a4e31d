"""VCTK and LibriSpeech in their folder layouts, and their balanced trials."""

from collections import Counter

import pytest
import soundfile
from conftest import write_voice

from speechbrain_ext.dataio.corpora import librispeech_speakers, vctk_speakers
from speechbrain_ext.dataio.prepare import (
    list_utterances,
    prepare_corpus,
    read_manifest,
)
from speechbrain_ext.dataio.trials import draw_trials, read_trials
from speechbrain_ext.utils.errors import InputError

ACCENTS = ("English", "Scottish")
SPEAKERS = [f"p{number}" for number in range(225, 245)]


def write_flac(path, speaker, utterance):
    write_voice(path.with_suffix(".wav"), speaker, utterance)
    wav, sample_rate = soundfile.read(path.with_suffix(".wav"))
    soundfile.write(path, wav, sample_rate)
    path.with_suffix(".wav").unlink()


def write_vctk(root, release):
    """Twenty speakers, of which one lacks metadata, and the two left out."""
    lines = ["ID  AGE  GENDER  ACCENTS  REGION COMMENTS"]
    for number, speaker in enumerate([*SPEAKERS, "p280", "p315"]):
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
        if speaker != "p244":
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
    ending = ".wav" if release == "0.80" else "_mic1.flac"
    assert set(manifests["train"]) == {
        f"{speaker}/{speaker}_{utterance:03}{ending}"
        for speaker in speakers["train"]
        for utterance in (25, 30, 400)
    }
    # Non-targets: as many for each combination of gender and accent
    of_speaker = vctk_speakers(tmp_path / "VCTK")
    assert of_speaker["p225"]["region"] == "Southern England"
    assert "p244" not in of_speaker and "p999" in of_speaker
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
    genders = librispeech_speakers(root)
    trials = read_trials(paths["test_trials"])
    same = Counter(
        genders[enrol.split("/")[1]] == genders[test.split("/")[1]]
        for label, enrol, test in zip(trials.labels, trials.enrol, trials.test)
        if not label
    )
    assert same[True] == same[False] == 10


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
    assert pairs[frozenset("ab")] >= 6


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
