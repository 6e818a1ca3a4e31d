"""What a cached file was made from, kept beside it."""

import hashlib
import json
import os
from pathlib import Path

from speechbrain.utils.logger import get_logger

from speechbrain_ext.utils.files import atomic_path

logger = get_logger(__name__)


def stable_hash(content):
    """Hash of plain data, the same in every process and on every machine.

    Arguments
    ---------
    content : dict, list, str, int, float, bool, Path or None
        Plain data, nested at will; the order of keys does not count.

    Returns
    -------
    str
        64 hexadecimal digits.

    Example
    -------
    >>> stable_hash({"a": 1, "b": [2]}) == stable_hash({"b": (2,), "a": 1})
    True
    """
    text = json.dumps(content, sort_keys=True, default=os.fspath)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def file_key(path):
    """What tells that a file is still the same, without reading it.

    Arguments
    ---------
    path : str or Path
        The file.

    Returns
    -------
    dict
        Its absolute path, size (bytes) and time of change (nanoseconds); size
        and time are None where there is no such file.

    Example
    -------
    >>> path = getfixture("tmpdir") / "a.wav"
    >>> path.write_text("12345", "utf-8")
    >>> file_key(path)["size"]
    5
    """
    try:
        status = os.stat(path)
    except FileNotFoundError:
        size = time = None
    else:
        size, time = status.st_size, status.st_mtime_ns
    return {"file": os.path.abspath(path), "size": size, "time": time}


def differences(kept, wanted):
    """Names what differs between two keys.

    Arguments
    ---------
    kept : dict
        What a file was made from: plain data, nested at will.
    wanted : dict
        What it should be made from.

    Returns
    -------
    list of str
        One phrase for each part that differs.

    Example
    -------
    >>> differences({"n_rooms": 20, "seed": 1}, {"n_rooms": 50, "seed": 1})
    ['n_rooms (20, not 50)']
    """
    return _differences(kept, json.loads(_as_json(wanted)), "")


def _as_json(key):
    return json.dumps(key, indent=2, default=os.fspath)


def _differences(kept, wanted, prefix):
    found = []
    for name in sorted({*kept, *wanted}):
        before, now = kept.get(name), wanted.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            found += _differences(before, now, f"{prefix}{name}.")
        elif before != now:
            found.append(f"{prefix}{name} ({_short(before)}, not {_short(now)})")
    return found


def _short(value):
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:12]}..."


def key_file(path):
    """Where the key of a cached file or folder is kept.

    Arguments
    ---------
    path : str or Path
        The file or folder.

    Returns
    -------
    Path
        Beside it.

    Example
    -------
    >>> str(key_file("save/rooms.csv"))
    'save/rooms.csv.key.json'
    """
    path = Path(path)
    return path.with_name(f"{path.name}.key.json")


def stale_parts(path, key):
    """Says why a cached file cannot be used.

    Arguments
    ---------
    path : str or Path
        The file or folder.
    key : dict
        All that it depends on, plain data.

    Returns
    -------
    list of str or None
        What differs, empty if the file is current; None if there is no file.

    Example
    -------
    >>> path = getfixture("tmpdir") / "squares.txt"
    >>> stale_parts(path, {"n": 2}) is None
    True
    >>> make_once(path, {"n": 2}, lambda: path.write_text("0 1", "utf-8"))
    >>> stale_parts(path, {"n": 2}), stale_parts(path, {"n": 3})
    ([], ['n (2, not 3)'])
    """
    if not Path(path).exists():
        return None
    try:
        kept = json.loads(key_file(path).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return ["origin (unknown)"]
    return differences(kept, key)


def make_once(path, key, make):
    """Makes a cached file, unless it is there and was made from the same.

    A stale file is made again, and the log says why. The key is written after
    the file, so that a kill leaves nothing that looks complete.

    Arguments
    ---------
    path : str or Path
        The file or folder that `make` writes.
    key : dict
        All that it depends on, plain data.
    make : callable
        Without arguments; writes the file.

    Example
    -------
    >>> path = getfixture("tmpdir") / "squares.txt"
    >>> make_once(path, {"n": 2}, lambda: path.write_text("0 1", "utf-8"))
    >>> make_once(path, {"n": 2}, lambda: path.write_text("again", "utf-8"))
    >>> path.read_text("utf-8")
    '0 1'
    """
    stale = stale_parts(path, key)
    if stale == []:
        return
    if stale:
        logger.warning(f"'{path}' is of other {', '.join(stale)}: remade.")
    key_file(path).unlink(missing_ok=True)
    make()
    with atomic_path(key_file(path)) as partial:
        partial.write_text(_as_json(key), encoding="utf-8")
