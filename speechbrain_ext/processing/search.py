"""The nearest of many embeddings, by cosine: faiss, or matrix products without it."""

import math

import torch

from speechbrain_ext.utils.errors import InputError

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
        self.embeddings = torch.nn.functional.normalize(embeddings.float(), dim=1)
        self.is_exact = len(embeddings) <= exact_up_to
        self._index = None
        self._largest_error = None

    def build_index(self):
        """Builds what makes many searches fast; takes faiss.

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
            self._index = _in_threads(faiss, rows)
            self._largest_error = self._error_of(faiss)
            return rows.size
        n_lists = 2 ** round(math.log2(4 * math.sqrt(len(rows))))
        n_codes = max(
            m for m in range(1, rows.shape[1] // 4 + 1) if not rows.shape[1] % m
        )
        n_trained = min(len(rows), CODES_PER_CENTROID * max(n_lists, 256))
        chosen = torch.randperm(len(rows), generator=torch.Generator().manual_seed(0))[
            :n_trained
        ]
        self._index = faiss.index_factory(
            rows.shape[1], f"IVF{n_lists},PQ{n_codes}", faiss.METRIC_INNER_PRODUCT
        )
        self._index.train(rows[chosen.numpy()])
        for start in range(0, len(rows), BLOCK):
            self._index.add(rows[start : start + BLOCK])
        self._index.nprobe = max(8, n_lists // 64)
        return len(rows) * (n_codes + 8)  # and a number of 64 bits

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
        queries = torch.nn.functional.normalize(queries.float(), dim=1)
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

    def _error_of(self, faiss):
        """Largest distance of an embedding from its quantised copy.

        By Cauchy and Schwarz a score of a query of unit length is off by no more.
        """
        largest, start = 0.0, 0
        for i in range(self._index.count()):
            shard = faiss.downcast_index(self._index.at(i))
            for first in range(0, shard.ntotal, BLOCK):
                n_rows = min(BLOCK, shard.ntotal - first)
                copy = torch.from_numpy(shard.reconstruct_n(first, n_rows))
                own = self.embeddings[start + first : start + first + n_rows]
                largest = max(largest, (copy - own).norm(dim=1).max().item())
            start += shard.ntotal
        return largest + 1e-5  # rounding of the sums


def _in_threads(faiss, rows):
    """An index of 8 bits a number, a part for each thread: one query uses them all."""
    n_parts = min(torch.get_num_threads(), len(rows))
    index = faiss.IndexShards(rows.shape[1], True, True)
    index.own_indices = True
    size = -(-len(rows) // n_parts)
    for start in range(0, len(rows), size):
        part = faiss.IndexScalarQuantizer(
            rows.shape[1], faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
        )
        part.train(rows[start : start + size])
        part.add(rows[start : start + size])
        part.this.disown()
        index.add_shard(part)
    return index


def _faiss():
    try:
        import faiss
    except ImportError:
        raise InputError(
            "an index needs a package: pip install 'speechbrain_ext[search]'"
        ) from None
    return faiss


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
