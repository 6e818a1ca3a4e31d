"""From a command line to one self-contained YAML, and to what it builds."""

import re
from pathlib import Path

import pytest
import torch
from hyperpyyaml import load_hyperpyyaml
from ruamel.yaml import YAML

from speechbrain_ext import cli
from speechbrain_ext.config import (
    HPARAMS,
    PREPARE_YAML,
    parse_value,
    read_configuration,
    training_stages,
)
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.inference.speaker import SpeakerRecognition
from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
from speechbrain_ext.lobes.encoders.small_wavlm import (
    save_small_wavlm,
)
from speechbrain_ext.schema import KEYS, WITHOUT_EFFECT, check_effect, check_values
from speechbrain_ext.utils.errors import InputError

PROJECT = sorted(HPARAMS.glob("*.yaml"))
# What others extend and add an encoder or an embedding model to
INCOMPLETE = ("base", "ssl_base")
PRESETS = sorted(HPARAMS.glob("presets/*.yaml"))
ECAPA = str(HPARAMS / "ecapa_fbank.yaml")
LAP = str(HPARAMS / "lap_wavlm.yaml")


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def read(path, *options):
    return read_configuration([str(path), *options], demo=False)


@pytest.fixture(scope="module")
def small_parts(tmp_path_factory):
    """Options that let each YAML be built offline and at once."""
    folder = tmp_path_factory.mktemp("parts")
    wavlm = save_small_wavlm(folder / "wavlm", n_layers=6, channels=48, n_bands=8)
    options = {
        "output_folder": folder / "out",
        "save_folder": folder / "out/save",
        "ssl_hub": wavlm,
        "first_iteration": wavlm,
        "n_heads": 4,
        "xvector_channels": 8,
        "ecapa_channels": 8,
        "vgg_width": 8,
        "encoder_channels": 48,
        "n_rooms": 1,
        "frame_layers": "[blocks.2]",
        "teacher": folder / "teacher",
    }
    teacher = read(
        HPARAMS / "xvector_fbank.yaml",
        f"--output_folder={folder / 'teacher'}",
        "--xvector_channels=8",
    )
    built = teacher.build()
    built["checkpointer"].save_checkpoint(meta={"EER": 0.1, "threshold": 0.3})
    teacher.save(folder / "teacher/hyperparams.yaml")
    store = EmbeddingStore(["a"], torch.ones(1, 3), ["a"], [1.0], "f00")
    store.save(folder / "teacher/targets/utterance.safetensors")
    return folder, options


@pytest.mark.parametrize(
    "path",
    [path for path in PROJECT if path.stem not in INCOMPLETE],
    ids=lambda path: path.stem,
)
def test_printed_yaml_stands_alone(path, small_parts, tmp_path, monkeypatch, capsys):
    folder, options = small_parts
    monkeypatch.chdir(tmp_path)
    options = dict(options)
    if path.stem == "w2v_bert_mfa":
        options["ssl_hub"] = save_random_encoder("w2v-bert", tmp_path / "w2v")
    if path.stem.startswith("kd_") and not path.stem.startswith("kd_xvector"):
        options["targets_folder"] = folder / "teacher/targets"
    known = read(path).entries
    arguments = [f"--{key}={value}" for key, value in options.items() if key in known]
    cli.main(["config", str(path), *arguments])
    text = capsys.readouterr().out
    assert "extends" not in YAML().load(text)
    # Comments of the file and of what it extends are kept.
    assert path.read_text("utf-8").splitlines()[0] in text
    if path.stem != "data" and "min_duration" in known:
        assert re.search(r"min_duration: 0.5 # seconds", text)
    hparams = load_hyperpyyaml(text)
    assert set(hparams) == {key for key in known if not key.startswith("__")}
    # It says the same once more.
    (tmp_path / "again.yaml").write_text(text, encoding="utf-8")
    assert read(tmp_path / "again.yaml").settings() == read(path, *arguments).settings()


def test_model_of_a_composed_yaml_is_loaded(small_parts):
    folder, _ = small_parts
    model = SpeakerRecognition.from_training(folder / "teacher")
    assert model.threshold == 0.3
    assert model.encode_batch(torch.randn(1, 16000)).shape == (1, 1, 192)


def test_config_leaves_what_must_be_given(capsys):
    cli.main(["config", str(PREPARE_YAML)])
    assert "save_folder: !PLACEHOLDER" in capsys.readouterr().out


def test_mappings_merge_and_tags_replace(tmp_path):
    write(
        tmp_path / "base.yaml",
        "stages:\n    frozen: {lr: 1.0, steps: 5} # slow\n    joint: {lr: 0.5}\n"
        "net: !new:torch.nn.Linear {in_features: 2, out_features: 3}\nlist: [1, 2]\n",
    )
    child = write(
        tmp_path / "child.yaml",
        "extends: base.yaml\nstages: {frozen: {lr: 0.01}}\n"
        "net: !new:torch.nn.ReLU {}\nlist: [3]\n",
    )
    hparams = read(child).build()
    assert hparams["stages"] == {
        "frozen": {"lr": 0.01, "steps": 5}, "joint": {"lr": 0.5},
    }  # fmt: skip
    assert isinstance(hparams["net"], torch.nn.ReLU) and hparams["list"] == [3]
    assert "# slow" in read(child).text
    # As HyperPyYAML's own overrides do
    changed = read(child, "--net={inplace: True}", "--stages={joint: {steps: 1}}")
    assert changed.build()["net"].inplace
    assert changed.build()["stages"]["joint"] == {"lr": 0.5, "steps": 1}


def test_child_of_a_staged_yaml_keeps_the_other_stages(tmp_path):
    child = write(
        tmp_path / "mine.yaml", f"extends: {LAP}\nstages: {{frozen: {{lr: 0.01}}}}\n"
    )
    stages = [s.values() for s in training_stages(read(child))]
    assert [s["lr"] for s in stages] == [0.01, 0.00005, 0.000005]
    assert stages[0]["number_of_steps"] == 85320
    preset = write(tmp_path / "preset.yaml", "stages: {joint: {lr: 0.02}}\n")
    stages = [
        s.values() for s in training_stages(read(LAP, f"--preset={preset}"))
    ]  # fmt: skip
    assert [s["lr"] for s in stages] == [0.001, 0.02, 0.000005]
    assert stages[1]["freeze"] is False


def test_comments_stay_beside_what_is_overridden(tmp_path):
    base = tmp_path / "base.yaml"
    write(base, "# Of base\n\n# About lr\nlr: 1.0 # a rate\nsteps: 5 # so many\n")
    child = write(tmp_path / "child.yaml", "# Head\n\nextends: base.yaml\nlr: 2.0\n")
    text = read(child).text
    assert text == (
        "# Head\n\n# Of base\n\n# About lr\nlr: 2.0 # a rate\nsteps: 5 # so many\n"
    )


@pytest.mark.parametrize(
    "text", ["001", "2021", "my corpus #2", "a: b", "1e3", "yes", "-x", "@a", "%1"]
)
@pytest.mark.parametrize(
    "key", [key for key, kind in KEYS.items() if kind.is_text and "folder" in key]
)
def test_paths_stay_text(key, text, tmp_path):
    path = write(tmp_path / "a.yaml", f"{key}: x\n")
    for arguments in ([f"--{key}={text}"], [f"--{key}", text]):
        value = read(path, *arguments).build()[key]
        assert value == text and type(value) is str
    if KEYS[key].is_list:
        value = read(path, f"--{key}=[{text}, 'b,c']").build()[key]
        assert value == [text, "b,c"]


def test_numbers_are_numbers_and_unknown_keys_keep_their_type(tmp_path):
    path = write(tmp_path / "a.yaml", "lr: 0.1\nmy_name: x\nmy_number: 3\n")
    values = read(path, "--lr=1e-3", "--my_name=007", "--my_number=007").values()
    assert values["lr"] == 0.001 and values["my_name"] == "007"
    assert values["my_number"] == 7


@pytest.mark.parametrize(
    "options, message",
    [
        (["--batchsize=7"], "no key batchsize; did you mean batch_size"),
        (["--augment"], "--augment has no value"),
        (["--augment="], "--augment has no value"),
        (["--lr", "0.1", "0.2"], "'0.2' belongs to no option"),
        (["--speeds=[1"], "--speeds: '.1' is no YAML"),
        (["--output_folder=a<seed>"], "<...>, which stands for another key"),
        (["--preset=nowhere.yaml"], "no YAML file 'nowhere.yaml'"),
        (["--lr=!ref <nothing>"], "nothing.*mend the reference"),
        (["--number_of_steps=!ref <seed> / 0"], "cannot be computed"),
        (["--steps_per_epoch=0"], "steps_per_epoch: 0 .* at least 1"),
        (["--emb_dim=!ref <emb_dim>"], "keys refer to each other"),
        (
            ["--ecapa_channels=12"],
            "ecapa .*MaskedECAPA.* cannot be built.*ecapa_channels",
        ),
    ],
)
def test_wrong_command_line_is_one_line(options, message):
    with pytest.raises(InputError, match=message) as raised:
        read(ECAPA, "--output_folder=out", *options).build()
    assert "\n" not in str(raised.value)


def test_unknown_keys_are_errors_wherever_they_are(tmp_path):
    wrong = write(tmp_path / "wrong.yaml", "batchsize: 7\n")
    with pytest.raises(InputError, match="wrong.yaml': no YAML has a key batchsize"):
        read(ECAPA, f"--preset={wrong}")
    with pytest.raises(InputError, match="wrong.yaml': .* has no key batchsize"):
        read_configuration([ECAPA], wrong, demo=False)
    stage = write(tmp_path / "stage.yaml", "stages: {frozen: {batchsize: 7}}\n")
    with pytest.raises(InputError, match="stage frozen: no YAML has a key batchsize"):
        read(LAP, f"--preset={stage}")
    with pytest.raises(InputError, match="stages: frozen: .* no key batchsize"):
        training_stages(read(LAP, "--stages={frozen: {batchsize: 7}}"))
    # What another system has is left out, in a preset.
    other = write(tmp_path / "other.yaml", "vgg_width: 16\nlr: 0.5\n")
    values = read(ECAPA, f"--preset={other}").values()
    assert "vgg_width" not in values and values["lr"] == 0.5


@pytest.mark.parametrize(
    "text, message",
    [
        ("lr: [1\n", "line 2: this is no YAML"),
        ("lr: 1\nlr: 2\n", "no YAML .*duplicate key"),
        ("- a\n", "no keys"),
        ("extends: a.yaml\n", "extends itself"),
        ("extends: b.yaml\n", "no YAML file .*b.yaml"),
        ("\x00\x01", "this is no YAML"),
    ],
)
def test_broken_yaml_is_one_line(text, message, tmp_path):
    path = write(tmp_path / "a.yaml", text)
    with pytest.raises(InputError, match=message) as raised:
        read(path)
    assert "\n" not in str(raised.value) and "a.yaml" in str(raised.value)


def test_binary_yaml_is_one_line(tmp_path):
    (tmp_path / "a.yaml").write_bytes(bytes(range(256)))
    with pytest.raises(InputError, match="this is no YAML"):
        read(tmp_path / "a.yaml")


def test_what_runs_knows_all_keys():
    """Each key of the project's YAMLs that holds a plain value has a kind."""
    unknown = set()
    for path in [*PROJECT, *HPARAMS.glob("pieces/*.yaml"), *PRESETS]:
        for key, value in YAML().load(path.read_text("utf-8")).items():
            tag = getattr(getattr(value, "tag", None), "value", None)
            if tag in (None, "!PLACEHOLDER") and key not in (*KEYS, "extends"):
                unknown.add(key)
    assert not unknown


@pytest.mark.parametrize("key", KEYS)
def test_each_key_takes_what_it_is_for_and_nothing_else(key):
    """Tried with -1, 0, text, null and a list."""
    kind = KEYS[key]
    takes = {
        value
        for value in ("-1", "0", "x", "null", "[a, {b: 1}]", "nan", "True")
        if accepts(key, value)
    }
    text = kind.is_text and not kind.description.startswith("one of")
    assert ("x" in takes) == (text and key not in LISTS)
    assert ("null" in takes) == ("null" in kind.description)
    assert ("True" in takes) == (kind.description == "True or False" or "x" in takes)
    assert "[a, {b: 1}]" not in takes or text
    if not text:
        assert "nan" not in takes
        signed = key == "mean_layer" or kind.description.startswith("a number, or")
        assert ("-1" in takes) == signed
        zero = signed or "at least 0" in kind.description or takes_zero(key)
        assert ("0" in takes) == zero


LISTS = ("lora_targets", "frame_layers", "aggregated_layers", "targets", "trial_lists")


def takes_zero(key):
    return "from 0" in KEYS[key].description or key == "threshold"


def accepts(key, text):
    try:
        check_values({key: parse_value(key, text)}, "a.yaml")
    except InputError as error:
        assert key in str(error) and "\n" not in str(error)
        return False
    return True


@pytest.mark.parametrize(
    "options, message",
    [
        (["--average_checkpoints=4"], "of 3 kept checkpoints 4 cannot be averaged"),
        (["--sample_rate=8000"], "pre-trained on speech at 16000 Hz, not 8000"),
        (["--min_lr=1.0"], "min_lr 1.0 is above lr"),
        (["--valid_speakers=0.5", "--test_speakers=0.5"], "no speakers to train on"),
        (["--freeze=maybe"], "freeze: maybe in .* must be True or False"),
        (["--keep_checkpoints=0"], "keep_checkpoints: 0"),
    ],
)
def test_values_that_do_not_go_together(options, message):
    with pytest.raises(InputError, match=message):
        read(LAP, *options).values()


@pytest.mark.parametrize(
    "path, options, message",
    [
        (ECAPA, ["--encoder_lr=0.1"], None),
        (LAP, ["--lr=0.1"], None),
        (LAP, ["--layer_lr_decay=0.9"], None),
        (LAP, ["--layer_lr_decay=0.9", "--stage=frozen"], "layer_lr_decay has no effe"),
        (LAP, ["--encoder_lr=0.1"], "encoder_lr has no effect with .*lap_wavlm.yaml"),
        (LAP, ["--noise_url=http://x"], "noise_url has no effect with noise_folder"),
        (LAP, ["--top_k=0", "--penalty=0.1"], "penalty has no effect with top_k: 0"),
        (ECAPA, ["--noise_annotation=a.csv"], "noise_annotation has no effect"),
    ],
)
def test_options_without_effect_are_refused(path, options, message):
    configuration = read(path, "--output_folder=out", *options)
    if message is None:
        training_stages(configuration)
    else:
        with pytest.raises(InputError, match=message):
            training_stages(configuration)


def test_keys_without_effect_are_keys():
    others = {other for others, _ in WITHOUT_EFFECT.values() for other in others}
    assert {*WITHOUT_EFFECT, *others} <= set(KEYS)


def test_modules_that_cannot_be_built_name_their_keys(tmp_path):
    wavlm = save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32, n_bands=8)
    configuration = read(LAP, f"--ssl_hub={wavlm}", "--n_heads=7")
    with pytest.raises(
        InputError, match="embedding_model .*LAP_ASTP.* n_heads=7 .*; change .*n_heads"
    ):
        configuration.build()


def test_reading_leaves_no_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    training_stages(read(LAP))
    read(PREPARE_YAML, "--save_folder=save").build()
    assert list(Path(tmp_path).iterdir()) == []


def test_options_of_both_are_the_yamls():
    """precision is an option of SpeechBrain too; the stored YAML must have it."""
    configuration = read(ECAPA, "--precision=bf16", "--device=cpu")
    assert configuration.values()["precision"] == "bf16"
    assert configuration.run_opts.device == "cpu"
    assert "precision" not in configuration.run_opts.overridden_args


def test_settings_ignore_comments_and_places(tmp_path):
    first = write(tmp_path / "a.yaml", "output_folder: a\nlr: 0.1 # a\nx: !new:a.B\n")
    second = write(tmp_path / "b.yaml", "# b\nlr: 0.1\nx: !new:a.B\noutput_folder: c\n")
    assert read(first).settings() == read(second).settings()
    assert read(first, "--lr=0.2").settings() != read(second).settings()


def test_encoder_of_a_relative_path_is_found_from_elsewhere(tmp_path, monkeypatch):
    save_small_wavlm(tmp_path / "wavlm", n_layers=2, channels=32, n_bands=8)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    read(LAP, "--ssl_hub=wavlm", "--n_heads=4").save(tmp_path / "hyperparams.yaml")
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = read(tmp_path / "hyperparams.yaml")
    assert again.values()["ssl_hub"] == str(tmp_path / "wavlm")
    assert again.values()["encoder"]["source"] == str(tmp_path / "wavlm")


@pytest.mark.parametrize(
    "name", ["microsoft/wavlm-large", "speechbrain_ext/wavlm-small"]
)
def test_encoder_of_a_name_keeps_it(tmp_path, name):
    read(LAP, f"--ssl_hub={name}").save(tmp_path / "hyperparams.yaml")
    assert read(tmp_path / "hyperparams.yaml").entries["ssl_hub"].value == name


def test_key_of_an_earlier_release_is_an_error():
    with pytest.raises(InputError, match="span_drop is called fea_augment now"):
        check_values({"span_drop": None}, "mine.yaml")


@pytest.mark.parametrize("lora_rank, refused", [(0, True), (4, False)])
def test_gradient_checkpointing_of_a_frozen_encoder(lora_rank, refused):
    run = {"freeze": True, "lora_rank": lora_rank, "gradient_checkpointing": True}
    if not refused:
        check_effect(["gradient_checkpointing"], [run])
        return
    with pytest.raises(InputError, match="freeze: True and lora_rank: 0"):
        check_effect(["gradient_checkpointing"], [run])
