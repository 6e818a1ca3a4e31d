"""Embeddings of a corpus in one file."""

import dataclasses
import json

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path


@dataclasses.dataclass
class EmbeddingStore:
    """Embeddings with what is known of their utterances.

    Arguments
    ---------
    ids : list of str
        Utterance ids.
    embeddings : torch.Tensor
        Of shape (n_utterance, dim).
    speakers : list of str
        Speaker of each utterance.
    durations : list of float
        In seconds.
    fingerprint : str
        Of the model, as of `model_fingerprint`.

    Example
    -------
    >>> path = getfixture("tmpdir") / "embeddings.safetensors"
    >>> store = EmbeddingStore(["a/1"], torch.ones(1, 2), ["a"], [1.5], "f00")
    >>> store.save(path)
    >>> EmbeddingStore.load(path, fingerprint="f00").by_id()
    {'a/1': tensor([1., 1.])}
    """

    ids: list
    embeddings: torch.Tensor
    speakers: list
    durations: list
    fingerprint: str

    def by_id(self):
        """Returns the embedding of each id, of shape (dim,)."""
        return dict(zip(self.ids, self.embeddings))

    def speaker_of(self):
        """Returns the speaker of each id."""
        return dict(zip(self.ids, self.speakers))

    def save(self, path):
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
        with atomic_path(path) as partial:
            save_file(
                {"embeddings": self.embeddings.contiguous()}, partial, metadata
            )

    @classmethod
    def load(cls, path, fingerprint=None):
        """Reads a store.

        Arguments
        ---------
        path : str or Path
            File of `save`.
        fingerprint : str
            Of the model whose embeddings are wanted; any if None.

        Returns
        -------
        EmbeddingStore
            The store.

        Raises
        ------
        InputError
            If the file is no store, or was made by another model.
        """
        try:
            with safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                embeddings = file.get_tensor("embeddings")
            store = cls(
                json.loads(metadata["ids"]),
                embeddings,
                json.loads(metadata["speakers"]),
                json.loads(metadata["durations"]),
                metadata["fingerprint"],
            )
        except (SafetensorError, KeyError, TypeError) as error:
            raise InputError(
                f"'{path}' is no embedding store ({error}); delete it and "
                "extract the embeddings again"
            ) from None
        if fingerprint not in (None, store.fingerprint):
            raise InputError(
                f"the embeddings in '{path}' were made by another model "
                f"({store.fingerprint[:12]}, not {fingerprint[:12]}); delete "
                "the file, or give another output_folder"
            )
        return store
