"""Kills of preparation and distillation, wherever they fall, change nothing."""

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.utils import files

ROOT = Path(__file__).resolve().parents[1]
# prepared.json and the key of the demo name the run's own folder.
COMPARED = ("train.csv", "valid.csv", "test.csv", "valid_trials.txt", "test_trials.txt")


def prepare(corpus, folder, **settings):
    given = {"valid_speakers": 3, "test_speakers": 3, **settings}
    prepare_corpus("folder", corpus, folder, **given)


def test_kills_of_a_preparation_change_nothing(corpus, tmp_path):
    start = time.monotonic()
    prepare(corpus, tmp_path / "whole")
    duration = time.monotonic() - start
    fork = multiprocessing.get_context("fork")
    rng = random.Random(0)
    n_kills = 0
    while n_kills < 5:
        process = fork.Process(target=prepare, args=(corpus, tmp_path / "killed"))
        process.start()
        process.join(rng.uniform(0, duration))
        process.kill()
        process.join()
        n_kills += process.exitcode == -signal.SIGKILL
        (tmp_path / "killed" / "prepared.json").unlink(missing_ok=True)
    prepare(corpus, tmp_path / "killed")
    for name in COMPARED:
        whole, killed = (
            (tmp_path / f / name).read_bytes() for f in ("whole", "killed")
        )
        assert whole == killed, name
    assert not list((tmp_path / "killed").glob(".partial-*"))


@pytest.mark.parametrize("n_written", range(5))
def test_killed_preparation_of_other_settings_leaves_no_mixture(
    corpus, tmp_path, monkeypatch, n_written
):
    """A, then B killed in the middle, then A again in the same folder."""
    folder = tmp_path / "save"
    prepare(corpus, folder)
    before = {name: (folder / name).read_bytes() for name in COMPARED}
    real, written = files.os.replace, []

    def die(source, target):
        if Path(target).name in COMPARED:
            if len(written) == n_written:
                raise KeyboardInterrupt
            written.append(target)
        real(source, target)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(files.os, "replace", die)
        prepare(corpus, folder, seed=7)
    prepare(corpus, folder)
    assert {name: (folder / name).read_bytes() for name in COMPARED} == before


def test_preparation_says_what_has_changed(corpus, tmp_path, caplog):
    prepare(corpus, tmp_path / "save")
    with caplog.at_level("INFO"):
        prepare(corpus, tmp_path / "save", seed=7)
    assert "other seed (1986, not 7): prepared again" in caplog.text
    caplog.clear()
    with caplog.at_level("INFO"):
        prepare(corpus, tmp_path / "save", seed=7)
    assert "up to date" in caplog.text


@pytest.mark.slow
def test_kills_of_a_distillation_change_nothing(corpus, tmp_path):
    teacher = {
        "number_of_steps": 6, "steps_per_epoch": 3, "batch_size": 4,
        "sentence_len": 1.0, "xvector_channels": 8,
    }  # fmt: skip
    options = {
        "dataset": "folder", "data_folder": corpus, "valid_speakers": 3,
        "test_speakers": 3, "number_of_steps": 6, "steps_per_epoch": 3,
        "batch_size": 4, "sentence_len": 1.0, "num_workers": 0,
        "student_channels": 8, "lda_dim": 2, "targets": "[utterance, sp_aggr]",
        "teacher_training": json.dumps(teacher),
    }  # fmt: skip

    def start(name):
        given = {
            **options,
            "output_folder": tmp_path / name / "student",
            "teacher": tmp_path / name / "teacher",
        }
        return subprocess.Popen(
            [
                sys.executable,
                str(ROOT / "recipes/VoxCeleb/train_kd.py"),
                str(ROOT / "hparams/kd_xvector_fc.yaml"),
                *(f"--{key}={value}" for key, value in given.items()),
            ],
            env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
            cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    begin = time.monotonic()
    whole = start("whole")
    _, errors = whole.communicate()
    assert whole.returncode == 0, errors[-3000:]
    duration = time.monotonic() - begin
    for kill in range(5):
        process = start("killed")
        try:
            # The later ones find more done, and are killed further on.
            process.communicate(timeout=duration * (kill + 1) / 6)
        except subprocess.TimeoutExpired:
            process.kill()
        process.communicate()
    done = start("killed")
    _, errors = done.communicate()
    assert done.returncode == 0, errors[-3000:]
    for results in ("student/test", "student/verification_plda", "teacher/test"):
        scores = [
            (tmp_path / name / results / "scores.txt").read_text()
            for name in ("whole", "killed")
        ]
        assert scores[0] == scores[1], results
