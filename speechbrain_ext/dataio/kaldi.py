"""Embeddings in Kaldi's scp and ark files, read as plain data.

Kaldi's own readers, and kaldiio, run what an scp names as a pipe, and kaldiio
unpickles. Here only vectors of floats are read, and matrices of one row, binary or
as text.
"""

import re
from pathlib import Path

import numpy as np

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import (
    SEPARATORS,
    escaped,
    unescaped,
    write_fields,
)
from speechbrain_ext.utils.files import atomic_path, open_text

BINARY = b"\0B"
NUMBER_TYPES = {b"F": np.dtype("<f4"), b"D": np.dtype("<f8")}
# More is a sign of another format.
MAX_DIM = 2**20
LONGEST_LINE = 32 * MAX_DIM
OFFSET = re.compile(r"(.+):(\d+)", re.DOTALL)


def read_scp(path):
    """Reads the vectors that an scp lists.

    A line is `name file:offset` or `name file`. A relative path is sought from the
    working directory, as Kaldi does, and then from the folder of the scp.

    Arguments
    ---------
    path : str or Path
        The scp.

    Yields
    ------
    name : str
        Utterance id.
    vector : numpy.ndarray
        Embedding, of shape (dim,).

    Raises
    ------
    InputError
        If a line is malformed or a pipe, or a file is missing or of another
        format.
    """
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            line = line.strip(SEPARATORS)
            if not line:
                continue
            place = f"'{path}', line {number}"
            name, source = _scp_fields(line, place)
            match = OFFSET.fullmatch(source)
            file_name, offset = match.groups() if match else (source, 0)
            with open(_find(file_name, path, place), "rb") as file:
                file.seek(int(offset))
                yield name, _read_vector(file, f"{place}: '{file_name}'")


def read_ark(path):
    """Reads all vectors of an ark.

    Arguments
    ---------
    path : str or Path
        The ark.

    Yields
    ------
    name : str
        Utterance id.
    vector : numpy.ndarray
        Embedding, of shape (dim,).

    Raises
    ------
    InputError
        If the file is of another format.
    """
    with open(path, "rb") as file:
        while True:
            name = _read_name(file, path)
            if name is None:
                return
            yield name, _read_vector(file, f"'{path}', '{name}'")


def write_scp(path, vectors):
    """Writes an scp and, beside it, the ark that it lists.

    Arguments
    ---------
    path : str or Path
        The scp; the ark has the same name but for the extension.
    vectors : dict
        Embedding of each utterance id, arrays of shape (dim,), which are written in
        float32.

    Raises
    ------
    InputError
        If an id cannot be written, as it has a space.

    Example
    -------
    >>> path = Path(getfixture("tmpdir")) / "embeddings.scp"
    >>> write_scp(path, {"a": np.ones(2)})
    >>> dict(read_scp(path))
    {'a': array([1., 1.], dtype=float32)}
    """
    require_kaldi_names(vectors)
    path = Path(path)
    ark = path.with_suffix(".ark").absolute()
    lines = []
    with atomic_path(ark) as partial, open(partial, "wb") as file:
        for name, vector in vectors.items():
            file.write(escaped(name).encode() + b" ")
            lines.append((name, f"{ark}:{file.tell()}"))
            data = np.asarray(vector, dtype="<f4")
            size = b"\4" + len(data).to_bytes(4, "little")
            file.write(BINARY + b"FV " + size + data.tobytes())
    write_fields(path, lines)


def require_kaldi_names(names):
    """Checks that ids can be written to Kaldi's files.

    Arguments
    ---------
    names : iterable of str
        Utterance ids.

    Raises
    ------
    InputError
        If one has a space.

    Example
    -------
    >>> require_kaldi_names(["anna/1.wav"])
    """
    for name in names:
        if len(name.split()) != 1:
            raise InputError(
                f"'{name}': names in Kaldi's files have no space; write another format"
            )


def _scp_fields(line, place):
    separator = "\t" if "\t" in line else " "
    name, _, source = line.partition(separator)
    source = source.strip(SEPARATORS)
    if not source:
        raise InputError(f"{place}: a line of an scp is 'name file:offset'")
    if "|" in (source[0], source[-1]):
        raise InputError(
            f"{place}: '{source}' is a command, which is not run; run it, and list "
            "the ark that it makes"
        )
    if source.endswith("]"):
        raise InputError(f"{place}: '{source}': ranges are not read; copy the vectors")
    return unescaped(name), unescaped(source)


def _find(file_name, scp, place):
    for candidate in (Path(file_name), Path(scp).parent / file_name):
        if candidate.is_file():
            return candidate
    raise InputError(
        f"{place}: there is no file '{file_name}', neither in the working directory "
        "nor in the folder of the scp"
    )


def _read_name(file, path):
    """The name before a vector; None at the end of the file."""
    name = bytearray()
    while True:
        byte = file.read(1)
        if not byte:
            if name.strip():
                raise InputError(f"'{path}' is no ark of Kaldi's, or cut off")
            return None
        if byte in b" \t" and name.strip():
            break
        name += byte
    try:
        return unescaped(name.decode("utf-8").strip(SEPARATORS))
    except UnicodeDecodeError:
        raise InputError(
            f"'{path}' is no ark of Kaldi's: a name in it is not UTF-8"
        ) from None


def _read_vector(file, place):
    start = file.tell()
    if file.read(len(BINARY)) == BINARY:
        return _read_binary(file, place)
    file.seek(start)
    return _read_text(file, place)


def _read_binary(file, place):
    kind = file.read(3)
    number_type, n_axes = NUMBER_TYPES.get(kind[:1]), {b"V ": 1, b"M ": 2}.get(kind[1:])
    if number_type is None or n_axes is None:
        raise InputError(
            f"{place} has the type {kind!r}, not a vector of floats; copy it by "
            "Kaldi's copy-vector"
        )
    shape = [_read_size(file, place) for _ in range(n_axes)]
    if shape[:-1] not in ([], [1]) or not 0 < shape[-1] <= MAX_DIM:
        raise InputError(
            f"{place} has the shape {tuple(shape)}; an embedding is a vector, or a "
            "matrix of one row"
        )
    data = file.read(shape[-1] * number_type.itemsize)
    if len(data) < shape[-1] * number_type.itemsize:
        raise InputError(f"{place} is cut off; write it again")
    return np.frombuffer(data, number_type).copy()


def _read_size(file, place):
    data = file.read(5)
    if len(data) < 5 or data[0] != 4:
        raise InputError(f"{place} is no vector of Kaldi's, or cut off")
    return int.from_bytes(data[1:], "little", signed=True)


def _read_text(file, place):
    """A vector, or a matrix of one row, between brackets."""
    text = b""
    while b"]" not in text:
        line = file.readline(LONGEST_LINE)
        text += line
        if not line or text.lstrip()[:1] not in (b"", b"["):
            raise InputError(f"{place} is no vector of Kaldi's, binary or text")
    rows = [row.split() for row in text.strip(b" []\r\n").splitlines()]
    if len(rows) != 1:
        raise InputError(f"{place} has {len(rows)} rows; an embedding has one")
    try:
        return np.array([float(number) for number in rows[0]])
    except ValueError:
        raise InputError(f"{place} has what is no number") from None
