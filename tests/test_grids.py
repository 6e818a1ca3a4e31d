"""Grids of trainings and their tables."""

import csv
import itertools
import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TINY_ECAPA
from processes import run_python

from speechbrain_ext.config import read_configuration
from speechbrain_ext.training.finished import check_settings, start_settings
from speechbrain_ext.training.grids import grid_run, read_grid
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import write_json
from speechbrain_ext.utils.tables import write_table

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


def write_results(folder, **metrics):
    write_json(
        folder / "metrics.json",
        {
            "EER": 0.02, "EER_95": [0.01, 0.03], "minDCF_0.01": 0.2,
            "minDCF_0.05": 0.1, **metrics,
        },
    )  # fmt: skip


def fake_recipe(command, check):
    """Leaves what the trainings and chains of a grid leave."""
    options = dict(part[2:].split("=", 1) for part in command[3:])
    folder = Path(options["output_folder"])
    taken.append((Path(command[1]).name, folder))
    if command[1].endswith("scoring_chain.py"):
        assert options["trained_model"] == str(folder.parent)
        assert options["trust_source"] == "true"
        write_results(folder / "trials" / "AS-norm", EER=0.018)
        write_results(
            folder / "trials" / "quality-aware_calibration",
            Cllr=0.071, **{"actDCF_0.01": 0.25},
        )  # fmt: skip
        rows = [
            {"trials": "trials", "scores": scores}
            for scores in ("AS-norm", "quality-aware calibration")
        ]
        write_table(folder / "chain", rows)
        return
    write_results(
        folder / "test", EER_star=0.021, parameters={"embedding_model": 3},
        train_minutes=1, EER=0.01 * int(options["seed"]),
    )  # fmt: skip
    (folder / "test/scores.txt").write_text("a b 1 0.9\na c 0 0.1\n", "utf-8")


taken = []


def test_scores_go_through_a_chain_that_the_grid_names(tmp_path, monkeypatch):
    taken.clear()
    ltdnn = ROOT / "hparams" / "ltdnn_wavlm.yaml"
    chain = ROOT / "hparams" / "verification_chain.yaml"
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        f"frozen: {{hparams: {ltdnn}}}\n"
        f"joint: {{hparams: {ltdnn}, freeze: False, scoring_chain: {chain}}}\n",
        "utf-8",
    )
    main = runpy.run_path(str(GRID))["main"]
    out = tmp_path / "out"
    arguments = [str(grid), f"--output_folder={out}", "--seeds", "1", "2"]
    arguments += ["--", "--data_folder=x", "--dataset=folder"]
    monkeypatch.setattr("subprocess.run", fake_recipe)
    main(arguments)
    chains = [("scoring_chain.py", out / f"joint/{s}/scoring_chain") for s in (1, 2)]
    trainings = [
        ("train.py", out / name / str(s))
        for name in ("frozen", "joint")
        for s in (1, 2)
    ]
    assert taken == [*trainings, *chains]
    with open(out / "grid.csv", encoding="utf-8") as file:
        rows = {row["system"]: row for row in csv.DictReader(file)}
    names = ["frozen", "joint", "joint, AS-norm", "joint, quality-aware calibration"]
    assert list(rows) == names
    calibrated = rows[names[-1]]
    assert calibrated["EER %"] == "2.00 (2.00 to 2.00)" and not calibrated["EER* %"]
    assert calibrated["Cllr"] == "0.071 (0.071 to 0.071)"
    assert rows["joint"]["Cllr"] == "" and rows["joint"]["EER %"].startswith("1.50 (")

    # Nothing is done twice; a chain of other settings is refused
    main(arguments)
    assert len(taken) == 6
    other = tmp_path / "other.yaml"
    other.write_text(f"extends: {chain}\ncohort_size: 5\n", "utf-8")
    grid.write_text(grid.read_text("utf-8").replace(str(chain), str(other)), "utf-8")
    with pytest.raises(InputError, match="scoring_chain.* other settings .cohort_size"):
        main(arguments)


def test_a_chain_that_is_not_there_stops_the_grid_at_its_start(tmp_path, monkeypatch):
    taken.clear()
    ltdnn = ROOT / "hparams" / "ltdnn_wavlm.yaml"
    grid = tmp_path / "grid.yaml"
    grid.write_text(f"joint: {{hparams: {ltdnn}, scoring_chain: nowhere.yaml}}\n")
    main = runpy.run_path(str(GRID))["main"]
    monkeypatch.setattr("subprocess.run", fake_recipe)
    with pytest.raises(InputError, match="nowhere.yaml"):
        main(
            [str(grid), f"--output_folder={tmp_path / 'out'}", "--", "--data_folder=x"]
        )
    assert not taken


def test_a_setting_that_cannot_be_trained_stops_the_grid_at_its_start(
    tmp_path, monkeypatch
):
    taken.clear()
    ecapa = ROOT / "hparams" / "ecapa_fbank.yaml"
    grid = tmp_path / "grid.yaml"
    first = tmp_path / "out" / "whole" / "2"
    after = f"after: {{hparams: {ecapa}, start_from: {first}}}\n"
    grid.write_text(
        f"whole: {{hparams: {ecapa}}}\n{after}"
        f"short: {{hparams: {ecapa}, number_of_steps: 10}}\n"
    )
    main = runpy.run_path(str(GRID))["main"]
    monkeypatch.setattr("subprocess.run", fake_recipe)
    arguments = [str(grid), f"--output_folder={tmp_path / 'out'}", "--seeds", "1", "2"]
    with pytest.raises(InputError, match="number_of_steps: 10 leaves a phase"):
        main([*arguments, "--", "--data_folder=x"])
    grid.write_text(after)
    with pytest.raises(InputError, match="no checkpoint with EER"):
        main([*arguments, "--", "--data_folder=x"])
    assert not taken


def test_caches_may_move_and_what_is_trained_on_may_not(tmp_path):
    """As in grids, so in distillation: both compare by `check_settings`."""

    def settings(*options):
        path = ROOT / "hparams" / "kd_ltdnn_tdnn.yaml"
        own = ["--dataset=folder", *options]
        return read_configuration([str(path), *own], demo=False).settings()

    places = ["--shards_folder=/a", "--targets_folder=/b", "--output_folder=/c"]
    start_settings(tmp_path, settings("--data_folder=x", *places))
    check_settings(
        tmp_path,
        settings(
            "--data_folder=x", "--shards_folder=d", "--targets_folder=e",
            "--output_folder=f", "--num_workers=1",
        ),
    )  # fmt: skip
    with pytest.raises(InputError, match=r'shards_folder \("given", not "null"\)'):
        check_settings(tmp_path, settings("--data_folder=x"))
    with pytest.raises(InputError, match="data_folder .* a link at its old place"):
        check_settings(tmp_path, settings("--data_folder=y", *places))

    # On record as of earlier releases
    write_json(
        tmp_path / "settings.json",
        {
            "script": "/old/recipes/VoxCeleb/train.py",
            "hidden_state_cache": "/old",
            "train_log": "log.txt",
        },
    )
    moved = {"script": "/recipes/VoxCeleb/train.py", "hidden_state_cache": "given"}
    check_settings(tmp_path, moved)
    for key, value in (("hidden_state_cache", "null"), ("script", "LibriSpeech/t.py")):
        with pytest.raises(InputError, match=f"{key} ") as raised:
            check_settings(tmp_path, {**moved, key: value})
        assert "link" not in str(raised.value)


def test_grids_of_the_project_fit_their_yamls(monkeypatch):
    monkeypatch.chdir(ROOT)
    chains = set()
    for path in sorted((ROOT / "hparams" / "grids").glob("*.yaml")):
        for hparams_file, overrides, chain in read_grid(path).values():
            overrides["output_folder"] = "out"
            run = grid_run("train.py", hparams_file, ["--data_folder=x"], overrides)
            assert run.command[2] == hparams_file
            chains.add(chain)
    for chain in chains - {None}:
        read_configuration([chain], demo=False).check()


@pytest.mark.parametrize("name", ["kd_targets", "kd_teachers"])
def test_targets_of_the_grids_are_those_of_the_teachers(name, monkeypatch):
    monkeypatch.chdir(ROOT)
    wanted = {}
    for hparams_file, overrides, _ in read_grid(f"hparams/grids/{name}.yaml").values():
        wanted.setdefault(hparams_file, set()).update(overrides["targets"])
    for hparams_file, targets in wanted.items():
        values = read_configuration([hparams_file], demo=False).values()
        assert targets <= set(values["target_models"])


def test_grid_of_targets_has_every_cell():
    grid = read_grid(ROOT / "hparams/grids/kd_targets.yaml")
    cells = {
        (*sorted(overrides["targets"]), *sorted(set(overrides) - {"targets"}))
        for _, overrides, _ in grid.values()
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


def test_some_settings_of_a_grid_alone(tmp_path, monkeypatch):
    taken.clear()
    ecapa = ROOT / "hparams" / "ecapa_fbank.yaml"
    grid = tmp_path / "grid.yaml"
    names = ("utterance", "all, labels too", "all")
    grid.write_text("".join(f"{name}: {{hparams: {ecapa}}}\n" for name in names))
    main = runpy.run_path(str(GRID))["main"]
    monkeypatch.setattr("subprocess.run", fake_recipe)
    out = tmp_path / "out"
    arguments = [str(grid), f"--output_folder={out}", "--seeds", "1", "--only"]
    given = ["--", "--data_folder=x", "--dataset=folder"]
    main([*arguments, "all", "utterance", *given])
    assert taken == [("train.py", out / name / "1") for name in ("all", "utterance")]
    with open(out / "grid.csv", encoding="utf-8") as file:
        assert [row["system"] for row in csv.DictReader(file)] == ["all", "utterance"]
    with pytest.raises(InputError, match="no 'both'; it has 'utterance'; 'all, labels"):
        main([*arguments, "all", "both", *given])
    assert len(taken) == 2


def test_grid_without_hparams_is_an_error(tmp_path):
    (tmp_path / "grid.yaml").write_text("sum: {pool: sum}\n")
    with pytest.raises(InputError, match="sum has no hparams"):
        read_grid(tmp_path / "grid.yaml")
    with pytest.raises(InputError, match="no grid"):
        read_grid(tmp_path / "nowhere.yaml")
