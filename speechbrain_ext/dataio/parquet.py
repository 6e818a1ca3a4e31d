"""Embedding stores as Parquet: one file, or a folder of them."""

from pathlib import Path

import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.packages import optional_package


def write_parquet(path, store, **metadata):
    """Writes a store as one file of Parquet, atomically.

    Its columns are id, speaker, duration (seconds), embedding (a list of float32)
    and, where the store has them, row_keys.

    Arguments
    ---------
    path : str or Path
        File to write.
    store : EmbeddingStore
        The embeddings.
    **metadata
        Text to keep in the file, beside the fingerprint of the model.

    Raises
    ------
    InputError
        If pyarrow is not installed.

    Example
    -------
    >>> path = getfixture("tmpdir") / "embeddings.parquet"
    >>> write_parquet(path, EmbeddingStore(["a"], torch.ones(1, 2), ["a"], [1.5], "f0"))
    >>> read_parquet(path)[0].by_id()
    {'a': tensor([1., 1.])}
    """
    pyarrow, parquet = load_pyarrow()
    columns = {
        "id": store.ids,
        "speaker": store.speakers,
        "duration": store.durations,
        "embedding": _lists(pyarrow, store.embeddings),
    }
    if store.row_keys is not None:
        columns["row_keys"] = _lists(pyarrow, store.row_keys)
    table = pyarrow.table(columns).replace_schema_metadata(
        {"fingerprint": store.fingerprint, **metadata}
    )
    with atomic_path(path) as partial:
        parquet.write_table(table, partial)


def read_parquet(path):
    """Reads one file of Parquet.

    Arguments
    ---------
    path : str or Path
        File of `write_parquet`, or another one with the columns id and embedding.

    Returns
    -------
    store : EmbeddingStore
        Without a column of speakers each utterance counts as one; durations that are
        not there are NaN, unknown.
    metadata : dict
        What `write_parquet` was given.

    Raises
    ------
    InputError
        If the file has no such columns, or pyarrow is not installed.
    """
    pyarrow, parquet = load_pyarrow()
    try:
        table = parquet.read_table(path, partitioning=None)
        columns = {name: table[name].combine_chunks() for name in table.column_names}
        ids = columns["id"].to_pylist()
        embeddings = _tensor(columns["embedding"]).float()
    except (pyarrow.ArrowException, KeyError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"'{path}' is no Parquet of the columns id and embedding ({error})"
        ) from None
    metadata = {
        name.decode(): value.decode()
        for name, value in (table.schema.metadata or {}).items()
    }
    store = EmbeddingStore(
        ids,
        embeddings,
        columns["speaker"].to_pylist() if "speaker" in columns else list(ids),
        columns["duration"].to_pylist()
        if "duration" in columns
        else [float("nan")] * len(ids),
        metadata.pop("fingerprint", ""),
        _tensor(columns["row_keys"]) if "row_keys" in columns else None,
    )
    return store, metadata


def parquet_files(path):
    """Files of a Parquet file or folder, without what is being written.

    Arguments
    ---------
    path : str or Path
        The file or folder.

    Returns
    -------
    list of Path
        Sorted.

    Example
    -------
    >>> parquet_files(getfixture("tmpdir"))
    []
    """
    path = Path(path)
    return sorted(path.glob("[!.]*.parquet")) if path.is_dir() else [path]


def load_pyarrow():
    """Imports pyarrow.

    Returns
    -------
    tuple of module
        pyarrow and pyarrow.parquet.

    Raises
    ------
    InputError
        If it is not installed.
    """
    return tuple(
        optional_package(name, "Parquet needs", "parquet")
        for name in ("pyarrow", "pyarrow.parquet")
    )


def _lists(pyarrow, rows):
    return pyarrow.FixedSizeListArray.from_arrays(
        rows.contiguous().view(-1).numpy(), rows.shape[1]
    )


def _tensor(column):
    flat = torch.from_numpy(column.flatten().to_numpy(zero_copy_only=False).copy())
    return flat.view(len(column), -1)
