"""Files that are complete or not there at all."""

import codecs
import contextlib
import glob
import json
import os
import socket
from pathlib import Path

from speechbrain_ext.utils.errors import InputError


def require_writable(path):
    """Says, before long work, where a file cannot be written.

    Arguments
    ---------
    path : str or Path
        The file; its folder need not be there.

    Raises
    ------
    InputError
        If there is a folder of its name, or a file of its folder's name, or the
        folder cannot be written to.

    Example
    -------
    >>> require_writable(getfixture("tmpdir"))
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: '...' is a folder; give a file
    """
    path = Path(path)
    if path.is_dir():
        raise InputError(f"'{path}' is a folder; give a file")
    folder = next(above for above in path.absolute().parents if above.exists())
    if not folder.is_dir():
        raise InputError(f"'{folder}' is a file; '{path}' needs a folder in its place")
    if not os.access(folder, os.W_OK):
        raise InputError(f"'{folder}' cannot be written to; write elsewhere")


@contextlib.contextmanager
def atomic_path(path):
    """Gives a temporary path that becomes `path` when the block succeeds.

    What a killed process left of the same file is deleted.

    Arguments
    ---------
    path : str or Path
        The file to write; its folder is created.

    Yields
    ------
    Path
        Where to write, in the same folder and with the same extension.

    Raises
    ------
    InputError
        See `require_writable`.

    Example
    -------
    >>> target = getfixture("tmpdir") / "scores.txt"
    >>> with atomic_path(target) as partial:
    ...     _ = partial.write_text("0.5")
    >>> target.read_text("utf-8")
    '0.5'
    """
    path = Path(path)
    require_writable(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    host = f".partial-{socket.gethostname()}-"
    for left in path.parent.glob(f"{glob.escape(host)}*-{glob.escape(path.name)}"):
        process = left.name.removeprefix(host).partition("-")[0]
        if process.isdecimal() and not _is_running(int(process)):
            left.unlink(missing_ok=True)
    partial = path.with_name(f"{host}{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _is_running(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        # It belongs to someone else.
        return True
    return True


def write_json(path, content):
    """Writes JSON atomically, indented.

    Arguments
    ---------
    path : str or Path
        The file to write.
    content : dict
        What to write.

    Example
    -------
    >>> target = getfixture("tmpdir") / "metrics.json"
    >>> write_json(target, {"EER": 0.05})
    >>> json.loads(target.read_text("utf-8"))
    {'EER': 0.05}
    """
    with atomic_path(path) as partial:
        partial.write_text(
            json.dumps(content, indent=2, ensure_ascii=False) + "\n",
            encoding="utf-8",
        )


def read_json(path):
    """Reads what `write_json` has written.

    Arguments
    ---------
    path : str or Path
        The file, which must be there.

    Returns
    -------
    dict or list
        Its content.

    Raises
    ------
    InputError
        If it is no JSON, as where the machine crashed while it was written.

    Example
    -------
    >>> target = getfixture("tmpdir") / "metrics.json"
    >>> write_json(target, {"EER": 0.05})
    >>> read_json(target)
    {'EER': 0.05}
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(
            f"'{path}' is no JSON ({error}); delete it, and it is made again"
        ) from None


def write_lines(path, lines):
    """Writes lines of text atomically.

    Arguments
    ---------
    path : str or Path
        The file to write.
    lines : iterable of str
        What to write.

    Example
    -------
    >>> target = getfixture("tmpdir") / "dev.lst"
    >>> write_lines(target, ["id00001", "id00002"])
    >>> target.read_text("utf-8")
    'id00001\\nid00002\\n'
    """
    with atomic_path(path) as partial:
        with open(partial, "w", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)


@contextlib.contextmanager
def open_text(path, newline=None):
    """Opens a file for reading that ought to be UTF-8 text.

    Arguments
    ---------
    path : str or Path
        The file; a byte-order mark at its start is left out.
    newline : str
        See `open`.

    Yields
    ------
    file
        The open file.

    Raises
    ------
    InputError
        If what is read is not UTF-8.

    Example
    -------
    >>> path = getfixture("tmpdir") / "trials.txt"
    >>> path.write_binary("1 a b".encode("utf-16"))
    >>> with open_text(path) as lines:
    ...     list(lines)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: ... is UTF-16 and not UTF-8 text; ...
    """
    try:
        with open(path, newline=newline, encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError:
        with open(path, "rb") as file:
            is_utf16 = file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
        raise InputError(
            f"'{path}' is UTF-16 and not UTF-8 text; save it as UTF-8"
            if is_utf16
            else f"'{path}' is a binary file or not UTF-8; a text file is needed"
        ) from None
