"""Times the reading of crops from shards against that from files.

    python benchmarks/shards.py --folder /data/of_the_disk_to_measure

Writes recordings of 8 s of noise and shards of them, and reads a crop of each
recording once, in the order of a training of one process without workers. Before
each round the system forgets what it has read of them.
"""

import os
import tempfile
import time
from pathlib import Path

import numpy as np
import soundfile
import speechbrain as sb
from measure import Times, measure_floors, ratio, read_options, report

from speechbrain_ext.dataio.datasets import StepSampler, training_dataset
from speechbrain_ext.dataio.manifests import read_manifest
from speechbrain_ext.dataio.prepare import prepare_corpus
from speechbrain_ext.dataio.shards import read_shards, write_shards

BATCH_SIZE, N_SHARDS = 100, 8
CROP_SECONDS, SAMPLE_RATE = 3.0, 16000


def write_recordings(root, n_recordings):
    """Writes noise of 100 speakers."""
    rng = np.random.default_rng(0)
    noise = 0.1 * rng.standard_normal(2 * 8 * SAMPLE_RATE)
    for number in range(n_recordings):
        path = root / f"{number % 100:03d}/{number}.wav"
        path.parent.mkdir(parents=True, exist_ok=True)
        start = rng.integers(len(noise) // 2)
        soundfile.write(path, noise[start : start + 8 * SAMPLE_RATE], SAMPLE_RATE)


def forget(folder):
    """Lets the system drop what it keeps of the files in memory."""
    os.sync()
    for path in filter(Path.is_file, folder.rglob("*")):
        with open(path, "rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read_round(dataset):
    """Seconds, and seconds of the processor, to read a crop of each recording."""
    n_steps = len(dataset) // BATCH_SIZE
    sampler = StepSampler(
        len(dataset), n_steps, n_steps, BATCH_SIZE, shard_sizes=dataset.shard_sizes
    )
    wall, processor = time.perf_counter(), time.process_time()
    for batch in sampler:
        for key in batch:
            dataset[key]
    return time.perf_counter() - wall, time.process_time() - processor


def main():
    """Measures and reports."""
    options = read_options(__doc__, repeats=3, folder="", n_recordings=2000)
    if options.tiny:
        options.n_recordings = 2 * BATCH_SIZE
    floors = measure_floors(tiny=options.tiny)
    with tempfile.TemporaryDirectory(dir=options.folder or None) as folder:
        folder = Path(folder)
        write_recordings(folder / "corpus", options.n_recordings)
        manifest = prepare_corpus(
            "folder", folder / "corpus", folder, valid_speakers=2, test_speakers=2
        )["train"]
        write_shards(manifest, folder / "shards", N_SHARDS)
        labels = sb.dataio.encoder.CategoricalEncoder()
        sources = {
            "files": read_manifest(manifest),
            "shards": read_shards(folder / "shards", manifest),
        }
        labels.update_from_iterable({i["speaker"] for i in sources["files"].values()})
        times = {name: Times([], []) for name in sources}
        for _ in range(options.repeats):
            for name, utterances in sources.items():
                dataset = training_dataset(
                    utterances, labels, SAMPLE_RATE, CROP_SECONDS
                )
                forget(folder)
                wall, cpu = read_round(dataset)
                times[name].wall.append(wall)
                times[name].cpu.append(cpu)
        n_read = len(dataset) // BATCH_SIZE * BATCH_SIZE
    hours = n_read * CROP_SECONDS / 3600
    floor = floors.seconds(moved_bytes=2 * 4 * n_read * CROP_SECONDS * SAMPLE_RATE)
    rows = [
        {
            "from": name,
            "crops": n_read,
            "seconds": own.seconds(),
            "hours a minute and core": 60 * hours / own.seconds(),
            "ratio": ratio(times["files"], own),
            "of_floor": floor / own.seconds(),
        }
        for name, own in times.items()
    ]
    report("shards", rows, options, floors, recordings=options.n_recordings)


if __name__ == "__main__":
    main()
