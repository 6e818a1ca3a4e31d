"""What a corpus of many utterances and speakers takes before and in a training.

    python benchmarks/scale.py --n_utterances 1100000 --n_speakers 110000 --threads 1

The manifest is made up; no audio is read. Each job runs once; its row has the time,
with one thread that of the processor, and what the process holds more in memory
afterwards (Linux says it). The step of the classifier is forward, AAM-softmax,
backward and Adam on random embeddings.
"""

import gc
import tempfile
from pathlib import Path

import torch
from measure import now, read_options, report, status_bytes
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


class Ledger:
    """Rows of what jobs take."""

    def __init__(self):
        self.rows = []

    def row(self, name, job):
        """Runs a job once, notes what it takes, and gives its result."""
        gc.collect()
        before, start = status_bytes("VmRSS"), now()
        result = job()
        seconds = now() - start
        gc.collect()
        held = status_bytes("VmRSS") - before
        self.rows.append({"job": name, "seconds": seconds, "held_bytes": held})
        return result


def fictitious_rows(n_utterances, n_speakers):
    """Rows of a manifest in the form of VoxCeleb's."""
    for i in range(n_utterances):
        name = f"id{i % n_speakers:06d}/Tm-{i % 997:08d}/{i:07d}"
        yield name, f"/data/corpus/{name}.wav", name.split("/")[0], 4 + i % 90 / 10


def batches_of(utterances):
    """Batches of similar duration, which is all that is left of the loader."""
    return list(embedding_loader(utterances, 16000, 120.0).batch_sampler)


def store_of(utterances):
    """A store of so many embeddings."""
    return EmbeddingStore(
        list(utterances),
        torch.randn(len(utterances), EMB_DIM),
        [item["speaker"] for item in utterances.values()],
        [item["duration"] for item in utterances.values()],
        "f00",
    )


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
    """Measures and reports."""
    options = read_options(
        __doc__, repeats=1, n_utterances=1_100_000, n_speakers=110_000
    )
    if options.tiny:
        options.n_utterances, options.n_speakers = 400, 20
    n_utterances, n_speakers = options.n_utterances, options.n_speakers
    ledger = Ledger()
    row = ledger.row
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
        store, path = store_of(utterances), Path(folder) / "embeddings.safetensors"
        row("embedding store written", lambda: store.save(path))
        row("embedding store read", lambda: EmbeddingStore.load(path))
        file_bytes = path.stat().st_size
    step = row("classifier and its first step", lambda: classifier_step(n_speakers))
    row("a further step", step)
    report(
        "scale",
        ledger.rows,
        options,
        utterances=n_utterances,
        speakers=n_speakers,
        embedding_store_bytes=file_bytes,
    )


if __name__ == "__main__":
    main()
