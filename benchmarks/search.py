"""Time and memory of finding the five nearest of many embeddings, one query at a time.

    python benchmarks/search.py --n_embeddings 1000000 --threads 2

The embeddings are those of random speakers; a query is a speaker with noise, and each
round takes another. The rival is a matrix product with all of them. Up to a million
the index must give the same answers; beyond (or beyond --exact_up_to) it gives
candidates, and the table says how often the five are the same. The floor is reading
the numbers once at the rate of a copy of this run.
"""

import time

import torch
from measure import alternate, measure_floors, peak_bytes, ratio, read_options, report

from speechbrain_ext.processing.search import EXACT_UP_TO, EmbeddingSearch

TOP = 5


def draw(n_embeddings, dim, n_queries):
    """Random speakers and queries, of which each is a speaker with noise."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(n_embeddings, dim, generator=generator)
    chosen = torch.randint(n_embeddings, (n_queries,), generator=generator)
    noise = torch.randn(n_queries, dim, generator=generator)
    return embeddings, embeddings[chosen] + noise


def one_after_the_other(search, queries):
    """A job that takes the next query each time, and its answers so far."""
    answers = []

    def job():
        query = queries[len(answers) % len(queries)]
        answers.append(search.nearest(query.unsqueeze(0), TOP)[1][0])

    return job, answers


def main():
    """Builds the index, measures and prints."""
    options = read_options(
        __doc__,
        repeats=50,
        n_embeddings=1_000_000,
        dim=192,
        exact_up_to=EXACT_UP_TO,
    )
    n_embeddings = 2000 if options.tiny else options.n_embeddings
    embeddings, queries = draw(n_embeddings, options.dim, options.repeats + 1)
    plain = EmbeddingSearch(embeddings, options.exact_up_to)
    indexed = EmbeddingSearch(embeddings, options.exact_up_to)
    del embeddings
    indexed.embeddings = plain.embeddings
    start = time.perf_counter()
    index_bytes = indexed.build_index()
    seconds_to_build = time.perf_counter() - start
    floors = measure_floors(tiny=options.tiny)
    searches = {"all compared": plain, "index": indexed}
    pairs = {name: one_after_the_other(s, queries) for name, s in searches.items()}
    times = alternate({name: job for name, (job, _) in pairs.items()}, options.repeats)
    expected, found = (answers for _, answers in pairs.values())
    n_queries = len(expected)
    same = sum(torch.equal(a, b) for a, b in zip(expected, found))
    if indexed.is_exact and same < n_queries:
        raise SystemExit(f"{n_queries - same} answers are not the nearest")
    own_bytes = plain.embeddings.numel() * 4
    # Reading is half of what a copy moves.
    moved = {"all compared": 2 * own_bytes, "index": 2 * index_bytes}
    rows = [
        {
            "way": name,
            "ms": 1000 * result.seconds(),
            "slowest ms": 1000 * max(result.clock()),
            "processor ms": 1000 * sorted(result.cpu)[len(result.cpu) // 2],
            "ratio": ratio(times["all compared"], result),
            "of_floor": floors.seconds(moved_bytes=moved[name]) / result.seconds(),
            "memory_bytes": own_bytes + (index_bytes if name == "index" else 0),
            "peak_of_a_search_bytes": peak_bytes(pairs[name][0]),
        }
        for name, result in times.items()
    ]
    report(
        "search",
        rows,
        options,
        floors,
        embeddings=n_embeddings,
        dim=options.dim,
        top=TOP,
        exact=indexed.is_exact,
        same_answers=f"{same} of {n_queries}",
        seconds_to_build_the_index=seconds_to_build,
    )


if __name__ == "__main__":
    main()
