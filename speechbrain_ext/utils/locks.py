"""A folder that one run at a time writes to."""

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
    path.parent.mkdir(parents=True, exist_ok=True)
    file = open(path, "a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.seek(0)
        holder = file.read().strip() or "another process"
        file.close()
        raise InputError(
            f"output_folder '{folder}' is in use by {holder}; wait until it has "
            "ended, or give another output_folder"
        ) from None
    except OSError as error:
        logger.warning(
            f"'{folder}' cannot be locked ({error.strerror}); make sure that no "
            "other run writes to it"
        )
    file.truncate(0)
    file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    file.flush()
    _held[path] = file
