"""Lists, score files and manifests are read as they were written, by anyone."""

import codecs
import json
import os
from types import SimpleNamespace

import pytest
import torch
from conftest import write_voice
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.embeddings import read_embeddings
from speechbrain_ext.dataio.enrolments import (
    match_trials,
    read_enrolments,
    write_enrolments,
)
from speechbrain_ext.dataio.manifests import read_manifest, write_manifest
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.scores import read_scores, write_scores
from speechbrain_ext.dataio.trials import (
    Trials,
    match_utterances,
    read_trials,
    write_trials,
)
from speechbrain_ext.metrics.conditions import condition_metrics, read_genders
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import escaped, read_fields, unescaped, write_fields

ODD = ["a b", " a", "a\t", "a\nb", "a\rb", "a\u00a0b", "a\u202fPM.wav", "a\u2028b",
       "\ufeffa", "a\\t", "\\", '"', '"a"', '"\\u0041"', "'", "#", "# a", "a,b", "=1",
       "a|", "\udcfcm.wav", "\udcf0\udc9f", "Jos\u00e9", "Jose\u0301", "\U0001f600",
       "1", "0", "target", "nontarget", "%20", "LABEL,SAMPLE1,SAMPLE2", "\x1c", "\x85",
       "\u200b", "a  b", "null", "nan"]  # fmt: skip

# Bytes that a file may be called, and all characters
NAMES = st.one_of(
    st.sampled_from(ODD),
    st.binary(min_size=1).filter(lambda name: b"\0" not in name).map(os.fsdecode),
    st.text(
        st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1
    ),
)
NAME_LISTS = st.lists(NAMES, min_size=3, max_size=6, unique=True)
quick = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@quick
@given(NAMES)
def test_a_name_is_one_field(name):
    field = escaped(name)
    assert unescaped(field) == name
    assert not set(field) & set("\t\r\n") and field == field.strip()
    field.encode()


@quick
@given(NAME_LISTS)
@example(ODD)
@example(["1", "2", "target"])
def test_files_are_read_as_written(tmp_path, names):
    n = len(names)
    trials = Trials([1, *[0] * (n - 1)], names, names[1:] + names[:1])
    write_trials(tmp_path / "trials.txt", trials)
    assert read_trials(tmp_path / "trials.txt") == trials
    values = torch.linspace(-1, 1, n, dtype=torch.float64) / 3
    for file in ("scores.txt", "scores.csv"):
        write_scores(tmp_path / file, trials, values)
        read, scores = read_scores(tmp_path / file)
        assert read == trials and torch.equal(scores, values)
        unlabelled = Trials(None, trials.enrol, trials.test)
        write_scores(tmp_path / file, unlabelled, values)
        read, scores = read_scores(tmp_path / file, need_labels=False)
        assert read == unlabelled and torch.equal(scores, values)
    enrolments = {name: names[i:] for i, name in enumerate(names)}
    write_enrolments(tmp_path / "enrolments.txt", enrolments)
    assert read_enrolments(tmp_path / "enrolments.txt") == enrolments
    rows = [
        SimpleNamespace(id=name, wav=f"/data/{name}", speaker=name, duration=1.5)
        for name in names
    ]
    write_manifest(tmp_path / "manifest.csv", rows)
    assert read_manifest(tmp_path / "manifest.csv") == {
        name: {"wav": f"/data/{name}", "speaker": name, "duration": 1.5}
        for name in names
    }


def test_simple_names_are_written_as_voxceleb_does(tmp_path):
    """Other tools read these."""
    trials = Trials([1, 0], ["id1/a/1.wav"] * 2, ["id1/b/2.wav", "id2/c/1.wav"])
    write_trials(tmp_path / "t.txt", trials)
    assert (tmp_path / "t.txt").read_text() == (
        "1 id1/a/1.wav id1/b/2.wav\n0 id1/a/1.wav id2/c/1.wav\n"
    )


@pytest.mark.parametrize("separator", [" ", "\t"])
def test_lists_of_earlier_versions(tmp_path, separator):
    """They had other white space as it was."""
    name = "a/Memo\u202fPM.wav" if separator == " " else "a/M\u00a0 m.wav"
    lines = [(1, name, "a/2.wav"), (0, name, "b/1.wav")]
    (tmp_path / "t.txt").write_text(
        "".join(separator.join(map(str, line)) + "\n" for line in lines), "utf-8"
    )
    assert read_trials(tmp_path / "t.txt").enrol == [name] * 2


@pytest.mark.parametrize(
    "text, expected",
    [
        ("a-1 a-2 target\na-1 b-1 nontarget\n", ["a-1", "a-1"]),
        ("a-1 a-2 1\na-1 b-1 0\n", ["a-1", "a-1"]),
        ("1 0 target\n1 2 nontarget\n", ["1", "1"]),
        ("1 a b\n0 1 0\n", ["a", "1"]),
        ("target a b\nnontarget a c\n", ["a", "a"]),
        ("a 1\ta 2\ttarget\na 1\tb\tnontarget\n", ["a 1", "a 1"]),
        ("label,sample1,sample2\n1,a b,c\n\n0,a\\b,d\n", ["a b", "a/b"]),
    ],
)
def test_orders_of_trials(tmp_path, text, expected):
    (tmp_path / "t.txt").write_text(text)
    trials = read_trials(tmp_path / "t.txt")
    assert trials.labels == [1, 0]
    assert trials.enrol == expected


@pytest.mark.parametrize(
    "text, message",
    [
        ("a b target\n1 a c\n", "line 2: 'c' at the end is no label, which the other"),
        ("1 a b\na c target\n", "line 2: 'a' in front is no label, which the other"),
        ("1\ta b\n", "line 1: 2 fields"),
        ("1 a b\n0 a\n", "line 2: 2 fields"),
        ("1 a b c\n", "line 1: 4 fields.*tabs"),
        ("1 a b\n0 a b\n", "as target and as non-target"),
    ],
)
def test_bad_trials(tmp_path, text, message):
    (tmp_path / "t.txt").write_text(text)
    with pytest.raises(InputError, match=message):
        read_trials(tmp_path / "t.txt")


def test_trials_without_labels(tmp_path):
    (tmp_path / "t.txt").write_text("a b\n\na c\n")
    assert read_trials(tmp_path / "t.txt", need_labels=False) == Trials(
        None, ["a", "a"], ["b", "c"]
    )
    with pytest.raises(InputError, match="line 1: 2 fields; error rates need labels"):
        read_trials(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_text("1 a b\n0 a c\n")
    assert read_trials(tmp_path / "t.txt", need_labels=False).labels == [1, 0]
    for text, message in (
        ("1 a b\n", "no non-target"),
        ("\n", "has no trials"),
        ("a b\n1 a c\n", "line 2: 3 fields, where the lines above have 2"),
    ):
        (tmp_path / "t.txt").write_text(text)
        with pytest.raises(InputError, match=message):
            read_trials(tmp_path / "t.txt", need_labels=False)


def test_scores_of_wespeaker_and_kaldi(tmp_path):
    path = tmp_path / "scores"
    path.write_text(
        "a b 2.50000 target 1.0000 1.1000 0.1000 0.2000\n"
        "a c 1 nontarget 1.0000 1.1000 0.1000 0.2000\n"
    )
    trials, scores = read_scores(path)
    assert trials == Trials([1, 0], ["a", "a"], ["b", "c"])
    assert scores.tolist() == [2.5, 1.0]
    path.write_text("a b 2.5\na c 1\n")
    trials, scores = read_scores(path, need_labels=False)
    assert trials.labels is None and scores.tolist() == [2.5, 1.0]
    with pytest.raises(InputError, match="line 1: no label; error rates need"):
        read_scores(path)
    csv = tmp_path / "scores.csv"
    csv.write_text("enrol,test,label,score\na,b,1,2.5\na,c\n")
    with pytest.raises(InputError, match="line 3: no label"):
        read_scores(csv)
    path.write_text("a b 2.5\na c 1 0.5\n")
    with pytest.raises(InputError, match="labels in some lines only"):
        read_scores(path, need_labels=False)
    path.write_text("a b 1 0.5 0.7\n")
    with pytest.raises(InputError, match="5 fields, where .* 4 or 8"):
        read_scores(path)


READERS = {
    "trials": (read_trials, "1 a b\n0 a c\n"),
    "trials.csv": (read_trials, "LABEL,SAMPLE1,SAMPLE2\n1,a,b\n0,a,c\n"),
    "scores": (read_scores, "a b 1 0.5\na c 0 0.25\n"),
    "scores.csv": (read_scores, "enrol,test,label,score\na,b,1,0.5\na,c,0,0.25\n"),
    "spk2utt": (read_enrolments, "anna a b\notto c\n"),
    "genders.csv": (read_genders, "speaker,gender\nanna,F\n"),
    "manifest.csv": (read_manifest, "id,wav,speaker,duration\na,/a.wav,anna,1.5\n"),
    "utt2spk": (lambda path: list(read_fields(path, "utt2spk", [2])), "a b\nc d\n"),
}


@pytest.mark.parametrize("name", READERS)
def test_text_of_any_editor(tmp_path, name):
    read, text = READERS[name]
    path = tmp_path / name
    path.write_text(text)
    expected = str(read(path))
    blank = "\n" + text.replace("\n", "\n\n") + "\n"
    crlf = text.replace("\n", "\r\n")
    unfinished = text.rstrip("\n")
    for variant in (blank, crlf, unfinished, crlf.replace("\r\n", "\r\n\r\n")):
        for encoding in ("utf-8", "utf-8-sig"):
            path.write_bytes(variant.encode(encoding))
            if read is not READERS["utt2spk"][0] or variant in (crlf, unfinished):
                assert str(read(path)) == expected, variant
            else:
                assert [fields for _, fields in read(path)] == [["a", "b"], ["c", "d"]]
    path.write_bytes(codecs.BOM_UTF16_LE + text.encode("utf-16-le"))
    with pytest.raises(InputError, match=f"{name}' is UTF-16 .*save it as UTF-8"):
        read(path)
    path.write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    with pytest.raises(InputError, match=f"{name}' is a binary file or not UTF-8"):
        read(path)
    with pytest.raises(InputError, match="there is no "):
        read(tmp_path / "missing")


def test_text_in_utf16_without_a_mark(tmp_path):
    (tmp_path / "trials").write_bytes("1 a b\n".encode("utf-16-le"))
    with pytest.raises(InputError, match="line 1: this is no text in UTF-8"):
        read_trials(tmp_path / "trials")


@pytest.mark.parametrize(
    "listed, known",
    [
        ("Jos\u00e9/1.wav", "Jose\u0301/1.wav"),
        ("Jose\u0301/1.wav", "Jos\u00e9/1.flac"),
        ("x/Jose\u0301/1", "Jos\u00e9/1.wav"),
        ("a/b.wav", "a\\b.wav"),
    ],
)
def test_names_that_mean_the_same_match(listed, known):
    trials = match_utterances(Trials([1], [listed], [listed]), [known], "list")
    assert trials.enrol == trials.test == [known]


def test_models_that_mean_the_same_match():
    trials, enrolments = match_trials(
        Trials([1], ["Jos\u00e9"], ["e\u0301.wav"]),
        {"Jose\u0301": ["\u00e9"], "anna": ["b.wav"]},
        ["\u00e9.wav", "b.wav"],
        "list",
    )
    assert trials == Trials([1], ["Jose\u0301"], ["\u00e9.wav"])
    assert enrolments == {"Jose\u0301": ["\u00e9.wav"]}


def test_a_name_as_it_stands_comes_first():
    known = ["Jos\u00e9.wav", "Jose\u0301.wav", "a.wav", "a.flac"]
    for order in (known, known[::-1]):
        trials = match_utterances(Trials([1] * 4, known, known), order, "list")
        assert trials.enrol == known


def test_utt2spk_in_another_normal_form(tmp_path):
    (tmp_path / "x.ark").write_text("Jos\u00e9  [ 1 2 ]\n", "utf-8")
    (tmp_path / "utt2spk").write_text("Jose\u0301 jose\n", "utf-8")
    store = read_embeddings(tmp_path / "x.ark", tmp_path / "utt2spk")
    assert store.speakers == ["jose"]


def test_genders_in_another_normal_form(tmp_path):
    (tmp_path / "genders.csv").write_text(
        "Speaker,age,Gender\nJose\u0301,30,M\nana,20,F\nx,9\ny,9,\n", "utf-8"
    )
    ids = ["a", "b", "c"]
    store = EmbeddingStore(
        ids, torch.eye(3), ["Jos\u00e9", "Jos\u00e9", "ana"], [9.0] * 3, ""
    )
    conditions = condition_metrics(
        Trials([1, 0], ["a", "a"], ["b", "c"]),
        torch.tensor([0.9, 0.1]),
        store,
        read_genders(tmp_path / "genders.csv"),
    )
    assert conditions["cross gender"]["n_nontarget"] == 1
    assert set(read_genders(tmp_path / "genders.csv").values()) == {"M", "F"}


def test_json_reads_odd_names(tmp_path):
    """The escape is that of JSON, which other languages have too."""
    write_fields(tmp_path / "t", [("a\tb\u00a0c", "d e")])
    first, second = (tmp_path / "t").read_text("utf-8").rstrip("\n").split("\t")
    assert json.loads(first) == "a\tb\u00a0c" and second == "d e"


def test_recordings_of_any_name_are_prepared(tmp_path):
    odd = ["\n", "\t", "\\", "\u00a0", '"', " ", "#", "\u202f", ",", "e\u0301", "'"]
    for speaker, mark in enumerate(odd):
        for utterance in range(2):
            write_voice(
                tmp_path / "data" / f"{mark}s{mark}{speaker}{mark}" /
                f"{mark}{utterance}{mark}.wav", speaker, utterance,
            )  # fmt: skip
    paths = prepare_corpus(
        "folder", tmp_path / "data", tmp_path / "save", valid_speakers=3,
        test_speakers=3,
    )  # fmt: skip
    known = {}
    for split in ("train", "valid", "test"):
        utterances = read_manifest(paths[split])
        assert all(os.path.isfile(item["wav"]) for item in utterances.values())
        known.update(utterances)
    assert len(known) == 2 * len(odd)
    for split in ("valid", "test"):
        assert read_trials(paths[f"{split}_trials"]).utterances() <= set(known)
