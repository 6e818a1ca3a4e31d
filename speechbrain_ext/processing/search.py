"""The nearest of many embeddings, by cosine: faiss, or matrix products without it."""

import json
import math
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.fingerprints import tensor_digest
from speechbrain_ext.utils.packages import optional_package

EXACT_UP_TO = 1_000_000
BLOCK = 2**18  # embeddings that are looked at a time
CANDIDATES = 100  # that are scored again, at the least
CODES_PER_CENTROID = 64  # training vectors, as faiss advises at the least 39


class EmbeddingSearch:
    """Finds the most similar embeddings.

    Up to a million, the answers are exact. A scalar-quantised copy of 8 bits gives
    candidates; how far its scores can be off is known from the copy's largest error,
    and where the candidates do not suffice to be sure, all embeddings are compared.
    Beyond, an inverted file with product quantisation (IVF-PQ, Jegou et al., 2011)
    gives the candidates, which are scored exactly; the nearest may be missed.

    Without an index, or without faiss, all embeddings are compared.

    Arguments
    ---------
    embeddings : torch.Tensor
        Embeddings, of shape (n_embedding, dim).
    exact_up_to : int
        Number of embeddings up to which answers are exact.

    Raises
    ------
    InputError
        If there are none, or some are not finite.

    Example
    -------
    >>> search = EmbeddingSearch(torch.eye(3))
    >>> scores, rows = search.nearest(torch.tensor([[0.0, 2.0, 0.1]]), top=2)
    >>> rows
    tensor([[1, 2]])
    """

    def __init__(self, embeddings, exact_up_to=EXACT_UP_TO):
        if len(embeddings) == 0 or not embeddings.isfinite().all():
            raise InputError("there must be embeddings to search, all of them finite")
        self.embeddings = _unit_length(embeddings)
        self.is_exact = len(embeddings) <= exact_up_to
        self._index, self._parts = None, []
        self._largest_error = None

    @property
    def has_index(self):
        """Whether an index was built or loaded."""
        return self._index is not None

    @property
    def searches_worth_an_index(self):
        """Searches without an index that take as long as building it, about."""
        return 20 if self.is_exact else 500

    def build_index(self):
        """Builds what makes many searches fast; takes faiss.

        Up to a million embeddings that takes seconds, beyond minutes: `save_index`
        keeps it.

        Returns
        -------
        int
            Bytes of the index, beside those of the embeddings.

        Raises
        ------
        InputError
            If faiss is not installed.
        """
        faiss = _faiss()
        rows = self.embeddings.numpy()
        if self.is_exact:
            self._set_parts(faiss, _parts_for_threads(faiss, rows))
            self._largest_error = self._error_of_parts()
            return rows.size
        n_lists, n_codes = self._sizes
        n_trained = min(len(rows), CODES_PER_CENTROID * max(n_lists, 256))
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[
            :n_trained
        ]
        index = faiss.index_factory(
            rows.shape[1], f"IVF{n_lists},PQ{n_codes}", faiss.METRIC_INNER_PRODUCT
        )
        index.train(rows[chosen.numpy()])
        for start in range(0, len(rows), BLOCK):
            index.add(rows[start : start + BLOCK])
        self._set_parts(faiss, [index])
        return len(rows) * (n_codes + 8)  # and a number of 64 bits

    @property
    def _sizes(self):
        """Lists of the inverted file, and bytes of a code."""
        n_rows, dim = self.embeddings.shape
        n_lists = 2 ** round(math.log2(4 * math.sqrt(n_rows)))
        return n_lists, max(m for m in range(1, dim // 4 + 1) if not dim % m)

    def _set_parts(self, faiss, parts):
        """Searches with one index, or with several side by side, a thread each."""
        self._parts = parts
        self._index = parts[0]
        if self.is_exact:
            self._index = faiss.IndexShards(self.embeddings.shape[1], True, True)
            for part in parts:
                self._index.add_shard(part)
        else:
            self._index.nprobe = max(8, self._sizes[0] // 64)

    def _key(self, faiss):
        """All that an index depends on."""
        return json.dumps(
            {
                "embeddings": tensor_digest(self.embeddings),
                "exact": self.is_exact,
                "sizes": None if self.is_exact else self._sizes,
                "faiss": faiss.__version__,
            }
        )

    def save_index(self, path):
        """Writes the index that was built, for `load_index`.

        Codes of voices are biometric data: the owner alone can read the file.

        Arguments
        ---------
        path : str or Path
            File to write, .safetensors.
        """
        faiss = _faiss()
        tensors = {
            f"part_{i}": torch.from_numpy(faiss.serialize_index(part))
            for i, part in enumerate(self._parts)
        }
        metadata = {
            "key": self._key(faiss),
            "largest_error": json.dumps(self._largest_error),
        }
        with atomic_path(path) as partial:
            partial.touch(mode=0o600)
            save_file(tensors, partial, metadata)

    def load_index(self, path):
        """Reads an index in place of building it.

        Arguments
        ---------
        path : str or Path
            File of `save_index`.

        Returns
        -------
        bool
            Whether it was read: not if there is none, it is of other embeddings, or
            another version of faiss built it.

        Raises
        ------
        InputError
            If faiss is not installed.
        """
        faiss = _faiss()
        if not Path(path).is_file():
            return False
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != self._key(faiss):
                    return False
                parts = [
                    faiss.deserialize_index(file.get_tensor(f"part_{i}"))
                    for i in range(len(file.keys()))
                ]
        except SafetensorError:
            return False
        self._set_parts(faiss, parts)
        self._largest_error = json.loads(metadata["largest_error"])
        return True

    def nearest(self, queries, top=5):
        """The most similar embeddings to each query.

        Arguments
        ---------
        queries : torch.Tensor
            Embeddings to look for, of shape (n_query, dim).
        top : int
            How many.

        Returns
        -------
        scores : torch.Tensor
            Cosine similarities, falling, of shape (n_query, min(top, n_embedding)).
        rows : torch.Tensor
            Whose they are, of that shape.
        """
        queries = _unit_length(queries)
        top = min(top, len(self.embeddings))
        if self._index is None:
            return self._compare_all(queries, top)
        n_candidates = min(max(CANDIDATES, 20 * top), len(self.embeddings))
        coarse, candidates = map(
            torch.from_numpy, self._index.search(queries.numpy(), n_candidates)
        )
        answers = []
        for query, rows, found in zip(queries, candidates, coarse):
            rows, found = rows[rows >= 0], found[rows >= 0]
            if len(rows) < top:
                answers.append(self._compare_all(query.unsqueeze(0), top))
                continue
            scores, order = (self.embeddings[rows] @ query).topk(top)
            if self.is_exact and len(rows) < len(self.embeddings):
                # What is no candidate has at most this score.
                limit = found[-1] + self._largest_error
                if scores[-1] < limit:
                    answers.append(self._compare_all(query.unsqueeze(0), top))
                    continue
            answers.append((scores.unsqueeze(0), rows[order].unsqueeze(0)))
        scores, rows = zip(*answers)
        return torch.cat(scores), torch.cat(rows)

    def _compare_all(self, queries, top):
        best, best_rows = None, None
        for start in range(0, len(self.embeddings), BLOCK):
            block = self.embeddings[start : start + BLOCK]
            scores, rows = (queries @ block.T).topk(min(top, len(block)))
            rows = rows + start
            if best is not None:
                scores, rows = (
                    torch.cat([best, scores], 1),
                    torch.cat([best_rows, rows], 1),
                )
            best, order = scores.topk(min(top, scores.shape[1]))
            best_rows = rows.gather(1, order)
        return best, best_rows

    def _error_of_parts(self):
        """Largest distance of an embedding from its quantised copy.

        By Cauchy and Schwarz a score of a query of unit length is off by no more.
        """
        largest, start = 0.0, 0
        for part in self._parts:
            for first in range(0, part.ntotal, BLOCK):
                n_rows = min(BLOCK, part.ntotal - first)
                copy = torch.from_numpy(part.reconstruct_n(first, n_rows))
                own = self.embeddings[start + first : start + first + n_rows]
                largest = max(largest, (copy - own).norm(dim=1).max().item())
            start += part.ntotal
        return largest + 1e-5  # rounding of the sums


def _unit_length(embeddings):
    """On the CPU, where the search is."""
    return torch.nn.functional.normalize(embeddings.detach().cpu().float(), dim=1)


def _parts_for_threads(faiss, rows):
    """Indexes of 8 bits a number, one for each thread: one query uses them all."""
    n_parts = min(torch.get_num_threads(), len(rows))
    size = -(-len(rows) // n_parts)
    parts = []
    for start in range(0, len(rows), size):
        part = faiss.IndexScalarQuantizer(
            rows.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        part.train(rows[start : start + size])
        part.add(rows[start : start + size])
        parts.append(part)
    return parts


def _faiss():
    return optional_package("faiss", "an index needs", "search")


def has_faiss():
    """Whether faiss is installed, which `EmbeddingSearch.build_index` takes.

    Returns
    -------
    bool
        Whether so.
    """
    try:
        _faiss()
    except InputError:
        return False
    return True
