"""Counts the graphs that `torch.compile` makes for utterances of many lengths.

    python benchmarks/recompilations.py --device cuda

L-TDNN embeds padded and unpadded batches of twenty lengths, compiled with dynamic
shapes. A recompilation storm is a graph for each length; a few graphs are right.
"""

import torch
from measure import alternate, ratio, read_options, report
from rivals import build_back_end, build_encoder

N_LENGTHS, FIRST, STEP = 20, 100, 11


def main():
    """Measures and reports."""
    options = read_options(
        __doc__, repeats=3, size="base", device="cpu", backend="inductor"
    )
    if options.tiny:
        options.size, options.backend = "tiny", "eager"
    encoder = build_encoder(options.size)
    model = build_back_end("L-TDNN", encoder, options.tiny).eval().to(options.device)
    compiled = torch.compile(model, dynamic=True, backend=options.backend)
    batches = [
        (
            torch.randn(encoder.n_layers, 2, n_frames, encoder.channels).to(
                options.device
            ),
            torch.tensor([1.0, 1.0 if i % 2 else 0.7], device=options.device),
        )
        for i, n_frames in enumerate(range(FIRST, FIRST + N_LENGTHS * STEP, STEP))
    ]

    @torch.no_grad()
    def embed_all(embed):
        return torch.cat([embed(*batch) for batch in batches])

    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    error = (embed_all(compiled) - embed_all(model)).abs().max().item()
    counters = torch._dynamo.utils.counters["stats"]
    graphs, breaks = counters["unique_graphs"], torch._dynamo.utils.counters
    times = alternate(
        {"eager": lambda: embed_all(model), "compiled": lambda: embed_all(compiled)},
        options.repeats,
        options.device,
    )
    rows = [
        {
            "lengths": N_LENGTHS,
            "graphs": graphs,
            "graph breaks": sum(breaks["graph_break"].values()),
            "ratio": ratio(times["eager"], times["compiled"], options.device),
            "greatest difference": error,
        }
    ]
    report("recompilations", rows, options, None, options.device,
           encoder=options.size, backend=options.backend)  # fmt: skip


if __name__ == "__main__":
    main()
