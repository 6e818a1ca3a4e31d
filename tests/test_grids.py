"""Grids of trainings and their tables."""

import csv
import itertools
import json
import runpy
import subprocess
import sys

import pytest
from conftest import ROOT, TINY_ECAPA
from processes import run_python

from speechbrain_ext.config import read_configuration
from speechbrain_ext.training.grids import grid_run, read_grid
from speechbrain_ext.utils.errors import InputError

GRID = ROOT / "recipes" / "VoxCeleb" / "train_grid.py"


def test_each_setting_is_trained_once_for_each_seed(corpus, tmp_path, monkeypatch):
    grid = tmp_path / "grid.yaml"
    ecapa = ROOT / "hparams" / "ecapa_fbank.yaml"
    grid.write_text(
        f"wide: {{hparams: {ecapa}}}\nnarrow: {{hparams: {ecapa}, emb_dim: 8}}\n"
    )
    options = {**TINY_ECAPA, "data_folder": corpus, "number_of_steps": 3}
    arguments = [
        str(grid), f"--output_folder={tmp_path / 'out'}", "--seeds", "1", "2", "--",
        *(f"--{key}={value}" for key, value in options.items()),
    ]  # fmt: skip
    main = runpy.run_path(str(GRID))["main"]
    with monkeypatch.context() as patch:
        patch.setattr("subprocess.run", lambda command, check: run_python(command[1:]))
        main(arguments)
    with open(tmp_path / "out/grid.csv", encoding="utf-8") as file:
        wide, narrow = csv.DictReader(file)
    files = [tmp_path / f"out/wide/{seed}/test/metrics.json" for seed in (1, 2)]
    eers = [100 * json.loads(file.read_text())["EER"] for file in files]
    expected = f"{sum(eers) / 2:.2f} ({min(eers):.2f} to {max(eers):.2f})"
    assert wide["system"] == "wide" and wide["EER %"] == expected
    assert int(narrow["parameters"]) < int(wide["parameters"])
    assert "| wide |" in (tmp_path / "out/grid.md").read_text()
    assert (tmp_path / "out/det.png").stat().st_size > 1000

    stamp = (tmp_path / "out/wide/1/finished.json").stat().st_mtime_ns
    (tmp_path / "out/narrow/2/finished.json").unlink()
    subprocess.run([sys.executable, GRID, *arguments], check=True)
    assert (tmp_path / "out/wide/1/finished.json").stat().st_mtime_ns == stamp
    assert (tmp_path / "out/narrow/2/finished.json").is_file()


def test_grids_of_the_project_fit_their_yamls(monkeypatch):
    monkeypatch.chdir(ROOT)
    for path in sorted((ROOT / "hparams" / "grids").glob("*.yaml")):
        for hparams_file, overrides in read_grid(path).values():
            overrides["output_folder"] = "out"
            run = grid_run("train.py", hparams_file, ["--data_folder=x"], overrides)
            assert run.command[2] == hparams_file


@pytest.mark.parametrize("name", ["kd_targets", "kd_teachers"])
def test_targets_of_the_grids_are_those_of_the_teachers(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    wanted = {}
    for hparams_file, overrides in read_grid(f"hparams/grids/{name}.yaml").values():
        wanted.setdefault(hparams_file, set()).update(overrides["targets"])
    for hparams_file, targets in wanted.items():
        values = read_configuration([hparams_file], demo=False).values()
        assert targets <= set(values["target_models"])


def test_grid_of_targets_has_every_cell():
    grid = read_grid(ROOT / "hparams/grids/kd_targets.yaml")
    cells = {
        (*sorted(overrides["targets"]), *sorted(set(overrides) - {"targets"}))
        for _, overrides in grid.values()
    }
    assert len(cells) == len(grid) - 1  # one is of the other student
    hparams = str(ROOT / "hparams/kd_xvector_fc.yaml")
    every = list(read_configuration([hparams], demo=False).values()["target_models"])
    assert len(every) == 8
    for target in every:
        assert {(target,), (target, "subtract_target_mean")} <= cells
    for pair in itertools.combinations(sorted(every), 2):
        assert pair in cells
    assert ("lde_aggr", "narrow_bn", "sp_aggr", "utterance", "wide_bn") in cells


def test_grid_without_hparams_is_an_error(tmp_path):
    (tmp_path / "grid.yaml").write_text("sum: {pool: sum}\n")
    with pytest.raises(InputError, match="sum has no hparams"):
        read_grid(tmp_path / "grid.yaml")
    with pytest.raises(InputError, match="no grid"):
        read_grid(tmp_path / "nowhere.yaml")
