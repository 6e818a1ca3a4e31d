"""Times the stages of an i-vector training at the sizes of hparams/ivector.yaml.

    python benchmarks/ivector.py

and says what they make of VoxCeleb1: its 148,642 utterances of training speakers
are 340 hours, of which four fifths are taken to be speech. Processor time, so that
other work on the machine does not count; with one thread it is the hours of one core.
"""

import time
from pathlib import Path

import torch

from speechbrain_ext.config import read_configuration
from speechbrain_ext.nnet.gaussian_mixture import GaussianMixture

HPARAMS = Path(__file__).parents[1] / "hparams" / "ivector.yaml"
HOURS, UTTERANCES, SPEECH = 340, 148_642, 0.8
FRAMES = int(HOURS * 3600 * 100 * SPEECH)
BATCH, SECONDS = 4, 8


def processor_seconds(function):
    """Processor time of a run, after one that does not count."""
    function()
    start = time.process_time()
    function()
    return time.process_time() - start


@torch.no_grad()
def main():
    """Prints a Markdown table."""
    torch.manual_seed(0)
    hparams = read_configuration([str(HPARAMS)], demo=False).build()
    encoder, extractor = hparams["encoder"], hparams["embedding_model"]
    ubm = extractor.ubm
    wavs, lengths = torch.randn(BATCH, SECONDS * 16000), torch.ones(BATCH)
    frames = torch.randn(BATCH, int(SECONDS * 100 * SPEECH), encoder.channels)
    flat = frames.flatten(0, 1)
    diagonal = GaussianMixture(encoder.channels, ubm.n_components)
    for mixture in (diagonal, ubm):
        # What a pass takes beside its batches is a matter of seconds.
        mixture._maximise = lambda *sums: None
    counts, deviations = extractor.statistics(frames, lengths)
    many = counts.repeat(8, 1), deviations.repeat(8, 1, 1)
    passes = hparams["ubm_iterations"], hparams["tv_iterations"]
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| stage | a second does | of | passes | hours |")
    print("|---|---|---|---|---|", flush=True)
    total = 0.0
    for name, function, n, n_of_corpus, n_passes in (
        ("MFCCs", lambda: encoder(wavs, lengths), len(flat), FRAMES, 1 + sum(passes)),
        (
            "start of the UBM",
            lambda: diagonal.em_step([flat]),
            len(flat),
            hparams["n_ubm_frames"],
            hparams["ubm_start_iterations"],
        ),
        ("UBM", lambda: ubm.em_step([flat]), len(flat), FRAMES, passes[0]),
        (
            "statistics",
            lambda: extractor.statistics(frames, lengths),
            len(flat),
            FRAMES,
            passes[1],
        ),
        # The sums for T are as large a product as that of the posteriors.
        (
            "total variability *",
            lambda: [extractor.posterior(*many) for _ in range(2)],
            len(many[0]),
            UTTERANCES,
            passes[1],
        ),
    ):
        rate = n / processor_seconds(function)
        hours = n_passes * n_of_corpus / rate / 3600
        total += hours
        cells = [name, f"{rate:,.0f}", f"{n_of_corpus:,}", n_passes, f"{hours:.1f}"]
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    print(f"\nTogether {total:.0f} hours; * utterances, not frames")


if __name__ == "__main__":
    main()
