"""What a user sets reaches the Brain, or something else, or is refused."""

import importlib.util
import re
from pathlib import Path

import pytest
import speechbrain as sb
import torch
from conftest import ECAPA, ROOT, TINY_ECAPA, TRAIN, command
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ext.config import (
    REFUSED_RUN_OPTIONS,
    RUN_OPTIONS_WITHOUT_BRAIN,
    read_configuration,
    training_stages,
)
from speechbrain_ext.config.entries import references_of
from speechbrain_ext.schema import BY_REFERENCE
from speechbrain_ext.training.brains import StepBrain
from speechbrain_ext.utils.errors import InputError

SMALL = "speechbrain_ext/wavlm-small"
# Other than SpeechBrain's defaults, and than those of the YAMLs
GIVEN = {
    "debug_batches": 7,
    "debug_epochs": 3,
    "debug_persistently": True,
    "device": "cpu",
    "find_unused_parameters": True,
    "jit_module_keys": ["embedding_model"],
    "compile_module_keys": ["classifier"],
    "compile_mode": "reduce-overhead",
    "compile_using_fullgraph": True,
    "compile_using_dynamic_shape_tracing": True,
    "precision": "bf16",
    "eval_precision": "bf16",
    "max_grad_norm": 123.0,
    "skip_nonfinite_grads": True,
    "noprogressbar": True,
    "ckpt_interval_minutes": 0.0,
    "ckpt_interval_steps": 11,
    "grad_accumulation_factor": 3,
    "tqdm_colored_bar": True,
    "remove_vector_weight_decay": True,
    "profile_warmup": 2,
    "profile_steps": 4,
    "test_only": True,
    "distributed_backend": "gloo",
}
# They change what others of these are, need a GPU, or are of no Brain
OTHERS = {
    "debug", "jit", "compile", "auto_mix_prec", "bfloat16_mix_prec",
    "data_parallel_backend", "data_parallel_count", "distributed_launch",
    "tqdm_barcolor", "profile_training", "log_config", "param_file", "overridden_args",
}  # fmt: skip


def load(script):
    spec = importlib.util.spec_from_file_location(f"recipe_{script.stem}", script)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def brain_of(monkeypatch):
    """The Brain that train.py builds of a command line, and does not train."""

    def build(hparams, options, *flags):
        brains = []
        monkeypatch.setattr(
            StepBrain, "fit", lambda self, *args, **kwargs: brains.append(self)
        )
        recipe = load(TRAIN)
        monkeypatch.setattr(recipe, "verify_training", lambda *args: None)
        recipe.main([*command(TRAIN, hparams, options)[1:], *flags])
        return brains[0]

    return build


def test_options_of_this_speechbrain_are_known_here():
    fields = set(vars(RunOptions()))
    assert fields == set(GIVEN) | OTHERS | set(REFUSED_RUN_OPTIONS)


def test_options_reach_the_brain(brain_of, corpus, tmp_path):
    given = {key: value for key, value in GIVEN.items() if value is not True}
    lists = {key: given.pop(key) for key in list(given) if isinstance(given[key], list)}
    flags = [f"--{key}" for key, value in GIVEN.items() if value is True]
    flags += [part for key in lists for part in (f"--{key}", *lists[key])]
    own = {"data_folder": corpus, "output_folder": tmp_path / "out"}
    brain = brain_of(ECAPA, {**TINY_ECAPA, **own, **given}, *flags)
    for key, value in GIVEN.items():
        assert getattr(brain, key) == value, key


@pytest.mark.parametrize(
    "system, options, expected",
    [
        ("lap_wavlm", {"stage": "frozen", "ssl_hub": SMALL, "n_heads": 4}, 9999),
        ("ecapa_fbank", {}, 5.0),
        ("ecapa_fbank", {"max_grad_norm": 0.25}, 0.25),
        ("lap_wavlm", {"stage": "frozen", "ssl_hub": SMALL, "max_grad_norm": 2.0}, 2.0),
    ],
)
def test_gradients_are_clipped_where_the_yaml_says(
    brain_of, corpus, tmp_path, system, options, expected
):
    path = ROOT / "hparams" / f"{system}.yaml"
    known = read_configuration([str(path)], demo=False).entries
    own = {"data_folder": corpus, "output_folder": tmp_path / "out", **options}
    tiny = {key: value for key, value in TINY_ECAPA.items() if key in known}
    brain = brain_of(path, {**tiny, **own})
    assert brain.max_grad_norm == expected
    brain.modules["classifier"].weight.grad = torch.full_like(
        brain.modules["classifier"].weight, 100.0
    )
    brain.init_optimizers()
    brain.zero_grad = lambda **kwargs: None
    seen = []
    brain.optimizers_dict["optimizer"].register_step_pre_hook(
        lambda optimizer, *_: seen.append(
            torch.nn.utils.get_total_norm(
                [
                    p.grad
                    for group in optimizer.param_groups
                    for p in group["params"]
                    if p.grad is not None
                ]
            ).item()
        )
    )
    brain.optimizers_step()
    assert seen[0] == pytest.approx(min(expected, seen[0]), rel=1e-3)
    assert (seen[0] > 50) == (expected > 1000)


def test_every_stage_of_lap_is_without_clipping():
    path = ROOT / "hparams" / "lap_wavlm.yaml"
    stages = list(training_stages(read_configuration([str(path)], demo=False)))
    assert len(stages) == 3
    assert all(stage.values()["max_grad_norm"] == 9999 for stage in stages)


def test_vectors_do_not_decay_on_request(brain_of, corpus, tmp_path):
    own = {"data_folder": corpus, "output_folder": tmp_path / "out"}
    path = ROOT / "hparams" / "ecapa_mfcc.yaml"
    options = {**TINY_ECAPA, **own, "number_of_steps": 16}
    brain = brain_of(path, options, "--remove_vector_weight_decay")
    brain.init_optimizers()
    groups = brain.optimizers_dict["optimizer"].param_groups
    decays = {(g["weight_decay"], p.dim() == 1) for g in groups for p in g["params"]}
    assert decays == {(2e-5, False), (2e-4, False), (0.0, True)}
    n_parameters = sum(len(group["params"]) for group in groups)
    assert n_parameters == len(
        [p for p in brain.modules.parameters() if p.requires_grad]
    )


def test_log_config_is_followed(brain_of, corpus, tmp_path):
    text = Path(sb.core.DEFAULT_LOG_CONFIG).read_text("utf-8")
    text = text.replace("%(asctime)s", "of my own %(asctime)s")
    (tmp_path / "log.yaml").write_text(text, "utf-8")
    own = {"data_folder": corpus, "output_folder": tmp_path / "out"}
    brain_of(ECAPA, {**TINY_ECAPA, **own, "log_config": tmp_path / "log.yaml"})
    assert "of my own" in (tmp_path / "out" / "log.txt").read_text("utf-8")


@pytest.mark.parametrize("name", sorted(REFUSED_RUN_OPTIONS))
def test_some_options_are_refused(name):
    with pytest.raises(InputError, match=f"--{name} is not taken: "):
        read_configuration([str(ECAPA), f"--{name}=3"])


@pytest.mark.parametrize(
    "script, hparams",
    [
        ("speaker_verification_cosine", "verification_cosine"),
        ("speaker_verification_plda", "verification_plda"),
        ("scoring_chain", "verification_chain"),
        ("train_ivector", "ivector"),
    ],
)
@pytest.mark.parametrize("option", ["max_grad_norm=1", "eval_precision=bf16", "jit"])
def test_what_trains_no_brain_refuses_its_options(script, hparams, option):
    source = (ROOT / "recipes" / "VoxCeleb" / f"{script}.py").read_text("utf-8")
    assert "run_options=RUN_OPTIONS_WITHOUT_BRAIN" in source
    path = str(ROOT / "hparams" / f"{hparams}.yaml")
    with pytest.raises(InputError, match=f"has no key {option.split('=')[0]}"):
        read_configuration([path, f"--{option}"], run_options=RUN_OPTIONS_WITHOUT_BRAIN)


def test_each_key_of_a_yaml_reaches_something():
    """It is referred to, read by name in the code, or an option of the Brain."""
    source = "\n".join(
        path.read_text("utf-8")
        for folder in ("speechbrain_ext", "recipes")
        for path in sorted((ROOT / folder).rglob("*.py"))
        if path.name != "schema.py"
    )
    read = set(re.findall(r"""["'](\w+)["']""", source))
    read |= set(re.findall(r"hparams\.(\w+)", source)) | set(vars(RunOptions()))
    lost = set()
    for path in sorted((ROOT / "hparams").glob("*.yaml")):
        entries = read_configuration([str(path)], demo=False).entries
        referred = {key for entry in entries.values() for key in references_of(entry)}
        lost |= set(entries) - referred - read - {"__set_seed"}
    assert lost == BY_REFERENCE


@pytest.mark.parametrize(
    "system, option",
    [
        ("lap_wavlm", "encoder_lr=0.001"),
        ("mha_vgg", "warmup=0.2"),
        ("ssl_cls_wavlm", "warmup=0.2"),
        ("mean_vgg", "n_heads=4"),
        ("superb_ecapa_stages", "pooled_channels=256"),
    ],
)
def test_a_key_that_nothing_refers_to_is_refused(system, option):
    path = str(ROOT / "hparams" / f"{system}.yaml")
    key = option.split("=")[0]
    with pytest.raises(InputError, match=f"{key} has no effect with .*{system}"):
        training_stages(read_configuration([path, f"--{option}"], demo=False))
    path = str(ROOT / "hparams" / "ltdnn_wavlm.yaml")
    options = [f"--{option}", "--freeze=False"]
    training_stages(read_configuration([path, *options], demo=False))
