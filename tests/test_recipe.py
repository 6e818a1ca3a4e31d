"""The recipe's scripts, run as users run them, on tiny corpora and models."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import (
    ECAPA,
    LTDNN,
    ROOT,
    TINY,
    TINY_ECAPA,
    TINY_LTDNN,
    TRAIN,
    command,
    patched_train,
    run,
    write_voice,
)
from processes import run_python

from speechbrain_ext.config import read_configuration
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.metrics.detection import EER, EER_star
from speechbrain_ext.processing.calibration import Calibration
from speechbrain_ext.utils.checkpoints import best_checkpoint
from speechbrain_ext.utils.errors import InputError

VERIFY = ROOT / "recipes" / "VoxCeleb" / "speaker_verification_cosine.py"
VERIFICATION = ROOT / "hparams" / "verification_cosine.yaml"


def read_scores(path):
    scores = {"1": [], "0": []}
    for line in path.read_text().splitlines():
        _, _, label, score = line.split()
        scores[label].append(float(score))
    return torch.tensor(scores["1"]), torch.tensor(scores["0"])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    root = tmp_path_factory.mktemp("corpus")
    for speaker in range(12):
        for utterance in range(4):
            # Some shorter than the crop
            write_voice(
                root / f"spk{speaker}/{utterance}.wav",
                speaker,
                utterance,
                duration=0.7 + 0.4 * utterance,
            )
    return root


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """L-TDNN trained on a small WavLM, and what the script printed."""
    folder = tmp_path_factory.mktemp("trained")
    options = {
        **TINY_LTDNN,
        "data_folder": corpus,
        "ssl_hub": save_small_wavlm(folder / "wavlm", n_layers=2, channels=32),
        "output_folder": folder / "ltdnn",
        "augment": True,
        "precision": "bf16",
    }
    result = run(TRAIN, LTDNN, options, folder)
    assert result.returncode == 0, result.stderr[-3000:]
    return folder / "ltdnn", options


def test_training_writes_results(trained):
    output, _ = trained
    metrics = json.loads((output / "test" / "metrics.json").read_text())
    target, nontarget = read_scores(output / "test" / "scores.txt")
    assert metrics["n_target"] == len(target) == 18
    assert metrics["n_nontarget"] == len(nontarget) == 18
    assert metrics["EER"] == pytest.approx(EER(target, nontarget)[0])
    checkpoint = best_checkpoint(output / "save")
    assert metrics["EER_star_threshold"] == checkpoint.meta["threshold"]
    assert metrics["EER_star"] == pytest.approx(
        EER_star(target, nontarget, checkpoint.meta["threshold"])
    )
    assert metrics["parameters"]["embedding_model"] > 0
    for plot in ("det", "scores", "layer_attention"):
        for suffix in ("png", "pdf"):
            assert (output / "test" / f"{plot}.{suffix}").stat().st_size > 1000
    log = (output / "train_log.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step: 3", "step: 6"]
    assert list((output / "tensorboard").iterdir())


def test_frozen_encoder_is_not_saved(trained):
    output, _ = trained
    files = {p.name for p in best_checkpoint(output / "save").path.iterdir()}
    assert "encoder.ckpt" not in files
    assert {"embedding_model.ckpt", "classifier.ckpt"} <= files


def test_verification_gives_the_scores_of_the_training(trained, tmp_path):
    output, _ = trained
    options = {"trained_model": output, "output_folder": tmp_path / "v"}
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    expected = read_scores(output / "test" / "scores.txt")
    for ours, theirs in zip(read_scores(tmp_path / "v/scores.txt"), expected):
        torch.testing.assert_close(ours, theirs, atol=2e-5, rtol=0)


def test_adaptive_score_normalisation(trained, tmp_path):
    output, _ = trained
    options = {
        "trained_model": output,
        "output_folder": tmp_path / "v",
        "subtract_mean": True,
        "score_norm": "s-norm",
        "cohort_size": 4,
        "speaker_genders": tmp_path / "genders.csv",
    }
    rows = [f"spk{i},{'fm'[i % 2]}" for i in range(12)]
    (tmp_path / "genders.csv").write_text("\n".join(["speaker,gender", *rows]))
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["cohort_size"] == 4 and metrics["subtract_mean"]
    # The validation threshold is of plain cosine scores.
    assert "EER_star" not in metrics
    low, high = metrics["EER_95"]
    assert 0 <= low <= high <= 1
    conditions = metrics["conditions"]
    cross, same = conditions["cross gender"], conditions["same gender"]
    assert cross["n_nontarget"] + same["n_nontarget"] == 18
    assert conditions["shorter side below 2 s"]["n_target"] == 18
    scores = torch.cat(read_scores(tmp_path / "v" / "scores.txt"))
    assert scores.abs().max() > 1
    options["cohort_size"] = 400
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 1
    assert "cohort_size=400, but the cohort has 6 members" in result.stderr


def test_quality_aware_calibration(trained, tmp_path):
    output, _ = trained
    options = {
        "trained_model": output,
        "output_folder": tmp_path / "v",
        "score_norm": "s-norm",
        "calibration": "quality",
        "n_calibration_trials": 200,
    }
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    for state in ("uncalibrated", "calibrated"):
        assert metrics[state]["minCllr"] <= metrics[state]["Cllr"] + 1e-9
    calibration = Calibration.load(tmp_path / "v" / "calibration.json")
    assert len(calibration.names) == 13
    assert (tmp_path / "v" / "calibration.pdf").is_file()
    options["calibration"] = "guess"
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert "error: calibration: guess" in result.stderr
    assert "must be one of linear, quality" in result.stderr


@pytest.mark.parametrize("adapt", [False, True])
def test_plda(trained, tmp_path, adapt):
    output, _ = trained
    options = {
        "trained_model": output,
        "output_folder": tmp_path / "v",
        "lda_dim": 5,
        "adapt": adapt,
    }
    script = VERIFY.with_name("speaker_verification_plda.py")
    hparams = VERIFICATION.with_name("verification_plda.yaml")
    result = run(script, hparams, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["backend"] == "PLDA" and metrics["lda_dim"] == 5
    assert metrics["adapt"] is adapt and "EER_star" not in metrics
    options["lda_dim"] = 6
    result = run(script, hparams, options, tmp_path)
    assert "lda_dim=6: 6 speakers" in result.stderr


def test_verification_on_other_trials(trained, corpus, tmp_path):
    output, _ = trained
    test_csv = (output / "save" / "test.csv").read_text().splitlines()[1:]
    ids = [line.split(",")[0] for line in test_csv]
    first = ids[0].split("/")[0]
    same = [name for name in ids if name.startswith(f"{first}/")]
    other = [name for name in ids if not name.startswith(f"{first}/")]
    trial_list = tmp_path / "trials.txt"
    trial_list.write_text(f"1 {same[0]} {same[1]}\n0 {same[0]} {other[0]}\n")
    options = {
        "trained_model": output,
        "output_folder": tmp_path / "v",
        "trials_from": "folder",
        "test_folder": corpus,
        "verification_file": trial_list,
        "threshold": 0.5,
    }
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "v" / "metrics.json").read_text())
    assert metrics["EER_star_threshold"] == 0.5
    assert metrics["n_target"] == metrics["n_nontarget"] == 1
    # Trials of all speakers have those of the training among them.
    del options["verification_file"]
    result = run(VERIFY, VERIFICATION, options, tmp_path)
    assert result.returncode == 1
    assert "speakers of the trials were trained on" in result.stderr


def test_trained_model_as_a_class(trained, corpus):
    output, _ = trained
    model = SpeakerRecognition.from_training(output)
    first, second = corpus / "spk0/3.wav", corpus / "spk0/0.wav"
    score, decision = model.verify_files(first, second)
    assert decision == (score > model.threshold)
    wavs = [model.load_audio(path) for path in (first, second)]
    padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    lengths = torch.tensor([1.0, len(wavs[1]) / len(wavs[0])])
    together = model.encode_batch(padded, lengths)
    assert together.shape == (2, 1, 192)
    alone = model.encode_batch(wavs[1].unsqueeze(0))
    torch.testing.assert_close(together[1:], alone, atol=1e-4, rtol=1e-4)


def test_other_architecture_is_refused(trained, tmp_path):
    output, options = trained
    result = run(TRAIN, LTDNN, {**options, "conv_channels": 24}, tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the checkpoint in")
    assert "is of another architecture" in last
    # The folder's YAML is still the one that was trained.
    SpeakerRecognition.from_training(output)
    result = run(TRAIN, LTDNN, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "Resumed after 6 optimiser steps" in result.stdout + result.stderr
    result = run(TRAIN, LTDNN, {**options, "number_of_steps": 9}, tmp_path)
    assert result.returncode == 1
    assert "one-cycle schedule of 6 steps" in result.stderr


def test_joint_training_changes_and_saves_the_encoder(trained, tmp_path):
    _, options = trained
    options = {
        **options,
        "freeze": False,
        "augment": False,
        "precision": "fp32",
        "grad_accumulation_factor": 2,
        "output_folder": tmp_path / "joint",
    }
    result = run(TRAIN, LTDNN, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    checkpoint = best_checkpoint(tmp_path / "joint/save")
    assert checkpoint.meta["step"] in (3, 6)  # optimiser steps, not batches
    saved = torch.load(checkpoint.path / "encoder.ckpt")
    model = SpeakerRecognition.from_training(tmp_path / "joint")
    name = "model.encoder.layers.0.attention.q_proj.weight"
    torch.testing.assert_close(model.encoder.state_dict()[name], saved[name])
    from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder

    before = SSLEncoder(options["ssl_hub"]).state_dict()
    assert not torch.equal(before[name], saved[name])
    front = "model.feature_extractor.conv_layers.1.conv.weight"
    assert torch.equal(before[front], saved[front])


def test_resumes_after_a_kill(corpus, tmp_path):
    options = {
        **TINY_ECAPA,
        "data_folder": corpus,
        "output_folder": tmp_path / "out",
        "number_of_steps": 60,
        "steps_per_epoch": 30,
        "ckpt_interval_steps": 5,
    }
    save = tmp_path / "out" / "save"
    process = subprocess.Popen(
        [sys.executable, *command(TRAIN, ECAPA, options)],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    while not list(save.glob("CKPT*/CKPT.yaml")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    # What a kill in the middle of a save leaves behind is no checkpoint.
    half = save / "CKPT+2999-01-01+00-00-00+00"
    half.mkdir()
    (half / ".CKPT.yaml").write_text("end-of-epoch: true\nunixtime: 9e9\n")
    result = run(TRAIN, ECAPA, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    printed = result.stdout + result.stderr
    resumed = int(printed.split("Resumed after ")[1].split()[0])
    assert 5 <= resumed < 60 and resumed % 5 == 0
    log = (tmp_path / "out" / "train_log.txt").read_text().splitlines()
    steps = [line.split(",")[0] for line in log]
    assert steps[-1] == "step: 60" and len(steps) == len(set(steps)) == 2


def test_nan_loss_keeps_the_last_good_checkpoint(corpus, tmp_path):
    options = {
        **TINY_ECAPA,
        "data_folder": corpus,
        "output_folder": tmp_path / "out",
        "number_of_steps": 60,
        "steps_per_epoch": 20,
    }
    script = patched_train(
        tmp_path,
        "from speechbrain_ext.training.brains import SpeakerBrain\n"
        "original = SpeakerBrain.compute_objectives\n"
        "def diverge(self, predictions, batch, stage):\n"
        "    loss = original(self, predictions, batch, stage)\n"
        "    return loss * float('nan') if self.optimizer_step > 30 else loss\n"
        "SpeakerBrain.compute_objectives = diverge\n",
    )
    result = run(script, ECAPA, options, tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: the loss is nan after 31 optimiser steps")
    checkpoint = best_checkpoint(tmp_path / "out" / "save")
    assert checkpoint.meta["step"] == 20
    state = torch.load(checkpoint.path / "embedding_model.ckpt")
    assert all(torch.isfinite(value).all() for value in state.values())


def test_two_processes(corpus, tmp_path):
    options = {
        **TINY_ECAPA,
        "data_folder": corpus,
        "output_folder": tmp_path / "out",
    }
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    result = run_python([*launcher, *command(TRAIN, ECAPA, options)], tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    log = (tmp_path / "out" / "train_log.txt").read_text().splitlines()
    assert [line.split(",")[0] for line in log] == ["step: 3", "step: 6"]
    assert (tmp_path / "out" / "test" / "metrics.json").is_file()


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"no_such_key": 1}, "has no key no_such_key"),
        ({"data_folder": "/no/such"}, "no folder '/no/such'"),
        ({"preset": "none.yaml"}, "no YAML file 'none.yaml'"),
        ({"data_folder": "null"}, "dataset folder needs data_folder"),
    ],
)
def test_bad_input_ends_with_one_line(corpus, tmp_path, changes, message):
    options = {
        **TINY_ECAPA,
        "data_folder": corpus,
        "output_folder": tmp_path / "out",
        **changes,
    }
    result = run(TRAIN, ECAPA, options, tmp_path)
    assert result.returncode == 1
    last = result.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ") and message in last
    assert "Traceback" not in result.stderr


def test_verification_without_a_training(tmp_path):
    result = run(VERIFY, VERIFICATION, {"trained_model": "nowhere"}, tmp_path)
    assert result.returncode == 1
    assert "error: no checkpoint with EER in 'nowhere" in result.stderr


def test_yaml_takes_in_several_files_in_any_order(tmp_path):
    (tmp_path / "base.yaml").write_text("model: !ref <net>\nwidth: 1\nlr: 1\n")
    (tmp_path / "net.yaml").write_text(
        "net: {width: !ref <channels>}\nchannels: !ref <size>\nsize: 3\nlr: 2\n"
    )
    path = tmp_path / "train.yaml"
    path.write_text("extends: [base.yaml, net.yaml]\nwidth: 5\n")
    hparams = read_configuration([str(path), "--lr=4"]).build()
    assert hparams["model"] == {"width": 3}
    assert (hparams["width"], hparams["lr"]) == (5, 4)


def test_keys_that_refer_to_each_other_are_an_error(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text("a: !ref <b>\nb: !ref <a>\n")
    with pytest.raises(InputError, match="a -> b -> a"):
        read_configuration([str(path)]).values()


@pytest.mark.parametrize(
    "name", ["superb_ecapa", "superb_xvector", "xvector_fbank", "mhfa_wavlm"]
)
def test_baselines_train(corpus, tmp_path, name):
    options = {
        **TINY, "data_folder": corpus, "output_folder": tmp_path / "out",
        "ecapa_channels": 16, "xvector_channels": 16,
        "ssl_hub": save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32),
    }  # fmt: skip
    hparams = ROOT / "hparams" / f"{name}.yaml"
    known = read_configuration([str(hparams), "--data_folder=x"]).entries
    options = {key: value for key, value in options.items() if key in known}
    result = run(TRAIN, hparams, options, tmp_path)
    assert result.returncode == 0, result.stderr[-3000:]
    metrics = json.loads((tmp_path / "out/test/metrics.json").read_text())
    assert 0 <= metrics["EER"] <= 1 and metrics["n_target"] > 0
    heatmap = tmp_path / "out/test/layer_attention.png"
    assert heatmap.is_file() == name.startswith(("superb", "mhfa"))


def test_scoring_chain_has_a_row_for_each_step(trained, tmp_path):
    folder, _ = trained
    script = ROOT / "recipes" / "VoxCeleb" / "scoring_chain.py"
    options = {
        "trained_model": folder,
        "output_folder": tmp_path / "chain",
        "n_calibration_trials": 40,
        "cohort_size": 3,
        "num_workers": 0,
    }
    result = run(
        script, ROOT / "hparams" / "verification_chain.yaml", options, tmp_path
    )
    assert result.returncode == 0, result.stderr[-3000:]
    lines = (tmp_path / "chain/chain.csv").read_text().splitlines()
    steps = ["cosine", "mean subtraction", "AS-norm", "quality-aware calibration"]
    assert [line.split(",")[1] for line in lines[1:]] == steps
    plain = json.loads((tmp_path / "chain/trials/cosine/metrics.json").read_text())
    test = json.loads((Path(folder) / "test/metrics.json").read_text())
    assert plain["EER"] == pytest.approx(test["EER"])
    last = tmp_path / "chain/trials/quality-aware_calibration/metrics.json"
    assert json.loads(last.read_text())["score_norm"] == "s-norm"
