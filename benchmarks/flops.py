"""Counts the arithmetic of a second of speech, and times it on this machine.

    python benchmarks/flops.py

Encoders of the sizes of WavLM base and large with random weights, and the back ends
on them, for an utterance of 4 s. The rate is that of the processor time of one
thread, beside that of a product of two matrices in the same run.
"""

import time

import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig

from speechbrain_ext.lobes.encoders.factory import load_encoder
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.utils.precision import matrix_rate

SECONDS = 4
SIZES = {
    "WavLM base": {},
    "WavLM large": {
        "hidden_size": 1024,
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "intermediate_size": 4096,
        "feat_extract_norm": "layer",
        "do_stable_layer_norm": True,
    },
}


@torch.no_grad()
def measure(name, function, *inputs):
    """Prints a row, and gives what the function does."""
    with FlopCounterMode(display=False) as counter:
        function(*inputs)
    start = time.process_time()
    result = function(*inputs)
    taken = time.process_time() - start
    gflop = counter.get_total_flops() / 1e9
    print(
        f"| {name} | {gflop / SECONDS:.1f} | {SECONDS / taken:.1f} | "
        f"{gflop / taken:.0f} |",
        flush=True,
    )
    return result


def main():
    torch.set_num_threads(1)
    print("| | GFLOP a second of speech | seconds of speech a second | GFLOP/s |")
    print("|---|---|---|---|")
    for name, changes in SIZES.items():
        encoder = load_encoder(
            {
                "config": {**WavLMConfig(**changes).to_dict(), "model_type": "wavlm"},
                "preprocessor": Wav2Vec2FeatureExtractor().to_dict(),
            }
        )
        wavs = 0.1 * torch.randn(1, SECONDS * 16000)
        states, lengths = measure(name, encoder, wavs, torch.ones(1))
        back_end = LTDNN(encoder.channels, encoder.n_layers).eval()
        measure(f"L-TDNN on {name}", back_end, states, lengths)
    print(f"matrix product: {matrix_rate(torch.float32) / 1e9:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
