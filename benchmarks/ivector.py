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
BATCH, SECONDS = 15, 8  # about max_batch_duration


def processor_seconds(function, repeats=2):
    """The fewest of some runs, and before them one that does not count."""
    seconds = []
    for _ in range(repeats + 1):
        start = time.process_time()
        function()
        seconds.append(time.process_time() - start)
    return min(seconds[1:])


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

    of_block = processor_seconds(lambda: total_variability(2)) - processor_seconds(
        lambda: total_variability(1)
    )
    passes = hparams["ubm_iterations"], hparams["tv_iterations"]
    stages = {
        "MFCCs": (lambda: encoder(wavs, lengths), FRAMES, 1 + sum(passes)),
        "start of the UBM": (
            lambda: diagonal.em_step([flat]),
            hparams["n_ubm_frames"],
            hparams["ubm_start_iterations"],
        ),
        "UBM": (lambda: ubm.em_step([flat]), FRAMES, passes[0]),
        "statistics": (
            lambda: extractor.statistics(frames, lengths), FRAMES, passes[1],
        ),
    }  # fmt: skip
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads\n")
    print("| stage | a second does | of | passes | hours |")
    print("|---|---|---|---|---|")
    total = 0.0
    for name, (function, n_frames, n_passes) in stages.items():
        rate = len(flat) / processor_seconds(function)
        hours = n_passes * n_frames / rate / 3600
        total += hours
        print(
            f"| {name} | {rate:,.0f} frames | {n_frames:,} | {n_passes} | {hours:.1f} |"
        )
    rate = extractor.UTTERANCES_AT_ONCE / of_block
    hours = passes[1] * UTTERANCES / rate / 3600
    print(
        f"| total variability | {rate:,.0f} utterances | {UTTERANCES:,} | {passes[1]} "
        f"| {hours:.1f} |\n\nTogether {total + hours:.0f} hours"
    )


if __name__ == "__main__":
    main()
