"""Folders that one run at a time writes to."""

import contextlib
import fcntl
import os
import socket
from pathlib import Path

from speechbrain.utils.logger import get_logger

from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)

# Files of this process's locks, which end when the files are closed.
_held = {}


def hold_folder(folder):
    """Keeps other runs out of a folder until this process ends.

    The lock is the operating system's: whatever way the process ends, the
    folder is free again. Processes that this one starts do not hold it.

    Arguments
    ---------
    folder : str or Path
        The folder, which is created; `.lock` in it is what is locked.

    Raises
    ------
    InputError
        If another process holds the folder.

    Example
    -------
    >>> hold_folder(getfixture("tmpdir"))
    """
    path = (Path(folder) / ".lock").resolve()
    if path in _held:
        return
    file = _open(path)
    if not _lock(file):
        holder = _holder(file)
        file.close()
        raise InputError(
            f"'{folder}' is in use by {holder}; wait until it has ended, or give "
            "another folder"
        )
    _held[path] = file


@contextlib.contextmanager
def in_turn(folder):
    """Waits until no other process is in such a block of the same folder.

    Arguments
    ---------
    folder : str or Path
        The folder, which is created; `.lock` in it is what is locked.

    Example
    -------
    >>> with in_turn(getfixture("tmpdir")):
    ...     only = "this process writes"
    """
    with _open(Path(folder) / ".lock") as file:
        if not _lock(file):
            logger.info(f"Waits for {_holder(file)}, which writes to '{folder}'.")
            _lock(file, waits=True)
        yield


def _open(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    return open(path, "a+", encoding="utf-8")


def _lock(file, waits=False):
    """Locks a file and notes by whom, unless another process has; says whether."""
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        logger.warning(
            f"'{file.name}' cannot be locked ({error.strerror}); make sure that no "
            "other run writes to its folder"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    return True


def _holder(file):
    file.seek(0)
    return file.read().strip() or "another process"
