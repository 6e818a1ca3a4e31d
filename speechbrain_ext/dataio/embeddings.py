"""Embeddings of any toolkit as an embedding store."""

import csv
import re
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.dataio.kaldi import read_ark, read_scp
from speechbrain_ext.dataio.parquet import parquet_files, read_parquet
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fields import find_same_names, read_csv, read_fields
from speechbrain_ext.utils.files import open_text


def read_embeddings(path, utt2spk=None):
    """Reads an embedding store, Parquet, CSV, NumPy's npz, or Kaldi's scp or ark.

    Nothing in the file is run: pipes in an scp and pickled objects are refused.

    Arguments
    ---------
    path : str or Path
        A .safetensors file of `EmbeddingStore`; a .parquet file or folder, as of
        `write_parquet`; a .csv as of `write_embeddings`; an .npz with an array for
        each utterance id; or Kaldi's .scp or .ark.
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
        _require_one_of_each(store.ids, path)
        return store
    if path.suffix in WITH_SPEAKERS:
        store = WITH_SPEAKERS[path.suffix](path)
        if utt2spk is not None:
            store.speakers = _speakers(utt2spk, store.ids)
        return store
    if path.suffix not in READERS:
        raise InputError(
            f"'{path}': embeddings are read from .safetensors, "
            + ", ".join([*WITH_SPEAKERS, *READERS])
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
    _require_one_of_each(ids, path)
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


def _read_csv(path):
    with open_text(path, newline="") as file:
        header = next(csv.reader(file), [])
    columns = [name for name in header if re.fullmatch(r"e\d+", name)]
    if not columns:
        raise InputError(
            f"'{path}' has no embeddings, which are in columns e0, e1 and so on"
        )
    store = EmbeddingStore([], torch.empty(0), [], [], "")
    vectors = []
    names = ("id", "speaker", "duration", *columns)
    for number, (name, speaker, duration, *row) in read_csv(path, "embeddings", names):
        try:
            store.durations.append(float(duration))
            vectors.append([float(value) for value in row])
        except ValueError as error:
            raise InputError(f"'{path}', line {number}: {error}") from None
        store.ids.append(name)
        store.speakers.append(speaker)
    if not vectors:
        raise InputError(f"'{path}' has no embeddings")
    _require_one_of_each(store.ids, path)
    store.embeddings = torch.tensor(vectors)
    return store


def _require_one_of_each(ids, path):
    if len(set(ids)) < len(ids):
        name = next(name for name, count in Counter(ids).items() if count > 1)
        raise InputError(f"'{path}' has two embeddings of '{name}'; keep one")


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
WITH_SPEAKERS = {".parquet": _read_parquet, ".csv": _read_csv}


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
    speaker_of = {}
    for number, (name, speaker) in read_fields(utt2spk, "utt2spk file", [2]):
        if speaker_of.setdefault(name, speaker) != speaker:
            raise InputError(
                f"'{utt2spk}', line {number}: '{name}' is of '{speaker}', and of "
                f"'{speaker_of[name]}' above; keep one"
            )
    same = find_same_names(names, speaker_of)
    missing = sorted(name for name in names if name not in same)
    if missing:
        raise InputError(
            f"'{utt2spk}' lacks {len(missing)} utterances: {', '.join(missing[:5])}"
        )
    return [speaker_of[same[name]] for name in names]
