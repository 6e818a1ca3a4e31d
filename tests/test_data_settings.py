"""The data keys: named in one place, and refused at once where they make no sense."""

import dataclasses
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from speechbrain_ext.dataio.corpora import corpora, get_corpus, layouts
from speechbrain_ext.dataio.corpora.base import Corpus, audio_files
from speechbrain_ext.dataio.prepare import prepare_corpus, prepare_trials
from speechbrain_ext.dataio.settings import DataSettings
from speechbrain_ext.utils.errors import InputError

HPARAMS = Path(__file__).resolve().parents[1] / "hparams"
FIELDS = {field.name for field in dataclasses.fields(DataSettings)}
# Values that each key takes beside its default
RIGHT = {
    "dataset": ["vctk"],
    "data_folder": ["x", Path("x"), ["x", "y"]],
    "sample_rate": [8000],
    "verification_file": [None, "vox1-o", Path("x")],
    "valid_verification_file": [None, "vox1-o"],
    "valid_speakers": [0.5, 2, 100],
    "test_speakers": [0.5, 2],
    "n_valid_trials": [2],
    "n_test_trials": [2],
    "min_duration": [0, 1.5],
    "allow_broken": [True],
    "seed": [0, 7],
}
WRONG = {
    "dataset": [-1, 0, "x", None, ["folder"]],
    "data_folder": [-1, 0, None, [], [None], "", {"a": "b"}],
    "sample_rate": [-1, 0, "x", None, [16000], 16000.5, True],
    "verification_file": [-1, 0, ["a"], ""],
    "valid_verification_file": [-1, 0, ["a"], ""],
    "valid_speakers": [-1, 0, "x", None, [0.1], -0.1, 1, 1.0, 2.5, True, float("nan")],
    "test_speakers": [-1, 0, "x", None, [0.1], 1.5, float("inf")],
    "n_valid_trials": [-1, 0, 1, "x", None, [10], 10.5, True],
    "n_test_trials": [-1, 0, 1, "x", None, [10], 10.5],
    "min_duration": [-1, "x", None, [0.5], float("nan"), True],
    "allow_broken": [-1, 0, 1, "x", None, []],
    "seed": [-1, "x", None, [1], 0.5, True],
}


def cases(table):
    return [(key, value) for key, values in table.items() for value in values]


def test_every_key_is_tried():
    assert set(RIGHT) == set(WRONG) == FIELDS


@pytest.mark.parametrize("key, value", cases(RIGHT))
def test_values_that_make_sense(key, value):
    settings = DataSettings(**{"dataset": "folder", "data_folder": "x", key: value})
    assert getattr(settings, key) == value


@pytest.mark.parametrize("key, value", cases(WRONG))
def test_values_that_make_no_sense(key, value, tmp_path):
    given = {"dataset": "folder", "data_folder": "x", "save_folder": tmp_path / "save"}
    with pytest.raises(InputError, match=f"^{key}:? ") as error:
        prepare_corpus(**{**given, key: value})
    assert "\n" not in str(error.value)
    if key == "n_test_trials":
        with pytest.raises(InputError, match=f"^{key}: "):
            prepare_trials(**given, n_trials=value)
    assert not (tmp_path / "save").exists()


def test_yaml_has_the_keys_of_the_dataclass():
    content = YAML().load((HPARAMS / "data.yaml").read_text("utf-8"))
    given = content["prepare_data"]
    assert set(given) == FIELDS | {"save_folder"}
    for key, value in given.items():
        assert value.value == f"<{key}>" and key in content


def test_yaml_of_each_corpus_is_of_a_corpus():
    for path in (HPARAMS / "corpora").glob("*.yaml"):
        content = YAML().load(path.read_text("utf-8"))
        assert content["dataset"] == path.stem
        DataSettings(data_folder="x", **content)


@pytest.mark.parametrize("name", sorted(corpora()))
def test_corpora_say_what_they_are(name):
    corpus = get_corpus(name)
    assert isinstance(corpus, Corpus) and corpus.name == name
    assert corpus.expected
    assert set(corpus.trial_sources()) == {"test", "valid"}
    given = corpus.trial_sources("mine.txt", "ours.txt")
    assert given == {"test": "mine.txt", "valid": "ours.txt"}


def test_empty_folder_is_told_what_is_expected(tmp_path):
    for name in set(corpora()) - {"vctk", "librispeech"}:
        corpus = get_corpus(name)
        with pytest.raises(InputError) as error:
            corpus.list_utterances([tmp_path])
        assert corpus.expected in str(error.value)


def test_layouts_are_of_corpora():
    for name in layouts():
        assert any(corpus.startswith(name) for corpus in corpora())


def test_walk_of_an_empty_folder(tmp_path):
    assert not list(audio_files(tmp_path, []))
