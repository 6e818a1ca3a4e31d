"""What a corpus of many utterances and speakers takes before and in a training.

    python benchmarks/scale.py --n_utterances 1100000 --n_speakers 110000

The manifest is made up; no audio is read. Each row has the processor time of one
thread and what the process holds more in memory afterwards. The step of the
classifier is forward, AAM-softmax, backward and Adam on random embeddings.
"""

import argparse
import gc
import tempfile
import time
from pathlib import Path

import torch
from speechbrain.lobes.models.ECAPA_TDNN import Classifier
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

from speechbrain_ext.dataio.datasets import (
    StepSampler,
    embedding_loader,
    speaker_classes,
    speaker_encoder,
    training_dataset,
)
from speechbrain_ext.dataio.embedding_store import EmbeddingStore, row_keys_of
from speechbrain_ext.dataio.manifests import MANIFEST_FIELDS, read_manifest
from speechbrain_ext.utils.fields import write_csv

EMB_DIM = 192
BATCH_SIZE = 128


def memory():
    """MiB of this process."""
    gc.collect()
    lines = Path("/proc/self/status").read_text().splitlines()
    held = next(line for line in lines if line.startswith("VmRSS"))
    return int(held.split()[1]) / 1024


def row(name, function):
    """Prints what a function takes, and gives its result."""
    before, start = memory(), time.process_time()
    result = function()
    seconds = time.process_time() - start
    print(f"| {name} | {seconds:.3g} | {memory() - before:.0f} |", flush=True)
    return result


def fictitious_rows(n_utterances, n_speakers):
    """Rows of a manifest in the form of VoxCeleb's."""
    for i in range(n_utterances):
        name = f"id{i % n_speakers:06d}/Tm-{i % 997:08d}/{i:07d}"
        yield name, f"/data/corpus/{name}.wav", name.split("/")[0], 4 + i % 90 / 10


def batches_of(utterances):
    """Batches of similar duration, which is all that is left of the loader."""
    return list(embedding_loader(utterances, 16000, 120.0).batch_sampler)


def time_store(utterances, path):
    """Rows of a store of so many embeddings."""
    store = EmbeddingStore(
        list(utterances),
        torch.randn(len(utterances), EMB_DIM),
        [item["speaker"] for item in utterances.values()],
        [item["duration"] for item in utterances.values()],
        "f00",
    )
    row("embedding store written", lambda: store.save(path))
    print(f"| its size (MiB) | | {path.stat().st_size / 2**20:.0f} |")
    row("embedding store read", lambda: EmbeddingStore.load(path))


def classifier_step(n_speakers):
    """A function that trains a classifier of so many speakers for one step."""
    classifier = Classifier(EMB_DIM, out_neurons=n_speakers)
    cost = LogSoftmaxWrapper(AdditiveAngularMargin(0.2, 30))
    optimizer = torch.optim.Adam(classifier.parameters())

    def step():
        embeddings = torch.randn(BATCH_SIZE, 1, EMB_DIM, requires_grad=True)
        speakers = torch.randint(n_speakers, (BATCH_SIZE, 1))
        cost(classifier(embeddings), speakers).backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    return step


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--n_utterances", type=int, default=1_100_000)
    parser.add_argument("--n_speakers", type=int, default=110_000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    n_utterances, n_speakers = arguments.n_utterances, arguments.n_speakers
    print("| | seconds | MiB |\n|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        manifest = Path(folder) / "train.csv"
        write_csv(manifest, MANIFEST_FIELDS, fictitious_rows(n_utterances, n_speakers))
        utterances = row("manifest read", lambda: read_manifest(manifest))
        speakers = row("speakers counted", lambda: speaker_classes(utterances))
        labels = row("label encoder", lambda: speaker_encoder(speakers))
        row("data set", lambda: training_dataset(utterances, labels, 16000, 3.0))
        sampler = StepSampler(n_utterances, 10, 10, BATCH_SIZE)
        row("order of an epoch", lambda: next(iter(sampler)))
        row("keys of embeddings", lambda: row_keys_of(utterances))
        row("batches of whole utterances", lambda: batches_of(utterances))
        time_store(utterances, Path(folder) / "embeddings.safetensors")
    step = row(
        "classifier and its first step", lambda: classifier_step(arguments.n_speakers)
    )
    row("a further step", step)


if __name__ == "__main__":
    main()
