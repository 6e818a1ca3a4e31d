"""The scripts of the small-scale comparison."""

import csv
import runpy

import pytest
import soundfile
from conftest import ROOT, TINY_ECAPA, write_voice

from speechbrain_ext.dataio.trials import read_trials
from speechbrain_ext.utils.files import write_json

RECIPE = ROOT / "recipes" / "SmallScale"


def main_of(script):
    return runpy.run_path(str(RECIPE / script))["main"]


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory):
    """Ten speakers with three recordings each, and five with one."""
    root = tmp_path_factory.mktemp("corpora")
    for speaker in range(10):
        for utterance in range(3):
            write_voice(root / f"first/a{speaker}/{utterance}.wav", speaker, utterance)
    for speaker in range(5):
        write_voice(root / f"second/b{speaker}/0.wav", speaker, 0)
    duration = soundfile.info(root / "second/b0/0.wav").duration
    main_of("prepare.py")(
        [
            str(root / "first"), str(root / "second"),
            f"--output_folder={root / 'out'}", "--utterances=2", "--held_out=2",
            f"--crop_duration={duration / 2.5}", "--n_crops=3",
        ]
    )  # fmt: skip
    return root


def test_trials_are_all_pairs_of_held_out_speakers(laid_out):
    within = read_trials(laid_out / "out/within.txt")
    valid = read_trials(laid_out / "out/valid.txt")
    # Two speakers with two utterances each
    assert sorted(within.labels) == [0, 0, 0, 0, 1, 1] == sorted(valid.labels)
    speakers = {name.split("/")[0] for name in within.utterances()}
    assert not speakers & {name.split("/")[0] for name in valid.utterances()}
    for label, enrol, test in zip(within.labels, within.enrol, within.test):
        assert label == (enrol.split("/")[0] == test.split("/")[0])


def test_crops_follow_each_other(laid_out):
    across = read_trials(laid_out / "out/across.txt")
    assert len(across.utterances()) == 10 and sum(across.labels) == 5
    whole, _ = soundfile.read(laid_out / "second/b3/0.wav")
    start = 0
    for number in (0, 1):
        crop, _ = soundfile.read(laid_out / f"out/across/second-b3/0-{number}.wav")
        assert abs(crop - whole[start : start + len(crop)]).max() < 1e-3
        start += len(crop)


def test_held_out_speakers_are_in_no_training(laid_out):
    held_out = read_trials(laid_out / "out/across_held_out.txt").utterances()
    speakers = {name.split("/")[0] for name in held_out}
    more = {path.name for path in (laid_out / "out/more").iterdir()}
    assert len(speakers) == 2 and len(more) == 3 and not speakers & more


def test_cost_of_a_step(laid_out, tmp_path):
    grid = tmp_path / "grid.yaml"
    ecapa = ROOT / "hparams" / "ecapa_fbank.yaml"
    grid.write_text(
        f"narrow: {{hparams: {ecapa}, emb_dim: 8, number_of_steps: 50}}\n"
        f"wide: {{hparams: {ecapa}}}\n"
    )
    options = {**TINY_ECAPA, "data_folder": laid_out / "first"}
    given = [f"--{key}={value}" for key, value in options.items()]
    out = f"--output_folder={tmp_path / 'out'}"
    measured = ["--only", "narrow", "--steps=3", "--seconds=60"]
    main_of("step_cost.py")([str(grid), out, *measured, "--", *given])
    with open(tmp_path / "out/cost.csv", encoding="utf-8") as file:
        (row,) = csv.DictReader(file)
    seconds = float(row["processor seconds a step"])
    assert row["system"] == "narrow" and 0 < seconds < 60
    assert int(row["steps in 60 s"]) == pytest.approx(60 / seconds, rel=0.3)


def test_points_of_the_learning_curves(tmp_path, monkeypatch):
    for steps, eers in ((60, (0.2, 0.3)), (240, (0.1,))):
        for seed, eer in enumerate(eers, start=1):
            run = tmp_path / f"runs/L-TDNN, {steps} steps/{seed}"
            metrics = {"system": "ltdnn", "seed": seed, "number_of_steps": steps}
            write_json(run / "test/metrics.json", {**metrics, "EER": eer})
            across = run / "scoring_chain/across/cosine/metrics.json"
            write_json(across, {"EER": 2 * eer})
    cost = tmp_path / "cost.csv"
    cost.write_text("system,processor seconds a step\nL-TDNN,0.5\n")
    main, drawn = main_of("plot_learning_curves.py"), {}
    monkeypatch.setitem(
        main.__globals__, "plot_learning_curves", lambda curves, _: drawn.update(curves)
    )
    main(
        [
            str(tmp_path / "runs"), f"--cost={cost}", "--systems", "L-TDNN",
            f"--output_folder={tmp_path}",
        ]
    )  # fmt: skip
    within = {minutes: eers for minutes, eers in drawn["within"]["L-TDNN"]}
    assert within == {0.5: [0.2, 0.3], 2.0: [0.1]}
    assert sorted(drawn["across"]["L-TDNN"]) == [(0.5, [0.4, 0.6]), (2.0, [0.2])]
