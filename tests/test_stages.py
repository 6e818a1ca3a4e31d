"""Training in stages: LAP frozen, joint and with a large margin."""

import json
import logging
import re

import pytest
import speechbrain as sb
import torch
from conftest import ROOT, TINY, TRAIN, run, write_corpus
from processes import run_python

from speechbrain_ext.analysis.layer_attention import layer_usage
from speechbrain_ext.config import read_configuration, training_stages
from speechbrain_ext.dataio.datasets import (
    speaker_classes,
    speaker_encoder,
    training_dataset,
)
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder
from speechbrain_ext.lobes.encoders.stored_states import StoredStates
from speechbrain_ext.training.brains import layer_groups
from speechbrain_ext.utils.checkpoints import (
    best_checkpoint,
    best_checkpoints,
)
from speechbrain_ext.utils.errors import InputError

LAP = ROOT / "hparams" / "lap_wavlm.yaml"
TINY_LAP = {
    **TINY, "n_heads": 4, "pooled_channels": 16, "grad_accumulation_factor": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """All three stages on a tiny corpus."""
    folder = tmp_path_factory.mktemp("lap")
    write_corpus(folder / "corpus")
    options = {
        **TINY_LAP,
        "data_folder": folder / "corpus",
        "output_folder": folder / "out",
        "ssl_hub": save_small_wavlm(
            folder / "wavlm", n_layers=2, channels=32, n_bands=8
        ),
    }
    done = run(TRAIN, LAP, options, folder)
    assert done.returncode == 0, done.stderr
    return folder, options, done.stderr


def parameters(folder, name):
    path = best_checkpoint(folder / "save").path / f"{name}.ckpt"
    return torch.load(path, weights_only=True) if path.is_file() else None


def test_each_stage_leaves_its_results(trained):
    folder, _, _ = trained
    for stage in ("frozen", "joint", "large_margin"):
        metrics = folder / "out" / stage / "test" / "metrics.json"
        assert 0 <= json.loads(metrics.read_text())["EER"] <= 1


def test_speed_classes_go_with_the_first_stage(trained):
    folder, _, _ = trained
    names = {
        stage: json.loads((folder / "out" / stage / "save/speakers.json").read_text())
        for stage in ("frozen", "joint")
    }
    assert len(names["frozen"]) == 3 * len(names["joint"]) == 12
    first = parameters(folder / "out/frozen", "classifier")["weight"]
    second = parameters(folder / "out/joint", "classifier")["weight"]
    assert first.shape[2] == 12 and second.shape[2] == 4
    kept, others = (
        first[:, :, [names["frozen"].index(s + speed) for s in names["joint"]]]
        for speed in ("", " at 90 %")
    )
    assert (kept - second).abs().mean() < 0.1 * (others - second).abs().mean()


def test_encoder_is_trained_from_the_second_stage_on(trained):
    folder, _, _ = trained
    assert parameters(folder / "out/frozen", "encoder") is None
    encoders = [
        parameters(folder / "out" / stage, "encoder")
        for stage in ("joint", "large_margin")
    ]
    name = next(n for n in encoders[0] if "attention.q_proj.weight" in n)
    assert not torch.equal(encoders[0][name], encoders[1][name])


def test_a_finished_training_is_left_alone_and_one_stage_runs_alone(trained):
    folder, options, _ = trained
    metrics = folder / "out/joint/test/metrics.json"
    metrics.unlink()
    stamp = best_checkpoint(folder / "out/frozen/save").path
    done = run(TRAIN, LAP, {**options, "stage": "joint"}, folder)
    assert done.returncode == 0, done.stderr
    assert metrics.is_file()
    assert best_checkpoint(folder / "out/frozen/save").path == stamp
    assert "frozen/save" not in done.stderr


@pytest.mark.parametrize(
    "options, message",
    [
        ({"stage": "thawed"}, "thawed.*frozen, joint, large_margin"),
        (
            {"stages": "{frozen: {learning_rate: 1}}"},
            "stages: frozen: .* has no key learning_rate",
        ),
        ({"start_from": "nowhere"}, "no checkpoint with EER in 'nowhere/save'"),
    ],
)
def test_wrong_stages_are_one_line_errors(trained, tmp_path, options, message):
    folder, given, _ = trained
    options = {**given, "output_folder": tmp_path / "out", **options}
    done = run(TRAIN, LAP, options, folder)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert re.search(message, last)


def test_command_line_goes_before_the_stages(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "output_folder: out\nstart_from: null\nstage: null\nlr: 0.1\nn_steps: 1\n"
        "stages: {a: {lr: 0.2, n_steps: 2}, b: {lr: 0.3}}\n"
    )
    configuration = read_configuration([str(path), "--n_steps=9", "--output_folder=x"])
    first, second = (stage.values() for stage in training_stages(configuration))
    own = ("lr", "n_steps", "output_folder", "start_from")
    assert {key: first[key] for key in own} == {
        "lr": 0.2, "n_steps": 9, "output_folder": "x/a", "start_from": None
    }  # fmt: skip
    assert second["start_from"] == "x/a" and second["lr"] == 0.3
    assert second["n_steps"] == 9


def test_copies_at_other_speeds_are_other_speakers(corpus):
    wav = sorted(corpus.glob("*/*.wav"))[0]
    item = {"wav": str(wav), "speaker": "a", "duration": 1.2}
    names = speaker_classes({"u": item}, [100, 90])
    assert names == ["a", "a at 90 %"]

    class Labels:
        @staticmethod
        def encode_sequence_torch(sequence):
            return torch.tensor([names.index(name) for name in sequence])

    dataset = training_dataset({"u": item}, Labels, 16000, 1.0, [100, 90])
    drawn = {int(dataset[0, draw]["spk_id_encoded"]) for draw in range(20)}
    lengths = {len(dataset[0, draw]["sig"]) for draw in range(5)}
    assert drawn == {0, 1} and lengths == {16000}


def test_best_checkpoints_are_averaged(trained, tmp_path):
    folder, options, _ = trained
    given = {**options, "stage": "frozen", "average_checkpoints": 2}
    done = run(TRAIN, LAP, {**given, "output_folder": tmp_path}, folder)
    assert done.returncode == 0, done.stderr
    model = SpeakerRecognition.from_training(tmp_path / "frozen")
    checkpoints = best_checkpoints(tmp_path / "frozen/save", 2)
    assert len(checkpoints) == 2
    states = [
        torch.load(c.path / "embedding_model.ckpt", weights_only=True)
        for c in checkpoints
    ]
    for name, value in model.embedding_model.named_parameters():
        torch.testing.assert_close(value, (states[0][name] + states[1][name]) / 2)
    thresholds = [checkpoint.meta["threshold"] for checkpoint in checkpoints]
    assert model.threshold == pytest.approx(sum(thresholds) / 2)


def test_layer_attention_is_plotted(trained, tmp_path):
    folder, _, _ = trained
    script = ROOT / "recipes" / "VoxCeleb" / "plot_layer_attention.py"
    (tmp_path / "phones.csv").write_text("id,start,phone\n0.wav,0.1,s\n")
    done = run_python(
        [
            script,
            folder / "out/joint",
            folder / "corpus/spk1/0.wav",
            "--phones",
            tmp_path / "phones.csv",
            "--output_folder",
            tmp_path,
        ]
    )
    assert done.returncode == 0, done.stderr
    usage = json.loads((tmp_path / "layer_usage.json").read_text())
    assert len(usage["mean"]) == 3 and 0 < usage["mean"][0] < 1
    wins = json.loads((tmp_path / "layer_wins.json").read_text())
    shares, n_frames = wins["all"]
    assert sum(shares) == pytest.approx(1.0) and n_frames == 58
    # The phone begins at 0.1 s of 1.2 s
    assert set(wins) == {"all", "fricative"} and wins["fricative"][1] == 53
    for name in ("0.png", "0.pdf", "layer_usage.png", "layer_wins.png"):
        assert (tmp_path / name).stat().st_size > 3000


@pytest.mark.parametrize(
    "over_layers, over_frames, collapsed",
    [(0.0, 0.0, True), (0.2, 0.0, False), (0.0, 0.2, False)],
)
def test_collapsed_attention_is_named(over_layers, over_frames, collapsed, caplog):
    torch.manual_seed(0)
    weights = 0.5 + over_layers * torch.rand(1, 1, 13)
    weights = weights + over_frames * torch.rand(4, 50, 1)
    with caplog.at_level(logging.WARNING):
        assert layer_usage([weights, weights])["collapsed"] is collapsed
    assert ("collapsed" in caplog.text) is collapsed


def test_lower_layers_learn_slower(tmp_path):
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=3, channels=32, n_bands=8)
    encoder = SSLEncoder(folder, freeze=False)
    groups = layer_groups(encoder, 0.5)
    assert [group["lr_scale"] for group in groups] == [0.125, 0.25, 0.5, 1.0]
    counted = sum(len(group["params"]) for group in groups)
    assert counted == len(list(encoder.parameters()))
    highest = set(encoder.model.encoder.layers[2].parameters())
    assert set(groups[-1]["params"]) == highest


@pytest.mark.parametrize("wrap", [lambda module: module, torch.nn.DataParallel])
def test_decay_without_layers_is_refused(wrap):
    encoder = wrap(torch.nn.Sequential(torch.nn.Linear(4, 4)))
    with pytest.raises(InputError, match="layer_lr_decay: 0.5, but Sequential has"):
        layer_groups(encoder, 0.5)
    assert [len(group["params"]) for group in layer_groups(encoder, 1.0)] == [2]


def test_stored_hidden_states_have_no_rates_that_fall():
    """In the frozen stage of a training with a decay."""
    assert not any(group["params"] for group in layer_groups(StoredStates(), 0.5))


def test_speaker_encoder_is_speechbrains_without_its_search():
    """A free index is not looked for from 0 on, name by name."""
    names = [f"id{i}" for i in range(50)]
    expected = sb.dataio.encoder.CategoricalEncoder()
    expected.update_from_iterable(names)
    with pytest.MonkeyPatch.context() as patch:
        patch.delattr(sb.dataio.encoder.CategoricalEncoder, "_next_index")
        own = speaker_encoder(names)
    assert (own.lab2ind, own.ind2lab) == (expected.lab2ind, expected.ind2lab)
    assert own.encode_sequence_torch(["id7"]).tolist() == [7] and len(own) == 50
