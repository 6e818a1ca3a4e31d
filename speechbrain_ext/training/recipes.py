"""What the recipes' scripts share: arguments, presets, figures of a run."""

import io
import re
import resource
import shlex
import sys
import tempfile
from pathlib import Path

import speechbrain as sb
import torch
from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML

from speechbrain_ext.utils.checkpoints import check_architecture
from speechbrain_ext.utils.errors import InputError

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"
DEMO_PRESET = HPARAMS / "presets" / "demo.yaml"
DATA_YAML = HPARAMS / "data.yaml"
DEMO_BANNER = """
======================================================================
 No data_folder was given: this is the DEMO on synthetic voices.
 Its error rates say nothing about people. For your own recordings:
   {command} --dataset folder --data_folder <root>
 with <root>/<speaker>/**/<audio file>
======================================================================
"""


def parse_recipe_arguments(arguments, corpus=None):
    """Reads a recipe's command line.

    Beside SpeechBrain's options and `--key value` overrides of the YAML,
    `--preset FILE` names a YAML file of overrides, before which the command
    line goes. Where neither gives a data_folder, the demo's preset is used.
    A YAML with the key `extends` takes the keys that it lacks from that file,
    or from a list of files, the last of which goes first.

    Arguments
    ---------
    arguments : list of str
        As of sys.argv[1:].
    corpus : str or Path
        YAML of overrides for the recipe's corpus, before which the preset goes.

    Returns
    -------
    hparams_file : str
        A YAML with base and preset filled in.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    overrides : dict
        Overrides of the YAML.

    Raises
    ------
    InputError
        If a file is missing or an override has no such key in the YAML.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text("data_folder: null\\nlr: 0.1\\n", "utf-8")
    >>> arguments = [str(path), "--data_folder", "/data", "--lr=0.2"]
    >>> parse_recipe_arguments(arguments)[2]
    {'data_folder': '/data', 'lr': 0.2}
    """
    hparams_file, run_opts, given = sb.parse_arguments(arguments)
    content = _load_yaml(hparams_file)
    given = dict(YAML().load(given) or {})
    preset = given.pop("preset", None)
    unknown = sorted(set(given) - set(content))
    if unknown:
        raise InputError(
            f"'{hparams_file}' has no key {', '.join(unknown)} to override"
        )
    if corpus is not None:
        content.update(_load_yaml(corpus))
    if not {**content, **given}.get("data_folder", True) and preset is None:
        if given.get("dataset", "demo") != "demo":
            raise InputError(
                f"dataset {given['dataset']} needs data_folder, the root of "
                "the corpus: --data_folder <root>"
            )
        command = f"python {' '.join([sys.argv[0], *arguments])}"
        print(DEMO_BANNER.format(command=command), file=sys.stderr)
        preset = DEMO_PRESET
    if preset:
        # A preset serves several systems, some of which lack some of its keys.
        values = _load_yaml(preset)
        content.update({key: values[key] for key in values if key in content})
    return _write_yaml(content, Path(hparams_file).name), run_opts, given


def _load_yaml(path):
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no YAML file '{path}'")
    content = YAML().load(path.read_text(encoding="utf-8")) or {}
    bases = content.pop("extends", [])
    merged = {}
    for base in [bases] if isinstance(bases, str) else bases:
        merged.update(_load_yaml(path.parent / base))
    merged.update(content)
    return merged


def _write_yaml(content, name):
    path = Path(tempfile.mkdtemp(prefix="speechbrain_ext-")) / name
    with open(path, "w", encoding="utf-8") as file:
        YAML().dump(_references_first(content), file)
    return str(path)


def _references_first(content):
    """Moves the keys that others refer to above those, where they are not.

    HyperPyYAML leaves a reference to a reference further down unresolved.
    """
    ordered = {}

    def place(key, users):
        if key in users:
            raise InputError(
                f"keys refer to each other: {' -> '.join([*users, key])}"
            )
        if key in ordered:
            return
        stream = io.StringIO()
        YAML().dump({key: content[key]}, stream)
        for name in re.findall(r"<(\w+)[.\w]*>", stream.getvalue()):
            if name in content:
                place(name, [*users, key])
        ordered[key] = content[key]

    for key in content:
        place(key, [])
    return ordered


def training_stages(hparams_file, overrides):
    """The stages of a training, each with its overrides of the YAML.

    A YAML with the key `stages` has for each stage's name a mapping of
    overrides; the command line goes before them. Each stage writes to a
    folder of its name in output_folder and starts from the best checkpoint of
    the stage before. The key `stage` names the only one to run.

    Arguments
    ---------
    hparams_file : str
        Of `parse_recipe_arguments`.
    overrides : dict
        Likewise.

    Returns
    -------
    list of dict
        Overrides of each stage; the given ones where the YAML has no stages.

    Raises
    ------
    InputError
        If there is no stage of that name, or it sets keys that the YAML lacks.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text(
    ...     "output_folder: out\\nlr: 0.1\\nstart_from: null\\nstage: null\\n"
    ...     "stages: {frozen: {}, joint: {lr: 0.01}}\\n", "utf-8"
    ... )
    >>> for stage in training_stages(path, {}):
    ...     print(stage)
    {'output_folder': 'out/frozen', 'start_from': None}
    {'lr': 0.01, 'output_folder': 'out/joint', 'start_from': 'out/frozen'}
    """
    with open(hparams_file, encoding="utf-8") as fin:
        content = YAML().load(resolve_references(fin, overrides))
    if "stages" not in content:
        return [overrides]
    stages, only = content["stages"], content["stage"]
    if only is not None and only not in stages:
        raise InputError(
            f"stage: '{only}' is none of {', '.join(stages)} in '{hparams_file}'"
        )
    folder = Path(content["output_folder"])
    result = []
    previous = content["start_from"]
    for name, values in stages.items():
        unknown = sorted(set(values) - set(content))
        if unknown:
            raise InputError(
                f"stages: {name} sets {', '.join(unknown)}, which "
                f"'{hparams_file}' does not have"
            )
        own = {"output_folder": str(folder / name), "start_from": previous}
        if only in (None, name):
            result.append({**values, **overrides, **own})
        previous = own["output_folder"]
    return result


def load_training(hparams_file, overrides):
    """Builds what a YAML says and sets up the folder of the training.

    Arguments
    ---------
    hparams_file : str
        Of `parse_recipe_arguments`.
    overrides : dict
        Of the YAML.

    Returns
    -------
    dict
        Of the YAML.

    Raises
    ------
    InputError
        If the folder holds a training of another architecture.
    """
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    check_architecture(hparams["checkpointer"])
    sb.create_experiment_directory(
        experiment_directory=hparams["output_folder"],
        hyperparams_to_save=hparams_file,
        overrides=overrides,
    )
    return hparams


def init_process_group(run_opts):
    """Joins the processes that torchrun has started, once.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    """
    if not torch.distributed.is_initialized():
        sb.utils.distributed.ddp_init_group(run_opts)


def prepare_only(arguments, corpus=None):
    """Writes manifests and trial lists, as a training would, and names them.

    Arguments
    ---------
    arguments : list of str
        As of sys.argv[1:]: overrides of hparams/data.yaml, data_folder and
        save_folder among them.
    corpus : str or Path
        YAML of overrides for the recipe's corpus.

    Raises
    ------
    InputError
        If one of the folders is not given, or the corpus cannot be used.
    """
    hparams_file, _, overrides = parse_recipe_arguments(
        [str(DATA_YAML), *arguments], corpus
    )
    missing = {"data_folder", "save_folder"} - set(overrides)
    if missing:
        raise InputError(f"give --{' and --'.join(sorted(missing))}")
    with open(hparams_file, encoding="utf-8") as fin:
        hparams = load_hyperpyyaml(fin, overrides)
    print("\n".join(hparams["prepare_data"]().values()))


def run_details(hparams_file, hparams):
    """What a training was and needed, for its metrics.json.

    Arguments
    ---------
    hparams_file : str
        Of `parse_recipe_arguments`.
    hparams : dict
        Of the training.

    Returns
    -------
    dict
        System, corpus, encoder, seed, steps, command, minutes of training, peak
        memory of the main process and of the GPU (GiB), parameters of each
        module.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    details = {
        "system": Path(hparams_file).stem,
        "dataset": hparams["dataset"],
        "ssl_hub": hparams.get("ssl_hub"),
        "seed": hparams["seed"],
        "number_of_steps": hparams["number_of_steps"],
        "command": " ".join(["python", *map(shlex.quote, sys.argv)]),
        "train_minutes": round(hparams["clock"].seconds() / 60, 1),
        # Linux counts in KiB, macOS in bytes.
        "peak_memory_gib": round(
            peak / 2 ** (30 if sys.platform == "darwin" else 20), 2
        ),
        "parameters": {
            name: sum(p.numel() for p in module.parameters())
            for name, module in hparams["modules"].items()
        },
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        details["device"] = torch.cuda.get_device_name()
        details["peak_gpu_memory_gib"] = round(
            torch.cuda.max_memory_allocated() / 2**30, 2
        )
    return details


def model_names(names, output_folders):
    """Names of trained models in a table or plot.

    Arguments
    ---------
    names : list of str or None
        As given; if None, the folders' names.
    output_folders : list of str
        Of the trainings.

    Returns
    -------
    list of str
        A name for each.

    Raises
    ------
    InputError
        If they are not as many as the models, or two are the same.

    Example
    -------
    >>> model_names(None, ["results/teacher", "results/student"])
    ['teacher', 'student']
    """
    names = names or [Path(folder).name for folder in output_folders]
    if len(names) != len(output_folders) or len(set(names)) != len(names):
        raise InputError("--names: give each model a name of its own")
    return names
