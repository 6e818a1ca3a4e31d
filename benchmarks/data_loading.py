"""Times the reading of training crops: hours of audio a minute and core.

    python benchmarks/data_loading.py [--folder ../shared/corpus/speechocean762]

The same utterances are written as wav, flac and, where the `ffmpeg` program is, as m4a.
The training's own data set then reads random crops of 3 s in one process, without a
model. The rival decodes whole files with SpeechBrain's reader and cuts the crop; of m4a
it is the `ffmpeg` program, started for each crop, whose processor time counts too. The
floor is a copy of the crops' samples in float32.
"""

import shutil
import subprocess
import tempfile
from pathlib import Path
from unittest import mock

import soundfile
import torch
from extraction import find_utterances
from measure import alternate, measure_floors, ratio, read_options, report
from speechbrain.dataio.dataio import read_audio

from speechbrain_ext.dataio import m4a
from speechbrain_ext.dataio.audio import read_crop, read_header
from speechbrain_ext.dataio.datasets import (
    speaker_classes,
    speaker_encoder,
    training_dataset,
)

SAMPLE_RATE, SECONDS = 16000, 3.0
FORMATS = ("wav", "flac", "m4a")


def write_as(suffix, utterances, folder):
    """The utterances in a format, as a manifest has them."""
    written = {}
    for number, (name, item) in enumerate(utterances.items()):
        path = folder / f"{number}.{suffix}"
        if suffix == "m4a":
            wav = folder / f"{number}.wav"
            command = ["ffmpeg", "-loglevel", "error", "-i", str(wav), str(path)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        else:
            soundfile.write(path, read_crop(name, SAMPLE_RATE).numpy(), SAMPLE_RATE)
        duration = read_header(path).duration
        written[str(path)] = {**item, "wav": str(path), "duration": duration}
    return written


def crops_of(utterances):
    """The training's data set of random crops."""
    labels = speaker_encoder(speaker_classes(utterances))
    return training_dataset(utterances, labels, SAMPLE_RATE, SECONDS)


def read_all(dataset):
    """A crop of each utterance."""
    return [dataset[index, 0]["sig"] for index in range(len(dataset))]


def read_all_by_program(dataset):
    """As `read_all`, as if PyAV were not installed."""
    with mock.patch.object(m4a, "_pyav", lambda: None):
        return read_all(dataset)


def whole_files(utterances):
    """The whole of each file, and the first seconds of it."""
    n_samples = round(SECONDS * SAMPLE_RATE)
    return [read_audio(item["wav"])[:n_samples] for item in utterances.values()]


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=5, folder="", n_utterances=200)
    if options.tiny:
        options.n_utterances = min(4, options.n_utterances)
    floors = measure_floors(tiny=options.tiny)
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        utterances = find_utterances(options.folder, options.n_utterances, scratch)
        hours = SECONDS * len(utterances) / 3600
        moved = 2 * 4 * SECONDS * SAMPLE_RATE * len(utterances)
        for suffix in FORMATS:
            if suffix == "m4a" and not shutil.which("ffmpeg"):
                rows.append({"format": suffix, "skipped": "no ffmpeg program here"})
                continue
            written = write_as(suffix, utterances, Path(scratch))
            dataset = crops_of(written)
            jobs = {"here": lambda: read_all(dataset)}
            rival = "whole files"
            if suffix != "m4a":
                jobs[rival] = lambda: whole_files(written)
            elif m4a.decoder() == "PyAV":
                rival = "ffmpeg program"
                jobs[rival] = lambda: read_all_by_program(dataset)
            times = alternate(jobs, options.repeats)
            ours = times["here"]
            row = {
                "format": suffix,
                "seconds": ours.seconds(),
                "hours a minute and core": 60 * hours / ours.seconds(),
                "of_floor": floors.seconds(moved_bytes=moved) / ours.seconds(),
            }
            if rival in times:
                row["rival"] = rival
                row["ratio to the rival"] = ratio(times[rival], ours)
            rows.append(row)
    report(
        "data_loading",
        rows,
        options,
        floors,
        utterances=len(utterances),
        crop_seconds=SECONDS,
        data=Path(options.folder or "demo").name,
    )


if __name__ == "__main__":
    torch.set_num_threads(1)  # a core
    main()
