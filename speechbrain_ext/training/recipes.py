"""What the recipes' scripts share: start, preparation, figures of a run."""

import dataclasses
import os
import resource
import shlex
import sys
from pathlib import Path

import speechbrain as sb
import torch

from speechbrain_ext.config import PREPARE_YAML, read_configuration
from speechbrain_ext.dataio.prepare import resolve_test_trials
from speechbrain_ext.training.checks import check_built
from speechbrain_ext.utils.checkpoints import load_start
from speechbrain_ext.utils.distributed import device_of, on_main_process
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.locks import hold_folder


def build_training(configuration):
    """Builds what a YAML says; an encoder that is trained is among what is saved.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training, or of one stage of it.

    Returns
    -------
    dict
        All that the YAML says, built.

    Raises
    ------
    InputError
        If a value cannot be used.
    """
    hparams = configuration.build()
    modules = hparams["modules"]
    if "encoder" in modules and any(
        p.requires_grad for p in modules["encoder"].parameters()
    ):
        hparams["checkpointer"].add_recoverable("encoder", modules["encoder"])
    return hparams


def start_training(configuration):
    """Builds what a YAML says and sets up the folder of the training.

    The folder gets hyperparams.yaml, the self-contained YAML. Where the YAML says
    start_from, the modules start from the best checkpoint of that training.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training, or of one stage of it.

    Returns
    -------
    dict
        All that the YAML says, built.

    Raises
    ------
    InputError
        If a value cannot be used, the folder holds a training of another
        architecture, or another run writes to it.
    """
    hparams = build_training(configuration)
    on_main_process(hold_folder, hparams["output_folder"])
    check_built(hparams)
    if hparams.get("start_from") is not None:
        load_start(hparams["modules"], hparams["start_from"])
    start_experiment(configuration, hparams["output_folder"])
    return hparams


def start_experiment(configuration, output_folder):
    """Sets up a folder with SpeechBrain's log and the self-contained YAML.

    Other runs are kept out of it until this process ends.

    Arguments
    ---------
    configuration : Configuration
        What is run.
    output_folder : str or Path
        The folder; gets hyperparams.yaml.
    """
    on_main_process(hold_folder, output_folder)
    sb.create_experiment_directory(
        experiment_directory=output_folder,
        log_config=configuration.run_opts.log_config or sb.core.DEFAULT_LOG_CONFIG,
    )
    on_main_process(configuration.save, Path(output_folder) / "hyperparams.yaml")


def sibling_configuration(configuration, name, values):
    """A YAML beside that of a training, run with the same options.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training.
    name : str
        Name of the other YAML.
    values : dict
        To merge into those of the other YAML.

    Returns
    -------
    Configuration
        Configuration of the other YAML.

    Raises
    ------
    InputError
        If there is no such YAML, or it has no such key.
    """
    path = configuration.path.parent / name
    other = read_configuration([str(path)], demo=False)
    return dataclasses.replace(
        other.with_values(values, str(configuration.path)),
        run_opts=configuration.run_opts,
    )


def plda_configuration(configuration):
    """The verification by PLDA of a training, once it has ended.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training, which has the key lda_dim.

    Returns
    -------
    Configuration
        Configuration of verification_plda.yaml.

    Raises
    ------
    InputError
        If a value is out of range.
    """
    values = configuration.values()
    plda = sibling_configuration(
        configuration,
        "verification_plda.yaml",
        {
            "trained_model": values["output_folder"],
            # Its YAML will just have been run as a whole.
            "trust_source": True,
            "lda_dim": values["lda_dim"],
        },
    )
    plda.values()
    return plda


def init_process_group(run_opts):
    """Joins the processes that torchrun has started, once.

    On CPUs by gloo, as SpeechBrain's default, nccl, is for GPUs only.

    Arguments
    ---------
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    """
    device = device_of(run_opts)
    if torch.device(device).type == "cpu":
        run_opts = dataclasses.replace(run_opts, distributed_backend="gloo")
    if not torch.distributed.is_initialized():
        sb.utils.distributed.ddp_init_group(run_opts)


def refuse_several_processes():
    """Refuses torchrun for a training of one process.

    Raises
    ------
    InputError
        If there are several processes.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    if n_processes > 1:
        raise InputError(
            f"torchrun has started {n_processes} processes, but this training is of "
            "one; start it with python"
        )


def prepare_only(arguments, corpus=None):
    """Writes manifests and trial lists, as a training would, and names them.

    Where shards is given it packs the audio to train on into so many.

    Arguments
    ---------
    arguments : list of str
        Overrides of hparams/prepare.yaml, data_folder and save_folder among them.
    corpus : str or Path
        YAML of overrides for the recipe's corpus.

    Raises
    ------
    InputError
        If one of the folders is not given, or the corpus cannot be used.
    """
    configuration = read_configuration(
        [str(PREPARE_YAML), *arguments], corpus, demo=False
    )
    missing = {"data_folder", "save_folder"} - set(configuration.given)
    if missing:
        raise InputError(f"give --{' and --'.join(sorted(missing))}")
    configuration.check_effect()
    hparams = configuration.build()
    paths = hparams["prepare_data"]()
    if hparams["shards"] is not None:
        hparams["write_shards"](paths["train"])
        paths["shards"] = hparams["shards_folder"]
    print("\n".join(paths.values()))


def run_details(configuration, hparams):
    """What a training was and needed, for its metrics.json.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training.
    hparams : dict
        What it builds.

    Returns
    -------
    dict
        System, stage and all stages' names, corpus, test trials, encoder, seed,
        steps, command, minutes of training, peak memory of the main process and
        of the GPU (GiB), parameters of each module.
    """
    stages = list(configuration.values().get("stages", ()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    details = {
        "system": configuration.path.stem,
        "stage": Path(hparams["output_folder"]).name if stages else None,
        "stages": stages,
        "dataset": hparams["dataset"],
        "trials": resolve_test_trials(
            hparams["dataset"],
            hparams["verification_file"],
            hparams["valid_verification_file"],
        ),
        "ssl_hub": hparams.get("ssl_hub"),
        "seed": hparams["seed"],
        "number_of_steps": hparams.get("number_of_steps"),
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
        Names that were given; if None, the folders' names.
    output_folders : list of str
        Output folders of the trainings.

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
