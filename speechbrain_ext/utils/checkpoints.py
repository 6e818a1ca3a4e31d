"""Checkpoints that survive a kill, and their choice by a metric."""

import logging
import os
import shutil
import time
import zipfile
from pathlib import Path

import torch
from speechbrain.utils.checkpoints import (
    CKPT_PREFIX,
    METAFNAME,
    Checkpointer,
    ckpt_recency,
    mark_as_loader,
    mark_as_saver,
    register_checkpoint_hooks,
)
from speechbrain.utils.distributed import ddp_barrier, if_main_process
from speechbrain.utils.logger import get_logger
from yaml import YAMLError

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import read_json

logger = get_logger(__name__)


class AtomicCheckpointer(Checkpointer):
    """SpeechBrain's Checkpointer, safe against a kill or a full disk.

    A folder counts as a checkpoint when its CKPT.yaml is there. SpeechBrain
    writes that file first and deletes it in any order; here it appears last
    and goes first, so a half-written or half-deleted checkpoint is no
    checkpoint. The next training in the folder removes it.

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
        """As in SpeechBrain; the checkpoint appears when it is complete.

        Raises
        ------
        InputError
            If it cannot be written; those before are left as they are.
        """
        try:
            checkpoint = super().save_checkpoint(*args, **kwargs)
            if if_main_process():
                folder = checkpoint.path
                os.replace(folder / f".{METAFNAME}", folder / METAFNAME)
        except (OSError, RuntimeError) as error:
            if not _cannot_write(error):
                raise
            self.remove_incomplete()
            raise InputError(
                f"a checkpoint cannot be written to '{self.checkpoints_dir}', "
                f"where {shutil.disk_usage(self.checkpoints_dir).free / 2**20:.0f}"
                " MiB are free; those before are kept. Make room and give the "
                "same command again, and the training goes on from the latest"
            ) from error
        return checkpoint

    def recover_if_possible(self, *args, **kwargs):
        """As in SpeechBrain, after half checkpoints are removed."""
        self.remove_incomplete()
        return super().recover_if_possible(*args, **kwargs)

    def load_checkpoint(self, checkpoint):
        """As in SpeechBrain; what it lacks is named.

        Arguments
        ---------
        checkpoint : speechbrain.utils.checkpoints.Checkpoint
            Checkpoint to load.

        Raises
        ------
        InputError
            If it has no file of something that is to be loaded.
        """
        for name in self.recoverables:
            require_file(checkpoint, name)
        super().load_checkpoint(checkpoint)

    @staticmethod
    def _construct_checkpoint_objects(checkpoint_dirs):
        # Whoever looks for a checkpoint meets what a crash of the machine or a copy
        # that broke off has left, before anything is built on it.
        checkpoints = []
        for folder in checkpoint_dirs:
            for file in folder.glob("*.ckpt"):
                if _is_cut_short(file):
                    raise _damaged(file)
            try:
                checkpoints += Checkpointer._construct_checkpoint_objects([folder])
            except YAMLError:
                raise _damaged(folder / METAFNAME) from None
            if not isinstance(checkpoints[-1].meta, dict):
                raise _damaged(folder / METAFNAME)
        return checkpoints

    def remove_incomplete(self):
        """Removes what a kill has left of a checkpoint."""
        if if_main_process():
            for folder in self.checkpoints_dir.glob(f"{CKPT_PREFIX}*"):
                if folder.is_dir() and not (folder / METAFNAME).is_file():
                    shutil.rmtree(folder)

    def save_and_keep_only(self, *args, num_to_keep=1, **kwargs):
        """As in SpeechBrain, but at least one checkpoint is kept.

        Raises
        ------
        InputError
            If none should be kept; nothing is saved or deleted then.
        """
        if num_to_keep < 1:
            raise InputError(
                f"keep_checkpoints: {num_to_keep} would delete the training; "
                "keep 1 or more"
            )
        super().save_and_keep_only(*args, num_to_keep=num_to_keep, **kwargs)

    def delete_checkpoints(
        self,
        *,
        num_to_keep=1,
        min_keys=None,
        max_keys=None,
        importance_keys=(ckpt_recency,),
        ckpt_predicate=None,
        verbosity=logging.INFO,
    ):
        """As in SpeechBrain; what a kill leaves of one is no checkpoint."""
        orders = [
            *({"min_key": key} for key in min_keys or ()),
            *({"max_key": key} for key in max_keys or ()),
            *({"importance_key": key} for key in importance_keys),
        ]
        deletable, kept = set(), set()
        for order in orders:
            # The best of the order come first.
            found = self.find_checkpoints(**order, ckpt_predicate=ckpt_predicate)
            deletable.update(found)
            kept.update(found[:num_to_keep])
        ddp_barrier()
        if if_main_process():
            for checkpoint in deletable - kept:
                (checkpoint.path / METAFNAME).unlink()
                shutil.rmtree(checkpoint.path)
                logger.log(verbosity, f"Deleted checkpoint in {checkpoint.path}")
        ddp_barrier()


def _is_cut_short(file):
    """Whether a file is empty, or an archive of PyTorch's without its end."""
    with open(file, "rb") as content:
        start = content.read(2)
    return not start or start == b"PK" and not zipfile.is_zipfile(file)


def _damaged(file):
    return InputError(
        f"'{file}' is cut short; delete the folder '{file.parent}', and the checkpoint "
        "before it is used"
    )


def require_file(checkpoint, name):
    """Checks that a checkpoint has something.

    Arguments
    ---------
    checkpoint : speechbrain.utils.checkpoints.Checkpoint
        The checkpoint.
    name : str
        What it must have, such as embedding_model.

    Raises
    ------
    InputError
        If it has not.

    Example
    -------
    >>> checkpointer = AtomicCheckpointer(
    ...     getfixture("tmpdir"), {"model": torch.nn.Linear(1, 1)}
    ... )
    >>> require_file(checkpointer.save_checkpoint(), "model")
    """
    if name not in checkpoint.paramfiles:
        raise InputError(
            f"'{checkpoint.path}' has no {name}.ckpt: it is of another architecture, "
            "or incomplete; give the YAML it was trained with, or delete this folder, "
            "and the checkpoint before it is used"
        )


def _cannot_write(error):
    """Whether an error is of the disk; PyTorch's are RuntimeErrors."""
    return isinstance(error, OSError) or any(
        name in str(error) for name in ("inline_container", "PytorchStreamWriter")
    )


def check_architecture(checkpointer, names=None):
    """Checks that a training can go on from its latest checkpoint.

    Called before anything is written, so that the YAML of a training in the
    same folder stays what it was.

    Arguments
    ---------
    checkpointer : speechbrain.utils.checkpoints.Checkpointer
        Checkpointer of the training, with its modules.
    names : list of str
        Modules to check; all that the checkpointer has, if None.

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
        if not isinstance(module, torch.nn.Module) or name not in (names or [name]):
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
        The error to raise.

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
    """Seconds of training over all restarts, from when the clock was built or started.

    Example
    -------
    >>> clock = TrainingClock()
    >>> clock.seconds() < 10
    True
    """

    def __init__(self):
        self._before = 0.0
        self._start = time.monotonic()

    def start(self):
        """Counts from now on, on top of what a checkpoint says."""
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


def load_start(modules, output_folder):
    """Loads the best parameters of another training, but for its classifier.

    Arguments
    ---------
    modules : dict
        The modules by name, such as encoder and embedding_model. A frozen encoder,
        which no checkpoint holds, stays as it is.
    output_folder : str or Path
        Output folder of the other training.

    Raises
    ------
    InputError
        If the other training has no checkpoint, or is of another architecture.
    """
    for name, module in modules.items():
        state = _best_state(output_folder, name)
        if name != "classifier" and state is not None:
            load_parameters(module, state, f"start_from: {name} in '{output_folder}'")


def start_classifier(classifier, output_folder, speakers):
    """Loads the classifier of another training, cut down to the speakers of this one.

    So the copies of speakers at other speeds can go.

    Arguments
    ---------
    classifier : torch.nn.Module
        Gets the parameters.
    output_folder : str or Path
        Output folder of the other training.
    speakers : list of str
        The classes of this training.

    Raises
    ------
    InputError
        If the other training has no checkpoint, is of another architecture,
        or lacks some of the speakers.
    """
    before = read_json(Path(output_folder) / "save" / "speakers.json")
    missing = sorted(set(speakers) - set(before))
    if missing:
        raise InputError(
            f"start_from: '{output_folder}' was not trained on "
            f"{len(missing)} of the speakers: {', '.join(missing[:5])}"
        )
    kept = torch.tensor([before.index(speaker) for speaker in speakers])
    state = _best_state(output_folder, "classifier")
    if state is None:
        return
    state = {
        key: _select_classes(value, len(before), kept) for key, value in state.items()
    }
    load_parameters(classifier, state, f"start_from: classifier in '{output_folder}'")


def _best_state(output_folder, name):
    """Parameters of a module in the best checkpoint, None where it has none."""
    file = best_checkpoint(Path(output_folder) / "save").path / f"{name}.ckpt"
    if not file.is_file():
        return None
    return torch.load(file, map_location="cpu", weights_only=True)


def load_parameters(module, state, source):
    """Loads parameters, or says in one line that they do not fit.

    Arguments
    ---------
    module : torch.nn.Module
        Gets them.
    state : dict
        What `state_dict` returned.
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
        The checkpoint, with its path, meta and parameter files.

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
        Most checkpoints to return.
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
        checkpoints = AtomicCheckpointer(folder).find_checkpoints(
            min_key=min_key, max_num_checkpoints=n_checkpoints
        )
    if not checkpoints:
        raise InputError(
            f"no checkpoint with {min_key} in '{folder}'; train the model "
            "first, or give the output_folder of a training"
        )
    return checkpoints
