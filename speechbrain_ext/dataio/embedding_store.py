"""Embeddings of a corpus in one file."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from speechbrain_ext.dataio.windows import Windows
from speechbrain_ext.utils.cache_keys import file_key, stable_hash
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

ROW_PARTS = ("file", "size", "time", "start", "duration", "windows")


@dataclasses.dataclass
class EmbeddingStore:
    """Embeddings with what is known of their utterances.

    Arguments
    ---------
    ids : list of str
        Utterance ids.
    embeddings : torch.Tensor
        Embeddings, of shape (n_utterance, dim).
    speakers : list of str
        Speaker of each utterance.
    durations : list of float
        Durations in seconds.
    fingerprint : str
        Fingerprint of the model, as of `model_fingerprint`.
    row_keys : torch.Tensor
        Keys, of shape (n_utterance, part), as of `row_keys_of`: what each embedding was
        made from; None where that is not known.

    Example
    -------
    >>> path = getfixture("tmpdir") / "embeddings.safetensors"
    >>> store = EmbeddingStore(["a/1"], torch.ones(1, 2), ["a"], [1.5], "f00")
    >>> store.save(path)
    >>> EmbeddingStore.load(path).by_id()
    {'a/1': tensor([1., 1.])}
    """

    ids: list[str]
    embeddings: torch.Tensor
    speakers: list[str]
    durations: list[float]
    fingerprint: str
    row_keys: torch.Tensor | None = None

    def by_id(self) -> dict[str, torch.Tensor]:
        """Returns the embedding of each id, of shape (dim,)."""
        return dict(zip(self.ids, self.embeddings))

    def speaker_of(self) -> dict[str, str]:
        """Returns the speaker of each id."""
        return dict(zip(self.ids, self.speakers))

    def rows(self, rows: list[int]) -> "EmbeddingStore":
        """Takes some utterances.

        Arguments
        ---------
        rows : list of int
            Which, in the order wanted.

        Returns
        -------
        EmbeddingStore
            The embeddings of these utterances.
        """
        return EmbeddingStore(
            [self.ids[row] for row in rows],
            self.embeddings[rows],
            [self.speakers[row] for row in rows],
            [self.durations[row] for row in rows],
            self.fingerprint,
            None if self.row_keys is None else self.row_keys[rows],
        )

    def save(self, path: str | Path) -> None:
        """Writes the store atomically.

        Arguments
        ---------
        path : str or Path
            File to write.
        """
        metadata = {
            "ids": json.dumps(self.ids),
            "speakers": json.dumps(self.speakers),
            "durations": json.dumps(self.durations),
            "fingerprint": self.fingerprint,
        }
        tensors = {"embeddings": self.embeddings.contiguous()}
        if self.row_keys is not None:
            tensors["row_keys"] = self.row_keys.contiguous()
        with atomic_path(path) as partial:
            save_file(tensors, partial, metadata)

    @classmethod
    def load(cls, path: str | Path) -> "EmbeddingStore":
        """Reads a store.

        Arguments
        ---------
        path : str or Path
            File of `save`.

        Returns
        -------
        EmbeddingStore
            The store.

        Raises
        ------
        InputError
            If the file is no store.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            return cls(
                json.loads(metadata["ids"]),
                tensors["embeddings"],
                json.loads(metadata["speakers"]),
                json.loads(metadata["durations"]),
                metadata["fingerprint"],
                tensors.get("row_keys"),
            )
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(
                f"'{path}' is no embedding store ({error}); delete it and "
                "extract the embeddings again"
            ) from None


def row_keys_of(
    utterances: Mapping[str, Mapping[str, Any]], windows: Windows | None = None
) -> torch.Tensor:
    """What the embedding of each utterance depends on, beside the model.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them; one with a start (seconds) is a crop.
    windows : Windows
        How long recordings are embedded; as a whole if None.

    Returns
    -------
    torch.Tensor
        Keys, of shape (n_utterance, len(ROW_PARTS)), dtype long: a hash of each part.

    Example
    -------
    >>> wav = getfixture("tmpdir") / "a.wav"
    >>> wav.write_text("before", "utf-8")
    >>> item = {"wav": str(wav), "speaker": "a", "duration": 1.5}
    >>> before = row_keys_of({"a/1": item})
    >>> wav.write_text("afterwards", "utf-8")
    >>> (row_keys_of({"a/1": item}) == before)[0].tolist()[:2]
    [True, False]
    """
    keys = torch.empty(len(utterances), len(ROW_PARTS), dtype=torch.long)
    for row, item in enumerate(utterances.values()):
        key = {
            **file_key(item["wav"]),
            "start": item.get("start"),
            "duration": item["duration"],
            "windows": None,
        }
        if windows is not None and item["duration"] > windows.length:
            key["windows"] = [windows.length, windows.overlap]
        keys[row] = torch.tensor([_short_hash(key[part]) for part in ROW_PARTS])
    return keys


def same_parts(kept: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Which parts of what embeddings were made from are what they should be.

    A file that is gone cannot have changed: its size and time count as the same.

    Arguments
    ---------
    kept : torch.Tensor
        Keys of the stored embeddings, as `row_keys_of` gives them.
    wanted : torch.Tensor
        Keys that are wanted, of the same shape.

    Returns
    -------
    torch.Tensor
        Booleans, of that shape.

    Example
    -------
    >>> key = row_keys_of({"a": {"wav": "gone.wav", "duration": 1.5}})
    >>> same_parts(key, key).all()
    tensor(True)
    """
    is_gone = wanted[:, ROW_PARTS.index("size")] == _short_hash(None)
    is_same = kept == wanted
    for part in ("size", "time"):
        is_same[:, ROW_PARTS.index(part)] |= is_gone
    return is_same


def _short_hash(value: object) -> int:
    # A hash of 64 bits, signed as PyTorch's integers are.
    digest = bytes.fromhex(stable_hash(value)[:16])
    return int.from_bytes(digest, "big", signed=True)
