"""Counts the arithmetic of a second of speech, and times it on this machine.

    python benchmarks/flops.py --threads 1

Encoders of the sizes of WavLM base and large with random weights, and L-TDNN on
them, for an utterance of 4 s, forward only. The floor is the operations over the
rate of a matrix product.
"""

import torch
from measure import alternate, count_flop, measure_floors, read_options, report
from rivals import build_back_end, build_encoder

SECONDS = 4


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=1)
    floors = measure_floors(tiny=options.tiny)
    rows = []
    with torch.no_grad():
        for size in ("tiny",) if options.tiny else ("base", "large"):
            encoder = build_encoder(size)
            back_end = build_back_end("L-TDNN", encoder, options.tiny).eval()
            wavs = 0.1 * torch.randn(1, SECONDS * encoder.sample_rate)
            states = encoder(wavs, torch.ones(1))
            jobs = {
                f"WavLM {size}": lambda: encoder(wavs, torch.ones(1)),
                f"L-TDNN on WavLM {size}": lambda: back_end(*states),
            }
            for name, times in alternate(jobs, options.repeats).items():
                flop, seconds = count_flop(jobs[name]), times.seconds()
                rows.append(
                    {
                        "job": name,
                        "GFLOP a second of speech": flop / SECONDS / 1e9,
                        "seconds of speech a second": SECONDS / seconds,
                        "of_floor": floors.seconds(flop) / seconds,
                    }
                )
    report("flops", rows, options, floors)


if __name__ == "__main__":
    main()
