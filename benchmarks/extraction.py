"""Times the extraction of embeddings of real utterances of mixed length.

    python benchmarks/extraction.py --folder ../shared/corpus/speechocean762

An encoder of WavLM-base's size with random weights and L-TDNN embed the same files in
three ways: `extract_embeddings` as it is, one utterance at a time through plain float32
code (`rivals`), as papers evaluate, and padded batches in the order of the files. All
must give the same embeddings (1e-4). Without a folder the voices of the demo speak.

The floor is the operations of each part over the rate of a matrix product. With
`--threads 1` the parts have rows of their own.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from measure import (
    PartClock,
    alternate,
    count_flop,
    measure_floors,
    peak_bytes,
    ratio,
    read_options,
    report,
)
from rivals import PlainBackEnd, PlainEncoder, build_back_end, build_encoder

from speechbrain_ext.dataio.audio import AUDIO_EXTENSIONS, read_crop, read_header
from speechbrain_ext.dataio.corpora.demo import build_demo_corpus
from speechbrain_ext.inference.extraction import extract_embeddings
from speechbrain_ext.inference.speaker import SpeakerRecognition

SAMPLE_RATE = 16000
TOLERANCE = 1e-4


def find_utterances(folder, n_utterances, scratch):
    """As many audio files, spread evenly over the sorted ones below a folder."""
    if not folder:
        folder = Path(scratch) / "demo"
        build_demo_corpus(folder)
    files = sorted(
        file for file in Path(folder).rglob("*") if file.suffix in AUDIO_EXTENSIONS
    )
    if len(files) < n_utterances:
        raise SystemExit(f"'{folder}' has {len(files)} audio files")
    chosen = [files[i * len(files) // n_utterances] for i in range(n_utterances)]
    return {
        str(file): {
            "wav": str(file),
            "speaker": file.parent.name,
            "duration": read_header(file).duration,
        }
        for file in chosen
    }


@torch.inference_mode()
def one_by_one(encoder, back_end, utterances, device="cpu"):
    """Plain float32, one utterance at a time."""
    return torch.cat(
        [
            back_end(encoder(read_crop(name, SAMPLE_RATE).unsqueeze(0).to(device)))
            .squeeze(1)
            .cpu()
            for name in utterances
        ]
    )


@torch.inference_mode()
def in_file_order(model, utterances, batch_size, device="cpu"):
    """Our model, batches of neighbouring files padded to the longest."""
    names, embeddings = list(utterances), []
    for start in range(0, len(names), batch_size):
        wavs = [
            read_crop(name, SAMPLE_RATE) for name in names[start : start + batch_size]
        ]
        lengths = torch.tensor([len(wav) for wav in wavs])
        padded = torch.nn.utils.rnn.pad_sequence(wavs, batch_first=True)
        embedded = model.encode_batch(padded.to(device), lengths / lengths.max())
        embeddings.append(embedded.squeeze(1).cpu())
    return torch.cat(embeddings)


def count_parts(model, utterances, device="cpu"):
    """Operations of encoder and back end for all utterances without padding.

    They are a polynomial of the length (attention is its square), which is found from
    three lengths.
    """
    lengths, flop = [1, 2, 4], []
    for length in lengths:
        wav = torch.zeros(1, length * SAMPLE_RATE, device=device)
        with torch.inference_mode():
            states, _ = model.encoder(wav)
            flop.append(
                [
                    count_flop(lambda: model.encoder(wav)),
                    count_flop(lambda: model.embedding_model(states)),
                ]
            )
    curves = np.polyfit(lengths, np.array(flop, dtype=float), 2)
    durations = [item["duration"] for item in utterances.values()]
    return [sum(np.polyval(curve, durations)) for curve in curves.T]


def main():
    """Measures and reports."""
    options = read_options(
        __doc__,
        repeats=3,
        folder="",
        n_utterances=200,
        max_batch_duration=60.0,
        size="base",
        device="cpu",
        bf16=False,
    )
    device = options.device
    if options.tiny:
        options.size, options.n_utterances = "tiny", min(6, options.n_utterances)
    encoder = build_encoder(options.size)
    back_end = build_back_end("L-TDNN", encoder, options.tiny)
    plain = PlainEncoder(encoder).to(device), PlainBackEnd(back_end).eval().to(device)
    model = SpeakerRecognition(encoder, back_end, SAMPLE_RATE).to(device)
    model.precision = "bf16" if options.bf16 else "fp32"
    dtype = torch.bfloat16 if options.bf16 else torch.float32
    floors = measure_floors(device, dtype, options.tiny)
    with tempfile.TemporaryDirectory() as scratch:
        utterances = find_utterances(options.folder, options.n_utterances, scratch)
        seconds = sum(item["duration"] for item in utterances.values())

        def ours():
            path = Path(scratch) / "embeddings.safetensors"
            path.unlink(missing_ok=True)
            return extract_embeddings(
                model, utterances, path, options.max_batch_duration
            ).embeddings

        batch_size = max(
            1, round(options.max_batch_duration * len(utterances) / seconds)
        )
        jobs = {
            "one utterance at a time": lambda: one_by_one(*plain, utterances, device),
            "padded batches in file order": lambda: in_file_order(
                model, utterances, batch_size, device
            ),
            "extract_embeddings": ours,
        }
        times = alternate(jobs, options.repeats, device)
        clocks = [PartClock(part, device) for part in (encoder, back_end)]
        parts = {"parts and memory": lambda: peak_bytes(ours, device)}
        (again,) = alternate(parts, 1, device).values()
        whole, peak = again.seconds(device), again.result
        part_seconds = [clock.seconds for clock in clocks]
        flop = count_parts(model, utterances, device)
    # Otherwise copies compute on the other cores, which no clock sees.
    is_in_turn = options.threads == 1 or not device.startswith("cpu")
    expected = times["one utterance at a time"].result
    rows = []
    for name, job in times.items():
        error = (job.result - expected).abs().max().item()
        cosine = torch.cosine_similarity(job.result, expected).min().item()
        if error > TOLERANCE and not options.bf16:
            raise SystemExit(f"{name}: embeddings differ by {error:.2g}")
        rows.append(
            {
                "job": name,
                "seconds": job.seconds(device),
                "times real time": seconds / job.seconds(device),
                "ratio": ratio(times["one utterance at a time"], job, device),
                "of_floor": floors.seconds(sum(flop)) / job.seconds(device),
                "greatest difference": error,
                "least cosine": cosine,
            }
        )
    rows[-1]["peak_bytes"] = peak
    if is_in_turn:
        parts = zip(("its encoder", "its back end"), part_seconds, flop)
        for name, part, operations in parts:
            rows.append(
                {
                    "job": name,
                    "seconds": part,
                    "of_whole": part / whole,
                    "of_floor": floors.seconds(operations) / part,
                }
            )
        rest = whole - sum(part_seconds)
        rows.append(
            {"job": "its reading, padding, writing", "seconds": rest,
             "of_whole": rest / whole}
        )  # fmt: skip
    report(
        "extraction",
        rows,
        options,
        floors,
        device,
        encoder=options.size,
        precision=model.precision,
        utterances=len(utterances),
        speech_seconds=seconds,
        data=Path(options.folder or "demo").name,
    )


if __name__ == "__main__":
    main()
