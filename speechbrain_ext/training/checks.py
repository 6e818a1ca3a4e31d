"""What can be wrong with a training, found before its long work starts."""

import contextlib
from pathlib import Path

import torch

from speechbrain_ext.config import not_built
from speechbrain_ext.dataio.datasets import training_dataset
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.settings import DataSettings
from speechbrain_ext.dataio.shards import check_written
from speechbrain_ext.inference.hidden_state_cache import check_storable
from speechbrain_ext.training.brains import (
    check_epochs,
    layer_groups,
    start_schedule,
)
from speechbrain_ext.utils.checkpoints import best_checkpoint, check_architecture
from speechbrain_ext.utils.distributed import device_of
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.randomness import seeded

SCHEDULES = ("lr_scheduler", "encoder_lr_scheduler")
# Built in a moment, as they need no encoder, no data and no teacher
SMALL_PARTS = (
    *SCHEDULES, "opt_class", "epoch_counter", "margin_schedule", "compute_cost",
    "prepare_data",
)  # fmt: skip


def check_trainings(configurations, to_come=()):
    """Tries what needs no encoder and no data, of trainings one after the other.

    Optimizer, schedules, loss and settings of the data, the device, and that the
    training to start from and the shards are there.

    Arguments
    ---------
    configurations : list of Configuration
        What will be trained, such as the stages of a training.
    to_come : collection of str
        Output folders of further trainings, which will be there to start from.

    Raises
    ------
    InputError
        If a value cannot be used.
    """
    to_come = set(map(Path, to_come))
    for configuration in configurations:
        values = configuration.values()
        device_of(configuration.run_opts)
        parts = configuration.build([key for key in SMALL_PARTS if key in values])
        _check_steps(values, parts)
        prepare_data = parts.get("prepare_data")
        if getattr(prepare_data, "func", None) is prepare_corpus:
            given = dict(prepare_data.keywords)
            given.pop("save_folder", None)
            DataSettings(**given)
        if values.get("shards_folder") is not None:
            check_written(values["shards_folder"])
        if values.get("start_from") is not None:
            start = Path(values["start_from"])
            if to_come.isdisjoint([start, *start.parents]):
                best_checkpoint(start / "save")
        to_come.add(Path(values["output_folder"]))


def _check_steps(values, parts):
    """Tries the optimizer and each schedule, and counts the epochs."""
    n_steps = values.get("number_of_steps")
    if n_steps is None:
        return
    check_epochs(parts["epoch_counter"], n_steps, values["steps_per_epoch"])
    parameter = torch.nn.Parameter(torch.zeros(1, 1))
    for key in SCHEDULES:
        with _named("opt_class", parts["opt_class"]):
            optimizer = parts["opt_class"]([parameter])
        with _named(key, parts[key]):
            start_schedule(parts[key], optimizer, n_steps)


@contextlib.contextmanager
def _named(key, what):
    """Names the key of a YAML, and what it calls, where that fails in the block."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:
        name = getattr(getattr(what, "func", what), "__name__", type(what).__name__)
        raise not_built(key, name, error, []) from error


def check_built(hparams):
    """Tries what needs the modules, but no data.

    Arguments
    ---------
    hparams : dict
        What the YAML of a training builds.

    Raises
    ------
    InputError
        If the modules do not fit the checkpoint to go on from, that is of a schedule
        of other steps, or a value does not go with the encoder.
    """
    checkpointer = hparams["checkpointer"]
    check_architecture(checkpointer)
    _check_planned_steps(checkpointer, hparams.get("number_of_steps"))
    modules = hparams["modules"]
    if "classifier" not in hparams or "encoder" not in modules:
        return  # i-vectors and pre-training
    encoder = modules["encoder"]
    layer_groups(encoder, hparams["layer_lr_decay"])
    if hparams.get("hidden_state_cache") is not None:
        check_storable(encoder)
        own = hparams["training_dataset"]
        if getattr(own, "func", own) is not training_dataset:
            raise InputError(
                "hidden_state_cache has no effect on a training_dataset of your own; "
                "leave one of them out"
            )
    with seeded("classifier of two speakers"):
        build_classifier(hparams["classifier"], 2)


def build_classifier(classifier, n_speakers):
    """Builds the classifier of a YAML.

    Arguments
    ---------
    classifier : callable
        Takes out_neurons.
    n_speakers : int
        Number of speakers.

    Returns
    -------
    torch.nn.Module
        The classifier.

    Raises
    ------
    InputError
        If it cannot be built.
    """
    with _named("classifier", classifier):
        return classifier(out_neurons=n_speakers)


def _check_planned_steps(checkpointer, n_steps):
    """Refuses a checkpoint whose schedule ends elsewhere."""
    checkpoint = checkpointer.find_checkpoint()
    files = {} if checkpoint is None else checkpoint.paramfiles
    for name, file in files.items():
        if not name.endswith("optimizer_lr"):
            continue
        planned = torch.load(file, map_location="cpu").get("total_steps")
        if planned not in (None, n_steps):
            raise InputError(
                f"number_of_steps: {n_steps}, but the checkpoint in "
                f"'{checkpointer.checkpoints_dir}' is of a one-cycle schedule of "
                f"{planned} steps, which cannot be changed on the way; give another "
                "output_folder"
            )
