"""Trial lists: formats, bad lines, balance of drawn lists."""

from collections import Counter

import pytest

from speechbrain_ext.dataio.trials import (
    Trials,
    draw_trials,
    match_utterances,
    read_trials,
    write_trials,
)
from speechbrain_ext.utils.errors import InputError


def write(tmp_path, text):
    path = tmp_path / "trials.txt"
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_labels_windows_paths_and_dots(tmp_path):
    path = write(
        tmp_path,
        "\ufeff1 a\\s.1\\x.y.wav a/2.wav\r\n\r\nnontarget a/2.wav b/1.wav\n",
    )
    trials = read_trials(path)
    assert trials == Trials(
        [1, 0], ["a/s.1/x.y.wav", "a/2.wav"], ["a/2.wav", "b/1.wav"]
    )


def test_trials_without_labels_are_written_as_they_are_read(tmp_path):
    trials = Trials(None, ["a/1.wav", "a/1.wav"], ["a/2.wav", "b/1.wav"])
    write_trials(tmp_path / "t.txt", trials)
    assert read_trials(tmp_path / "t.txt", need_labels=False) == trials


def test_columns_of_a_csv_may_be_in_any_order(tmp_path):
    path = write(tmp_path, "sample1,SAMPLE2,note,LABEL\na/1,a/2,,1\na/1,b/1,,0\n")
    assert read_trials(path) == Trials([1, 0], ["a/1", "a/1"], ["a/2", "b/1"])


def test_ids_with_spaces_survive(tmp_path):
    trials = Trials([1, 0], ["a b/1.wav"] * 2, ["a b/2.wav", "c/1.wav"])
    write_trials(tmp_path / "t.txt", trials)
    assert read_trials(tmp_path / "t.txt") == trials


@pytest.mark.parametrize(
    "text, message",
    [
        ("1 a b\n2 a c\n", "line 2: neither '2' nor 'c' is a label"),
        ("1 a b\n0 a\n", "line 2: 2 fields"),
        ("1 a b\n", "no non-target trials"),
        ("0 a b\n", "no target trials"),
        ("", "has no trials"),
        ("\n \n", "has no trials"),
        ("a b Target\na c Nontarget\n", "line 1: neither 'a' nor 'Target' is a label"),
        ("a b target\na c imposter\n", "line 2: neither 'a' nor 'imposter' is a label"),
        ("1,a,b\n0,a,c\n", "line 1: 1 fields.*spaces separate them"),
    ],
)
def test_bad_lists_are_named(tmp_path, text, message):
    with pytest.raises(InputError, match=f"trials.txt.*{message}"):
        read_trials(write(tmp_path, text))


def test_missing_list(tmp_path):
    with pytest.raises(InputError, match="no trial list .*none.txt"):
        read_trials(tmp_path / "none.txt")


def test_unknown_utterances_are_named():
    trials = Trials([1, 0], ["a/1.wav", "a/1.wav"], ["a/9.wav", "b/8.wav"])
    with pytest.raises(InputError, match="'list' names 2 .*: a/9.wav, b/8.wav"):
        match_utterances(trials, ["a/1.wav"], "list")


def test_extensions_may_differ():
    trials = Trials([1], ["id1/s/v1.0.wav"], ["id1/s/v1.1"])
    known = ["id1/s/v1.0.m4a", "id1/s/v1.1.m4a"]
    matched = match_utterances(trials, known, "list")
    assert [*matched.enrol, *matched.test] == known


def test_drawn_trials_are_balanced_and_distinct():
    speaker_of = {f"{s}/{u}": s for s in "abcdef" for u in range(5)}
    trials = draw_trials(speaker_of, n_trials=60, seed=1)
    assert Counter(trials.labels) == {1: 30, 0: 30}
    pairs = list(zip(trials.enrol, trials.test))
    assert len({frozenset(pair) for pair in pairs}) == 60
    for label, (enrol, test) in zip(trials.labels, pairs):
        assert (speaker_of[enrol] == speaker_of[test]) == bool(label)
    speakers = [frozenset((speaker_of[e], speaker_of[t])) for e, t in pairs]
    # 30 target trials over 6 speakers, 30 non-target ones over 15 pairs
    assert {n for s, n in Counter(speakers).items() if len(s) == 1} == {5}
    assert {n for s, n in Counter(speakers).items() if len(s) == 2} == {2}
    assert draw_trials(speaker_of, 60, seed=1) == trials
    assert draw_trials(speaker_of, 60, seed=2) != trials


def test_draws_no_more_than_there_are():
    speaker_of = {"a/1": "a", "a/2": "a", "b/1": "b", "b/2": "b"}
    trials = draw_trials(speaker_of, n_trials=1000, seed=0)
    assert Counter(trials.labels) == {1: 2, 0: 2}


def test_too_few_speakers_or_utterances():
    with pytest.raises(InputError, match="two or more"):
        draw_trials({"a/1": "a", "a/2": "a"}, 10, 0)
    with pytest.raises(InputError, match="no speaker has two utterances"):
        draw_trials({"a/1": "a", "b/1": "b"}, 10, 0)
