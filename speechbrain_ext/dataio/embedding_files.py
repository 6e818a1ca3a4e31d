"""Embeddings as files of other tools: CSV, Kaldi's scp and ark, Parquet."""

from pathlib import Path

from speechbrain_ext.dataio.kaldi import require_kaldi_names, write_scp
from speechbrain_ext.dataio.parquet import load_pyarrow, write_parquet
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import write_csv
from speechbrain_ext.utils.files import require_writable

EXTENSIONS = (".safetensors", ".csv", ".scp", ".parquet")


def check_can_write(path, ids=()):
    """Says, before long work, where embeddings cannot be written to a file.

    Arguments
    ---------
    path : str or Path
        See `write_embeddings`.
    ids : iterable of str
        Their ids, where these are known.

    Raises
    ------
    InputError
        If the format is unknown or takes a package that is not installed, or see
        `require_writable`.

    Example
    -------
    >>> check_can_write("embeddings.csv")
    """
    extension = Path(path).suffix.lower()
    if extension not in EXTENSIONS:
        raise InputError(f"'{path}': embeddings are written as {', '.join(EXTENSIONS)}")
    require_writable(path)
    if extension == ".parquet":
        load_pyarrow()
    if extension == ".scp":
        require_kaldi_names(ids)


def write_embeddings(path, store):
    """Writes an embedding store in the format that the file's name says.

    Arguments
    ---------
    path : str or Path
        .safetensors; .csv and .parquet with the columns id, speaker, duration
        (seconds) and e0, e1, ..., in Parquet as of `write_parquet`; or .scp, beside
        which an .ark is written.
    store : EmbeddingStore
        The embeddings.

    Raises
    ------
    InputError
        See `check_can_write`.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.dataio.embedding_store import EmbeddingStore
    >>> path = getfixture("tmpdir") / "embeddings.csv"
    >>> write_embeddings(path, EmbeddingStore(["a"], torch.ones(1, 2), ["a"], [1], ""))
    >>> print(path.read_text("utf-8"), end="")
    id,speaker,duration,e0,e1
    a,a,1,1.0,1.0
    """
    check_can_write(path)
    extension = Path(path).suffix.lower()
    if extension == ".safetensors":
        store.save(path)
    elif extension == ".scp":
        write_scp(path, dict(zip(store.ids, store.embeddings.numpy())))
    elif extension == ".csv":
        columns = [f"e{i}" for i in range(store.embeddings.shape[1])]
        write_csv(
            path,
            ("id", "speaker", "duration", *columns),
            (
                (name, speaker, duration, *row)
                for name, speaker, duration, row in zip(
                    store.ids, store.speakers, store.durations,
                    store.embeddings.tolist(),
                )
            ),
        )  # fmt: skip
    else:
        write_parquet(path, store)
