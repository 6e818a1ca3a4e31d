"""Time and memory of finding the nearest of many embeddings.

    python benchmarks/search.py --n_embeddings 1000000 --threads 2

The embeddings are those of random speakers; a query is a speaker with noise. Prints
the median and the slowest of the searches, one query at a time, whether the answers
are those of comparing all, and the memory of the process.
"""

import argparse
import os
import resource
import statistics
import time


def main():
    """Reads the command line, measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--n_embeddings", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=192)
    parser.add_argument("--queries", type=int, default=50)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--exact_up_to", type=int, default=1_000_000)
    options = parser.parse_args()
    os.environ["OMP_NUM_THREADS"] = str(options.threads)

    import torch

    from speechbrain_ext.processing.search import EmbeddingSearch

    torch.set_num_threads(options.threads)
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(options.n_embeddings, options.dim, generator=generator)
    chosen = torch.randint(
        options.n_embeddings, (options.queries,), generator=generator
    )
    noise = torch.randn(options.queries, options.dim, generator=generator)
    queries = embeddings[chosen] + noise
    search = EmbeddingSearch(embeddings)
    search.is_exact = options.n_embeddings <= options.exact_up_to
    del embeddings
    expected = measure(search, queries, "all compared")
    start = time.perf_counter()
    index_bytes = search.build_index()
    print(f"index: built in {time.perf_counter() - start:.1f} s")
    found = measure(search, queries, "index")
    same = sum(torch.equal(a, b) for a, b in zip(expected, found))
    first = sum(bool(a[0] == b[0]) for a, b in zip(expected, found))
    print(
        f"the same 5 for {same} of {options.queries} queries, "
        f"the same first for {first}"
    )
    own = search.embeddings.numel() * 4
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        f"memory: embeddings {own / 1e6:.0f} MB, index {index_bytes / 1e6:.0f} MB, "
        f"peak of the process {peak / 1e6:.0f} MB"
    )


def measure(search, queries, name):
    """Times one query after the other, after one that does not count."""
    search.nearest(queries[:1])
    milliseconds, answers = [], []
    for query in queries:
        start = time.perf_counter()
        _, rows = search.nearest(query.unsqueeze(0))
        milliseconds.append(1000 * (time.perf_counter() - start))
        answers.append(rows[0])
    print(
        f"{name}: median {statistics.median(milliseconds):.1f} ms, slowest "
        f"{max(milliseconds):.1f} ms"
    )
    return answers


if __name__ == "__main__":
    main()
