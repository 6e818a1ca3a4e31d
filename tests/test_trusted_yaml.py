"""What a YAML from elsewhere may run."""

import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from speechbrain_ext import cli
from speechbrain_ext.config import compose, read_configuration, resolve, select_keys
from speechbrain_ext.inference.speaker import MODEL_KEYS, SpeakerRecognition
from speechbrain_ext.inference.trusted_yaml import (
    AllowListLoader,
    is_allowed,
    load_trusted_yaml,
)
from speechbrain_ext.utils.errors import InputError

ROOT = Path(__file__).resolve().parents[1]
HPARAMS = ROOT / "hparams"
HOSTILE = {
    "apply": "!apply:os.system [touch {ran}]",
    "python tag": "!!python/object/apply:os.system [touch {ran}]",
    "verbatim tag": "!<tag:yaml.org,2002:python/object/apply:os.system> [touch {ran}]",
    "new": "!new:subprocess.Popen [[touch, '{ran}']]",
    "inside": "{{a: [1, {{b: !apply:os.system [touch {ran}]}}]}}",
    "an argument": "!new:torch.nn.Sequential [!apply:os.system [touch {ran}]]",
    "tuple": "(!!python/object/apply:os.system ['touch {ran}'])",
    "applyref": "!applyref:os.system [touch {ran}]",
    "by way of a module": "!apply:torch.nn.functional.warnings.os.system [touch {ran}]",
    "run_shell": "!apply:speechbrain.utils.superpowers.run_shell [touch {ran}]",
    "python name": "!!python/name:os.system",
    "module": "!module:os",
    "include": "!include:/etc/passwd",
    "private attribute": "!apply:getattr [!name:torch.nn.Linear, __init__]",
    "downloads": "!apply:speechbrain.utils.data_utils.download_file [file://x, y]",
    "pickle": "!apply:torch.load [x.pt]",
    "hub code": "!new:speechbrain.integrations.huggingface.wavlm.WavLM "
    "{{source: x, save_path: y, trust_remote_code: True}}",
    "another folder": "!apply:speechbrain_ext.inference.teacher_frames."
    "trained_teacher_frames {{teacher: x, layers: [a], trust_source: True}}",
}


@pytest.mark.parametrize("value", HOSTILE.values(), ids=HOSTILE.keys())
def test_nothing_is_run(value, tmp_path):
    ran = tmp_path / "RAN"
    text = f"sample_rate: {value.format(ran=ran)}\n"
    with pytest.raises(InputError, match="sample_rate would run .*trust_source=True"):
        load_trusted_yaml(text, "model/hyperparams.yaml", ["sample_rate"])
    assert not ran.exists()


@pytest.mark.parametrize(
    "value", ["!applyref:os.system [touch {ran}]", "!include:/etc/passwd"]
)
def test_what_runs_beside_the_keys_is_refused_too(value, tmp_path):
    ran = tmp_path / "RAN"
    text = f"other:\n  - {value.format(ran=ran)}\nsample_rate: 16000\n"
    with pytest.raises(InputError, match="other would run"):
        load_trusted_yaml(text, "hyperparams.yaml", ["sample_rate"])
    assert not ran.exists()


def test_other_keys_are_not_built(tmp_path):
    ran = tmp_path / "RAN"
    text = f"other: !apply:os.system [touch {ran}]\nsample_rate: 16000\n"
    assert load_trusted_yaml(text, "h.yaml", ["sample_rate"]) == {"sample_rate": 16000}
    assert not ran.exists()


def test_trusted_sources_run(tmp_path):
    text = f"x: !apply:pathlib.Path.touch [!new:pathlib.Path [{tmp_path / 'RAN'}]]\n"
    with pytest.raises(InputError, match="x would run pathlib.Path.touch"):
        load_trusted_yaml(text, "h.yaml", ["x"])
    load_trusted_yaml(text, "h.yaml", ["x"], trust_source=True)
    assert (tmp_path / "RAN").exists()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sample_rate", "!apply:os.system [touch {ran}]"),
        ("encoder", "!!python/object/apply:os.system [touch {ran}]"),
        ("seed", "!applyref:os.system [touch {ran}]"),
    ],
)
def test_folders_of_trainings_and_models(key, value, training, model_folder, tmp_path):
    for load, source in (
        (SpeakerRecognition.from_training, training),
        (SpeakerRecognition.from_hparams, model_folder),
    ):
        folder = shutil.copytree(source, tmp_path / source.name)
        ran = tmp_path / "RAN"
        file = folder / "hyperparams.yaml"
        content = YAML().load(file.read_text())
        content[key] = "HERE"
        with open(file, "w") as stream:
            YAML().dump(content, stream)
        file.write_text(file.read_text().replace("HERE", value.format(ran=ran)))
        with pytest.raises(InputError, match="would run .*os.system"):
            load(folder)
        assert not ran.exists()


class LoadedError(InputError):
    """A model would be loaded, and the test needs no more."""


@pytest.fixture
def of_a_package(training, tmp_path, monkeypatch):
    """A training whose YAML calls what is not on the list."""
    folder = shutil.copytree(training, tmp_path / "results" / "training")
    file = folder / "hyperparams.yaml"
    line, call = "^sample_rate: 16000", "sample_rate: !apply:math.ceil [15999.5]"
    text, n_changed = re.subn(line, call, file.read_text(), flags=re.MULTILINE)
    assert n_changed == 1
    file.write_text(text)
    metrics = json.loads((folder / "test" / "metrics.json").read_text())
    parameters = {"embedding_model": 1, "encoder": 1}
    metrics.update(system="ltdnn_wavlm", seed=1, parameters=parameters, ssl_hub="x")
    (folder / "test" / "metrics.json").write_text(json.dumps(metrics))
    from_training = SpeakerRecognition.from_training

    def load(output_folder, device="cpu", trust_source=False):
        if trust_source:
            raise LoadedError("it is trusted")
        return from_training(output_folder, device)

    monkeypatch.setattr(SpeakerRecognition, "from_training", load)
    return folder


SCRIPTS = (
    "plot_head_weights",
    "plot_layer_attention",
    "deployment_table",
    "export_onnx",
)


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_ask_before_they_trust(script, of_a_package, voices, monkeypatch):
    path = ROOT / "recipes" / "VoxCeleb" / f"{script}.py"
    monkeypatch.syspath_prepend(path.parent)
    arguments = [str(path), str(of_a_package), "--output_folder", str(of_a_package)]
    if script == "plot_head_weights":
        arguments += ["--audio", str(voices[0])]
    main = runpy.run_path(str(path))["main"]
    for options, error, message in (
        ([], InputError, "sample_rate would run math.ceil"),
        (["--trust_source"], LoadedError, "it is trusted"),
    ):
        monkeypatch.setattr(sys, "argv", [*arguments, *options])
        with pytest.raises(error, match=message):
            main()


@pytest.mark.parametrize("name", ["kd_xvector_fc", "kd_ecapa_tdnn", "kd_ltdnn_tdnn"])
def test_teachers_are_asked_about_before_they_are_trusted(name, of_a_package):
    data = ["--dataset=folder", f"--data_folder={of_a_package}"]
    configuration = read_configuration(
        [str(HPARAMS / f"{name}.yaml"), f"--teacher={of_a_package}", *data]
    )
    assert configuration.values()["trust_source"] is False
    models = configuration.build(["target_models"])["target_models"]
    of_the_teacher = {n: model for n, model in models.items() if n != "lde_aggr"}
    for model in of_the_teacher.values():
        with pytest.raises(InputError, match="sample_rate would run math.ceil"):
            model(trust_source=False)
        with pytest.raises(LoadedError):
            model(trust_source=True)


def test_commands_ask_before_they_trust(of_a_package, voices, tmp_path):
    source, voice = str(of_a_package), str(voices[0])
    trials = tmp_path / "trials.txt"
    trials.write_text(f"1 {voice} {voices[1]}\n0 {voice} {voices[2]}\n")
    gallery = ["--gallery", str(tmp_path / "gallery")]
    for arguments in (
        ["embed", source, voice, "--output", str(tmp_path / "e.safetensors")],
        ["verify", source, voice, voice],
        ["enrol", source, "ann", voice, *gallery],
        ["identify", source, voice, *gallery],
        ["tune", source, str(trials), "--dry_run"],
        ["export", source, str(tmp_path / "model")],
        ["info", source],
        ["results-table", str(of_a_package.parent)],
        ["demo", source],
    ):
        with pytest.raises(SystemExit, match="sample_rate would run math.ceil"):
            cli.main(arguments)
        with pytest.raises(SystemExit, match="it is trusted"):
            cli.main([*arguments, "--trust_source"])


def test_old_paths_and_layers_are_allowed():
    allowed = [
        "torch.nn.Identity",
        "speechbrain.lobes.models.ECAPA_TDNN.ECAPA_TDNN",
        "speechbrain_ext.lobes.models.ssl_encoder.SSLEncoder",
        "speechbrain_ext.nnet.pooling.MultiHeadAttnPooling",
        "transformers.WavLMConfig",
    ]
    assert all(map(is_allowed, allowed))
    refused = [
        "transformers.AutoModel.from_pretrained",
        "speechbrain_ext.cli.main",
        "speechbrain.lobes.models.fairseq_wav2vec.FairseqWav2Vec2",
        "speechbrain.processing.PLDA_LDA.Ndx.read",
        "speechbrain_ext.lobes.features.torch.hub.load",
        "torch.nn.Module.load_state_dict",
        "speechbrain_ext.lobes.nothing.There",
    ]
    assert not any(map(is_allowed, refused))


# Those that train a speaker model
SYSTEMS = [
    path.name
    for path in sorted(HPARAMS.glob("*.yaml"))
    if set(MODEL_KEYS) <= set(compose(path)[1])
]


@pytest.mark.parametrize("name", SYSTEMS)
def test_the_projects_own_systems_are_allowed(name, tmp_path):
    arguments = [str(HPARAMS / name), f"--output_folder={tmp_path}"]
    if name in ("lde_teacher.yaml", "sp_teacher.yaml"):
        arguments += [f"--teacher={tmp_path}", "--frame_layers=[a]"]
    configuration = read_configuration(arguments, demo=False)
    content = resolve(configuration.text, name)
    text = select_keys(content, MODEL_KEYS, name)
    assert AllowListLoader(text).get_single_node() is not None


def test_layers_are_built():
    text = "wide: 8\nlayer: !new:torch.nn.Linear [!ref <wide> * 2, 3]\nshape: (1, 2)\n"
    built = load_trusted_yaml(text, "h.yaml", ["layer", "shape"])
    assert built["layer"](torch.zeros(1, 16)).shape == (1, 3)
    assert built["shape"] == (1, 2)
