"""Checkpoints that survive a kill, and their choice by a metric."""

import json
import os
import time
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    METAFNAME,
    Checkpointer,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import if_main_process

from speechbrain_ext.utils.errors import InputError


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, safe against a kill while it writes.

    A folder counts as a checkpoint when its CKPT.yaml is there. SpeechBrain
    writes that file first and deletes it in any order; here it appears last
    and goes first, so a half-written or half-deleted checkpoint is no
    checkpoint.

    Example
    -------
    >>> import torch
    >>> tmpdir = getfixture("tmpdir")
    >>> model = torch.nn.Linear(1, 1)
    >>> checkpointer = AtomicCheckpointer(tmpdir, {"model": model})
    >>> _ = checkpointer.save_checkpoint(meta={"EER": 0.1})
    >>> checkpointer.find_checkpoint(min_key="EER").meta["EER"]
    0.1
    """

    def _save_checkpoint_metafile(self, fpath, *args, **kwargs):
        return super()._save_checkpoint_metafile(
            fpath.with_name(f".{METAFNAME}"), *args, **kwargs
        )

    def save_checkpoint(self, *args, **kwargs):
        """As in SpeechBrain; the checkpoint appears when it is complete."""
        checkpoint = super().save_checkpoint(*args, **kwargs)
        if if_main_process():
            folder = checkpoint.path
            os.replace(folder / f".{METAFNAME}", folder / METAFNAME)
        return checkpoint

    @staticmethod
    def _delete_checkpoint(checkpoint, *args, **kwargs):
        (checkpoint.path / METAFNAME).unlink(missing_ok=True)
        Checkpointer._delete_checkpoint(checkpoint, *args, **kwargs)


def check_architecture(checkpointer):
    """Checks that a training can go on from its latest checkpoint.

    Called before anything is written, so that the YAML of a training in the
    same folder stays what it was.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
        Of the training, with its modules.

    Raises
    ------
    InputError
        If the checkpoint has other parameters than the modules.

    Example
    -------
    >>> folder = getfixture("tmpdir")
    >>> before = AtomicCheckpointer(folder, {"model": torch.nn.Linear(1, 1)})
    >>> _ = before.save_checkpoint()
    >>> check_architecture(
    ...     AtomicCheckpointer(folder, {"model": torch.nn.Linear(2, 1)})
    ... )
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: the checkpoint in ...
    """
    checkpoint = checkpointer.find_checkpoint()
    if checkpoint is None:
        return
    for name, file in checkpoint.paramfiles.items():
        module = checkpointer.recoverables.get(name)
        if not isinstance(module, torch.nn.Module):
            continue
        saved = torch.load(file, map_location="cpu", weights_only=True)
        if {k: v.shape for k, v in saved.items()} != {
            k: v.shape for k, v in module.state_dict().items()
        }:
            raise other_architecture(checkpointer.checkpoints_dir, name)


def other_architecture(checkpoints_dir, detail):
    """The error of a folder that holds another system's training.

    Arguments
    ---------
    checkpoints_dir : str or Path
        Folder of its checkpoints.
    detail : str
        What differs.

    Returns
    -------
    InputError
        To be raised.

    Example
    -------
    >>> print(other_architecture("save", "embedding_model"))
    the checkpoint in 'save' is of another architecture (embedding_model); ...
    """
    return InputError(
        f"the checkpoint in '{checkpoints_dir}' is of another architecture "
        f"({detail}); give another output_folder, or the YAML it was trained with"
    )


@register_checkpoint_hooks
class TrainingClock:
    """Hours of training over all restarts.

    Example
    -------
    >>> clock = TrainingClock()
    >>> clock.seconds() < 10
    True
    """

    def __init__(self):
        self._before = 0.0
        self._start = time.monotonic()

    def seconds(self):
        """Returns the seconds of training so far."""
        return self._before + time.monotonic() - self._start

    @mark_as_saver
    def _save(self, path):
        path.write_text(f"{self.seconds()}\n", encoding="utf-8")

    @mark_as_loader
    def _load(self, path, end_of_epoch):
        del end_of_epoch
        self._before = float(path.read_text(encoding="utf-8"))
        self._start = time.monotonic()


def start_from_training(modules, output_folder, speakers):
    """Loads the best parameters of another training.

    Arguments
    ---------
    modules : dict
        The modules by name: encoder, embedding_model, classifier. A frozen
        encoder, which no checkpoint holds, stays as it is.
    output_folder : str or Path
        Of the other training.
    speakers : list of str
        The classes of this training; the other one's classifier is cut down
        to them, so that the copies of speakers at other speeds can go.

    Raises
    ------
    InputError
        If the other training has no checkpoint, is of another architecture,
        or lacks some of the speakers.
    """
    folder = Path(output_folder)
    checkpoint = best_checkpoint(folder / "save")
    before = json.loads((folder / "save" / "speakers.json").read_text("utf-8"))
    missing = sorted(set(speakers) - set(before))
    if missing:
        raise InputError(
            f"start_from: '{output_folder}' was not trained on "
            f"{len(missing)} of the speakers: {', '.join(missing[:5])}"
        )
    kept = torch.tensor([before.index(speaker) for speaker in speakers])
    for name, module in modules.items():
        file = checkpoint.path / f"{name}.ckpt"
        if not file.is_file():
            continue
        state = torch.load(file, map_location="cpu", weights_only=True)
        if name == "classifier":
            state = {
                key: _select_classes(value, len(before), kept)
                for key, value in state.items()
            }
        load_parameters(module, state, f"start_from: {name} in '{output_folder}'")


def load_parameters(module, state, source):
    """Loads parameters, or says in one line that they do not fit.

    Arguments
    ---------
    module : torch.nn.Module
        Gets them.
    state : dict
        As of `state_dict`.
    source : str
        Where they are from, for the message.

    Raises
    ------
    InputError
        If names or shapes differ.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1)
    >>> load_parameters(layer, torch.nn.Linear(2, 1).state_dict(), "a.ckpt")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: a.ckpt is of another architecture...
    """
    try:
        module.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"{source} is of another architecture: "
            + str(error).splitlines()[1].strip()
        ) from None


def _select_classes(weight, n_classes, kept):
    """Of the dimension that counts the classes, those that are kept."""
    for dim, size in enumerate(weight.shape):
        if size == n_classes:
            return weight.index_select(dim, kept)
    return weight


def best_checkpoint(folder, min_key="EER"):
    """Finds the best checkpoint of a training.

    Arguments
    ---------
    folder : str or Path
        Folder of the checkpoints.
    min_key : str
        The metric whose lowest value is best.

    Returns
    -------
    speechbrain.utils.checkpoints.Checkpoint
        With its path, meta and parameter files.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> best_checkpoint(getfixture("tmpdir"))
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: no checkpoint with EER in ...
    """
    return best_checkpoints(folder, 1, min_key)[0]


def best_checkpoints(folder, n_checkpoints, min_key="EER"):
    """Finds the best checkpoints of a training.

    Arguments
    ---------
    folder : str or Path
        Folder of the checkpoints.
    n_checkpoints : int
        At most so many.
    min_key : str
        The metric whose lowest values are best.

    Returns
    -------
    list of speechbrain.utils.checkpoints.Checkpoint
        The best one first.

    Raises
    ------
    InputError
        If there is none.
    """
    checkpoints = []
    if os.path.isdir(folder):
        checkpoints = Checkpointer(folder).find_checkpoints(
            min_key=min_key, max_num_checkpoints=n_checkpoints
        )
    if not checkpoints:
        raise InputError(
            f"no checkpoint with {min_key} in '{folder}'; train the model "
            "first, or give the output_folder of a training"
        )
    return checkpoints
