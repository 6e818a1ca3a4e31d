"""What cannot be trained is refused before any data or encoder is touched."""

import runpy

import pytest
import torch
from conftest import LTDNN, ROOT, TRAIN

from speechbrain_ext.config import Configuration, read_configuration, training_stages
from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.nnet.losses import SubCenterClassifier
from speechbrain_ext.training.checks import check_built, check_trainings
from speechbrain_ext.utils.checkpoints import AtomicCheckpointer
from speechbrain_ext.utils.errors import InputError

LAP = ROOT / "hparams" / "lap_wavlm.yaml"
PRETRAIN = ROOT / "recipes" / "Pretrain" / "train.py"
TRAIN_KD = ROOT / "recipes" / "VoxCeleb" / "train_kd.py"
FEW_STEPS = "number_of_steps: 10 leaves a phase of OneCycleLR no steps"
PHASES = "stages={frozen: {}, joint: {}, large_margin: {number_of_steps: 10}}"


@pytest.fixture
def nothing_starts(monkeypatch):
    """Whole YAMLs, with their encoders, are not built."""
    build = Configuration.build

    def build_parts(self, keys=None):
        assert keys is not None and "encoder" not in keys
        return build(self, keys)

    monkeypatch.setattr(Configuration, "build", build_parts)


@pytest.mark.parametrize(
    "script, hparams, option, message",
    [
        (TRAIN, LTDNN, "number_of_steps=10", FEW_STEPS),
        (TRAIN, LTDNN, "device=cuda:99", "device: PyTorch has no cuda:99 here"),
        (TRAIN, LTDNN, "shards_folder=nowhere", "there are no shards in 'nowhere'"),
        (TRAIN, LTDNN, "start_from=nowhere", "no checkpoint with EER in 'nowhere/"),
        (TRAIN, LTDNN, "dataset=voxceleb3", "voxceleb3"),
        (
            TRAIN,
            LTDNN,
            "epoch_counter=!new:speechbrain.utils.epoch_loop.EpochCounter {limit: 2}",
            "number_of_steps: 10000 are more than the 2 epochs",
        ),
        (
            TRAIN,
            LTDNN,
            "opt_class=!name:torch.optim.Adam {weight_decay: -1}",
            "opt_class .Adam. cannot be built: Invalid weight_decay value: -1",
        ),
        (
            TRAIN,
            LTDNN,
            "lr_scheduler=!name:torch.optim.lr_scheduler.StepLR {step: 3}",
            "lr_scheduler .StepLR. cannot be built: .*unexpected keyword",
        ),
        (TRAIN, ROOT / "hparams/ecapa_mfcc.yaml", "number_of_steps=5", "of CyclicLR"),
        (TRAIN, LAP, PHASES, FEW_STEPS),
        (
            PRETRAIN,
            ROOT / "hparams/pretrain_wavlm.yaml",
            "number_of_steps=10",
            FEW_STEPS,
        ),
        (
            TRAIN_KD,
            ROOT / "hparams/kd_ltdnn_tdnn.yaml",
            "teacher_training={number_of_steps: 10}",
            FEW_STEPS,
        ),
    ],
)
def test_values_are_tried_first(
    script, hparams, option, message, nothing_starts, tmp_path, monkeypatch
):
    monkeypatch.syspath_prepend(script.parent)  # as of a command line
    arguments = [
        str(hparams), f"--{option}", f"--data_folder={tmp_path}",
        f"--output_folder={tmp_path / 'out'}",
    ]  # fmt: skip
    if "dataset" not in option:
        arguments.append("--dataset=folder")
    with pytest.raises(InputError, match=message):
        runpy.run_path(str(script))["main"](arguments)
    assert not (tmp_path / "out").exists()


def test_a_stage_may_start_from_the_one_before(tmp_path):
    path = tmp_path / "train.yaml"
    path.write_text(
        "output_folder: out\nstart_from: null\nstage: null\n"
        "stages: {frozen: {}, joint: {}}\n"
    )
    stages = training_stages(read_configuration([str(path)]))
    check_trainings(stages)
    with pytest.raises(InputError, match="no checkpoint with EER in .*/frozen/save"):
        check_trainings(stages[1:])
    check_trainings(stages[1:], to_come=[stages[0].values()["output_folder"]])


def built(tmp_path, **others):
    encoder = load_encoder("speechbrain_ext/wavlm-small")
    return {
        "modules": {"encoder": encoder},
        "checkpointer": AtomicCheckpointer(tmp_path / "save"),
        "number_of_steps": 20,
        "classifier": lambda out_neurons: SubCenterClassifier(8, out_neurons),
        "layer_lr_decay": 1.0,
        **others,
    }


def test_what_needs_the_modules_is_tried_before_the_data(tmp_path):
    hparams = built(tmp_path)
    before = torch.get_rng_state()
    check_built(hparams)
    assert torch.equal(torch.get_rng_state(), before)  # and the weights to come
    with pytest.raises(InputError, match="classifier .* cannot be built: .*out_n"):
        check_built(built(tmp_path, classifier=torch.nn.Linear))
    own = {"hidden_state_cache": "states", "training_dataset": dict}
    with pytest.raises(InputError, match="no effect on a training_dataset of your own"):
        check_built(built(tmp_path, **own))
    with pytest.raises(InputError, match="layer_lr_decay: 0.5, but Linear has"):
        linear = torch.nn.Linear(1, 1)
        check_built(built(tmp_path, modules={"encoder": linear}, layer_lr_decay=0.5))
    with pytest.raises(InputError, match="Linear gives no hidden states"):
        check_built(built(tmp_path, modules={"encoder": linear}, **own))


def test_the_schedule_of_a_checkpoint_is_compared_before_the_data(tmp_path):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=30)
    AtomicCheckpointer(tmp_path / "save", {"optimizer_lr": schedule}).save_checkpoint()
    check_built(built(tmp_path, number_of_steps=30))
    with pytest.raises(InputError, match="number_of_steps: 20, .* of 30 steps"):
        check_built(built(tmp_path))
