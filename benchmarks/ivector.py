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


def seconds_of_a_batch(function):
    """Processor time of the second of two batches.

    What a pass takes beside its batches, seconds, is left out.
    """
    seconds = []
    for n_batches in (1, 1, 2):  # the first does not count
        start = time.process_time()
        function(n_batches)
        seconds.append(time.process_time() - start)
    return seconds[2] - seconds[1]


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

    def total_variability(n_blocks):
        """So many blocks of utterances of five frames, whose statistics are cheap."""
        n_utterances = n_blocks * extractor.UTTERANCES_AT_ONCE
        short, whole = frames[:1, :5].repeat(16, 1, 1), torch.ones(16)
        extractor.em_step([(short, whole)] * (n_utterances // 16))

    passes = hparams["ubm_iterations"], hparams["tv_iterations"]
    stages = {
        "MFCCs": (
            lambda n: [encoder(wavs, lengths) for _ in range(n)],
            FRAMES,
            1 + sum(passes),
        ),
        "start of the UBM": (
            lambda n: diagonal.em_step([flat] * n),
            hparams["n_ubm_frames"],
            hparams["ubm_start_iterations"],
        ),
        "UBM": (lambda n: ubm.em_step([flat] * n), FRAMES, passes[0]),
        "statistics": (
            lambda n: [extractor.statistics(frames, lengths) for _ in range(n)],
            FRAMES,
            passes[1],
        ),
    }
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| stage | a second does | of | passes | hours |")
    print("|---|---|---|---|---|", flush=True)
    total = 0.0
    for name, (function, n_frames, n_passes) in stages.items():
        total += row(name, len(flat), seconds_of_a_batch(function), n_frames, n_passes)
    seconds, at_once = (
        seconds_of_a_batch(total_variability),
        extractor.UTTERANCES_AT_ONCE,
    )
    total += row("total variability *", at_once, seconds, UTTERANCES, passes[1])
    print(f"\nTogether {total:.0f} hours; * utterances, not frames")


def row(name, n, seconds, n_of_corpus, n_passes):
    """Prints a stage, and gives its hours on the corpus."""
    hours = n_passes * n_of_corpus / (n / seconds) / 3600
    cells = [name, f"{n / seconds:,.0f}", f"{n_of_corpus:,}", n_passes, f"{hours:.1f}"]
    print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return hours


if __name__ == "__main__":
    main()
