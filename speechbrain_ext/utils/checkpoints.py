"""Checkpoints that survive a kill, and their choice by a metric."""

import os
import time

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
    checkpoint = None
    if os.path.isdir(folder):
        checkpoint = Checkpointer(folder).find_checkpoint(min_key=min_key)
    if checkpoint is None:
        raise InputError(
            f"no checkpoint with {min_key} in '{folder}'; train the model "
            "first, or give the output_folder of a training"
        )
    return checkpoint
