"""Corpora in other layouts, through the recipes of these corpora."""

import csv
import json
import subprocess
import sys

import pytest
import soundfile
from conftest import write_voice
from test_recipe import ECAPA, ENVIRONMENT, ROOT, TINY_ECAPA, run

from speechbrain_ext.dataio.prepare import read_manifest
from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.tools.lay_out_corpus import lay_out_corpus, read_speakers
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    """Twenty speakers with three utterances each."""
    root = tmp_path_factory.mktemp("source")
    with open(root / "utterances.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "speaker", "gender", "age"])
        for speaker in range(20):
            for utterance in range(3):
                path = f"audio/{speaker:02}/{utterance}.wav"
                write_voice(root / path, speaker, utterance)
                writer.writerow([path, f"{speaker:02}", "fm"[speaker % 2], 30])
    return root / "utterances.csv"


RECIPES = {
    "voxceleb": (
        "VoxCeleb",
        {
            "dataset": "voxceleb1",
            "data_folder": "[{0}/VoxCeleb1, {0}/VoxCeleb2]",
            "verification_file": "{0}/VoxCeleb1/veri_test2.txt",
        },
    ),
    "librispeech": ("LibriSpeech", {"data_folder": "{0}"}),
    "vctk": (
        "VCTK",
        {
            "data_folder": "{0}",
            "verification_file": "{0}/trials-test.csv",
            "valid_verification_file": "{0}/trials-valid.csv",
        },
    ),
}


@pytest.mark.parametrize("layout", RECIPES)
def test_layouts_run_through_their_recipes(table, tmp_path, layout):
    root = tmp_path / "corpus"
    lay_out_corpus(table, layout, root)
    files = sorted(p for p in root.rglob("*") if p.suffix in (".wav", ".flac"))
    assert len(files) == 60
    rate = 48000 if layout == "vctk" else 16000
    assert {soundfile.info(path).samplerate for path in files} == {rate}

    recipe, given = RECIPES[layout]
    given = {key: value.format(root) for key, value in given.items()}
    tiny = {
        key: value
        for key, value in TINY_ECAPA.items()
        if key not in ("dataset", "valid_speakers", "test_speakers")
    }
    options = {**tiny, **given, "output_folder": tmp_path / "out"}
    done = run(ROOT / "recipes" / recipe / "train.py", ECAPA, options, tmp_path)
    assert done.returncode == 0, done.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert metrics["n_target"] == metrics["n_nontarget"] == 12
    assert metrics["system"] == "ecapa_fbank"
    assert metrics["dataset"] == given.get("dataset", layout)
    save = tmp_path / "out" / "save"
    for split, n_speakers in (("train", 14), ("valid", 2), ("test", 4)):
        manifest = read_manifest(save / f"{split}.csv")
        assert len({item["speaker"] for item in manifest.values()}) == n_speakers

    # The same without training
    script = next((ROOT / "recipes" / recipe).glob("*_prepare.py"))
    given["save_folder"] = tmp_path / "prepared"
    done = subprocess.run(
        [sys.executable, script, *(f"--{k}={v}" for k, v in given.items())],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("test_trials.txt", "valid_trials.txt", "train.csv"):
        text = (tmp_path / "prepared" / name).read_text()
        assert text == (save / name).read_text()
    del given["save_folder"]
    done = subprocess.run(
        [sys.executable, script, *(f"--{k}={v}" for k, v in given.items())],
        env=ENVIRONMENT, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stderr.strip().splitlines()[-1] == "error: give --save_folder"


def test_trials_of_vctk_are_balanced_over_gender(table, tmp_path):
    lay_out_corpus(table, "vctk", tmp_path)
    trials = read_trials(tmp_path / "trials-test.csv")
    lines = (tmp_path / "speaker-info.txt").read_text().splitlines()[1:]
    gender_of = {line.split()[0]: line.split()[2] for line in lines}
    same = [
        gender_of[enrol.split("/")[0]] == gender_of[test.split("/")[0]]
        for label, enrol, test in zip(trials.labels, trials.enrol, trials.test)
        if not label
    ]
    assert len(same) == 12 and len(gender_of) == 20
    assert sum(same) == 6


def test_tables_that_are_something_else(tmp_path):
    with pytest.raises(InputError, match="no table"):
        read_speakers(tmp_path / "nowhere.csv")
    (tmp_path / "t.csv").write_text("path,speaker\na.wav,a\n")
    with pytest.raises(InputError, match="lacks gender, age"):
        read_speakers(tmp_path / "t.csv")
