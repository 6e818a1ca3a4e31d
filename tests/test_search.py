"""Nearest embeddings: the same with and without an index."""

import os
import stat

import pytest
import torch

from speechbrain_ext.processing.search import EmbeddingSearch
from speechbrain_ext.utils.errors import InputError


@pytest.fixture(scope="module")
def embeddings():
    torch.manual_seed(0)
    return torch.randn(5000, 24) * torch.rand(5000, 1)


@pytest.fixture(scope="module")
def expected(embeddings):
    queries = embeddings[:40] + 0.3 * torch.randn(40, 24)
    similarity = torch.nn.functional.cosine_similarity(
        queries.unsqueeze(1), embeddings.unsqueeze(0), dim=2
    )
    return queries, *similarity.topk(7)


@pytest.mark.parametrize("with_index", [False, True])
def test_the_nearest_are_found(with_index, embeddings, expected):
    if with_index:
        pytest.importorskip("faiss")
    search = EmbeddingSearch(embeddings)
    if with_index:
        assert search.build_index() == 5000 * 24
    queries, scores, rows = expected
    found, found_rows = search.nearest(queries, top=7)
    torch.testing.assert_close(found, scores, atol=1e-5, rtol=0)
    assert torch.equal(found_rows, rows)


def test_candidates_that_do_not_suffice_are_noticed(embeddings):
    pytest.importorskip("faiss")
    # So near to each other that 8 bits do not tell them apart
    close = torch.ones(2000, 24) + 1e-4 * embeddings[:2000]
    close[0] = -1
    search = EmbeddingSearch(close)
    search.build_index()
    scores, rows = search.nearest(close[5:6], top=3)
    exact, exact_rows = EmbeddingSearch(close).nearest(close[5:6], top=3)
    assert torch.equal(rows, exact_rows) and torch.equal(scores, exact)


def test_beyond_the_exact_size(embeddings, expected):
    pytest.importorskip("faiss")
    search = EmbeddingSearch(embeddings, exact_up_to=1000)
    assert search.build_index() < 5000 * 24
    queries, scores, rows = expected
    found, found_rows = search.nearest(queries, top=1)
    assert (found_rows[:, 0] == rows[:, 0]).float().mean() > 0.8
    # What is found has its exact score.
    exact = torch.nn.functional.cosine_similarity(queries, embeddings[found_rows[:, 0]])
    torch.testing.assert_close(found[:, 0], exact, atol=1e-5, rtol=0)


@pytest.mark.parametrize("exact_up_to", [10**6, 1000])
def test_index_is_kept_for_its_embeddings(exact_up_to, embeddings, tmp_path):
    faiss = pytest.importorskip("faiss")
    path, queries = tmp_path / "index.safetensors", embeddings[:9] + 0.1
    built = EmbeddingSearch(embeddings, exact_up_to)
    assert not built.has_index and not built.load_index(path)
    built.build_index()
    built.save_index(path)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    loaded = EmbeddingSearch(embeddings, exact_up_to)
    assert loaded.load_index(path) and loaded.has_index
    for found, expected in zip(loaded.nearest(queries), built.nearest(queries)):
        assert torch.equal(found, expected)
    # Of other embeddings, of the other kind, of another faiss, of no index
    changed = embeddings.clone()
    changed[-1, -1] += 1
    assert not EmbeddingSearch(changed, exact_up_to).load_index(path)
    assert not EmbeddingSearch(embeddings[:-1], exact_up_to).load_index(path)
    other = 1000 if exact_up_to > 1000 else 10**6
    assert not EmbeddingSearch(embeddings, other).load_index(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(faiss, "__version__", "0.0")
        assert not EmbeddingSearch(embeddings, exact_up_to).load_index(path)
    path.write_bytes(path.read_bytes()[:-1000])
    assert not EmbeddingSearch(embeddings, exact_up_to).load_index(path)


def test_fewer_than_asked_for_and_what_cannot_be_searched():
    _, rows = EmbeddingSearch(torch.eye(3)).nearest(torch.eye(3)[:1], top=9)
    assert rows.shape == (1, 3)
    for wrong in (torch.zeros(0, 3), torch.full((2, 3), float("nan"))):
        with pytest.raises(InputError, match="must be embeddings"):
            EmbeddingSearch(wrong)
