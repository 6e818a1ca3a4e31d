"""Files that are complete or not there at all."""

import contextlib
import json
import os
from pathlib import Path


@contextlib.contextmanager
def atomic_path(path):
    """Gives a temporary path that becomes `path` when the block succeeds.

    Arguments
    ---------
    path : str or Path
        The file to write; its folder is created.

    Yields
    ------
    Path
        Where to write, in the same folder and with the same extension.

    Example
    -------
    >>> target = getfixture("tmpdir") / "scores.txt"
    >>> with atomic_path(target) as partial:
    ...     _ = partial.write_text("0.5")
    >>> target.read_text("utf-8")
    '0.5'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".partial-{os.getpid()}-{path.name}")
    try:
        yield partial
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


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
