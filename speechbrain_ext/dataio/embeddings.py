"""Embeddings of any toolkit as an embedding store."""

import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.kaldi import read_ark, read_scp
from speechbrain_ext.dataio.parquet import parquet_files, read_parquet
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import find_same_names, read_fields


def read_embeddings(path, utt2spk=None):
    """Reads an embedding store, Parquet, NumPy's npz, or Kaldi's scp or ark.

    Nothing in the file is run: pipes in an scp and pickled objects are refused.

    Arguments
    ---------
    path : str or Path
        A .safetensors file of `EmbeddingStore`; a .parquet file or folder, as of
        `write_parquet`; an .npz with an array for each utterance id; or Kaldi's .scp
        or .ark.
    utt2spk : str or Path
        Kaldi's `utterance speaker` lines, for all but .safetensors; without it
        each utterance of a file that has no speakers counts as one.

    Returns
    -------
    EmbeddingStore
        Durations are NaN, unknown, where the file has none.

    Raises
    ------
    InputError
        If the file is missing or of another format, or speakers are missing.

    Example
    -------
    >>> path = getfixture("tmpdir") / "embeddings.npz"
    >>> np.savez(path, **{"a/1": np.ones((1, 2)), "b/1": np.ones(2)})
    >>> read_embeddings(path).embeddings.shape
    torch.Size([2, 2])
    """
    path = Path(path)
    if not path.is_file() and not (path.is_dir() and path.suffix == ".parquet"):
        raise InputError(f"there is no embedding file '{path}'")
    if path.suffix == ".safetensors":
        if utt2spk is not None:
            raise InputError(
                f"'{path}' has its own speakers; utt2spk goes with other files"
            )
        store = EmbeddingStore.load(path)
        shape = store.embeddings.shape
        if len(shape) < 2 or shape[:-1].numel() != len(store.ids):
            raise InputError(
                f"'{path}' has {len(store.ids)} utterances and embeddings of the shape "
                f"{tuple(shape)}; one embedding is a vector"
            )
        store.embeddings = store.embeddings.reshape(len(store.ids), shape[-1])
        return store
    if path.suffix == ".parquet":
        store = _read_parquet(path)
        if utt2spk is not None:
            store.speakers = _speakers(utt2spk, store.ids)
        return store
    if path.suffix not in READERS:
        raise InputError(
            f"'{path}': embeddings are read from .safetensors, .parquet, "
            + ", ".join(READERS)
        )
    rows = {}
    for name, vector in READERS[path.suffix](path):
        if name in rows:
            raise InputError(f"'{path}' has two embeddings of '{name}'; keep one")
        rows[name] = vector
    if not rows:
        raise InputError(f"'{path}' has no embeddings")
    return EmbeddingStore(
        list(rows),
        _rows(rows.values(), rows, path),
        _speakers(utt2spk, rows) if utt2spk else list(rows),
        [float("nan")] * len(rows),
        "",
    )


def _read_parquet(path):
    stores = [read_parquet(file)[0] for file in parquet_files(path)]
    ids = [name for store in stores for name in store.ids]
    if not ids:
        raise InputError(f"'{path}' has no embeddings")
    if len(set(ids)) < len(ids):
        name = next(name for name, count in Counter(ids).items() if count > 1)
        raise InputError(f"'{path}' has two embeddings of '{name}'; keep one")
    dimensions = sorted({store.embeddings.shape[1] for store in stores})
    if len(dimensions) > 1:
        raise InputError(
            f"'{path}' has embeddings of different dimensions: "
            + ", ".join(map(str, dimensions))
        )
    fingerprints = {store.fingerprint for store in stores}
    return EmbeddingStore(
        ids,
        torch.cat([store.embeddings for store in stores]),
        [speaker for store in stores for speaker in store.speakers],
        [duration for store in stores for duration in store.durations],
        fingerprints.pop() if len(fingerprints) == 1 else "",
    )


def _read_npz(path):
    try:
        with np.load(path, allow_pickle=False) as arrays:
            for name in arrays.files:
                vector = arrays[name]
                if vector.dtype.kind not in "fiu":
                    raise ValueError(f"'{name}' has no numbers")
                yield name, vector
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(
            f"'{path}' is no .npz of an array for each utterance ({error})"
        ) from None


READERS = {".npz": _read_npz, ".scp": read_scp, ".ark": read_ark}


def _rows(vectors, names, path):
    """Embeddings of shape (dim,) or (1, ..., dim), one below the other."""
    rows = []
    for name, vector in zip(names, vectors):
        vector = torch.as_tensor(vector)
        if vector.dim() == 0 or vector.numel() != vector.shape[-1]:
            raise InputError(
                f"'{path}': '{name}' has the shape {tuple(vector.shape)}; an embedding "
                "is a vector"
            )
        if rows and vector.numel() != len(rows[0]):
            raise InputError(
                f"'{path}' has embeddings of different dimensions: {len(rows[0])} and "
                f"{vector.numel()} ('{name}')"
            )
        rows.append(vector.reshape(-1).float())
    return torch.stack(rows)


def _speakers(utt2spk, names):
    """Speaker of each name, by a file of `utterance speaker` lines."""
    lines = read_fields(utt2spk, "utt2spk file", [2])
    speaker_of = {name: speaker for _, (name, speaker) in lines}
    same = find_same_names(names, speaker_of)
    missing = sorted(name for name in names if name not in same)
    if missing:
        raise InputError(
            f"'{utt2spk}' lacks {len(missing)} utterances: {', '.join(missing[:5])}"
        )
    return [speaker_of[same[name]] for name in names]
