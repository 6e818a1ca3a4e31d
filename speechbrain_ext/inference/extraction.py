"""Embeddings of a corpus, extracted once and resumable."""

import hashlib
import os
import shutil
import time
from pathlib import Path

import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.datasets import embedding_loader
from speechbrain_ext.dataio.embedding_store import EmbeddingStore
from speechbrain_ext.utils.distributed import in_all_processes, together

logger = get_logger(__name__)

SECONDS_BETWEEN_PARTS = 60


def model_fingerprint(speaker_model):
    """Hash of a model's parameters and buffers.

    Arguments
    ---------
    speaker_model : torch.nn.Module
        The model.

    Returns
    -------
    str
        Hexadecimal SHA-256.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1)
    >>> before = model_fingerprint(layer)
    >>> _ = torch.nn.init.constant_(layer.bias, 7.0)
    >>> model_fingerprint(layer) == before
    False
    """
    digest = hashlib.sha256()
    for name, value in sorted(speaker_model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        flat = value.detach().cpu().contiguous().flatten()
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def extract_embeddings(
    speaker_model, utterances, path, max_batch_duration=120.0, num_workers=0
):
    """Embeds each utterance once, or reads the store where that was done.

    After a kill the utterances that are missing are embedded. Under torchrun
    the processes share the work, and all get the whole store.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The model.
    utterances : dict
        As of `read_manifest`.
    path : str or Path
        File of the store.
    max_batch_duration : float
        Seconds of speech in a batch.
    num_workers : int
        Processes that read audio.

    Returns
    -------
    EmbeddingStore
        With the utterances in the order given.

    Raises
    ------
    InputError
        If the file or its parts were made by another model.
    """
    path = Path(path)
    fingerprint = speaker_model.fingerprint
    # What one process finds, another may not see yet; they go the same way.
    with together():
        store = EmbeddingStore.load(path, fingerprint) if path.is_file() else None
    if in_all_processes(store is not None and set(utterances) <= set(store.ids)):
        return _select(store, utterances)
    parts = path.with_name(f"{path.name}.parts")
    # All processes read the parts before one writes another.
    with together():
        done = _read_parts(path, parts, fingerprint)
    rank = int(os.environ.get("RANK", 0))
    n_processes = int(os.environ.get("WORLD_SIZE", 1))
    missing = sorted(set(utterances) - set(done.ids))[rank::n_processes]
    if done.ids:
        logger.info(f"{len(done.ids)} utterances were embedded before.")
    with together():
        if missing:
            _embed_in_parts(
                speaker_model,
                {name: utterances[name] for name in missing},
                parts,
                fingerprint,
                max_batch_duration,
                num_workers,
            )
    with together():
        if if_main_process():
            _read_parts(path, parts, fingerprint).save(path)
            shutil.rmtree(parts, ignore_errors=True)
    return _select(EmbeddingStore.load(path, fingerprint), utterances)


def _embed_in_parts(
    speaker_model, utterances, parts, fingerprint, max_batch_duration, num_workers
):
    loader = embedding_loader(
        utterances, speaker_model.sample_rate, max_batch_duration, num_workers
    )
    seconds = sum(item["duration"] for item in utterances.values())
    pending, written = {}, time.monotonic()
    with tqdm(
        total=round(seconds), unit="s", desc="Embedding", dynamic_ncols=True
    ) as bar:
        for batch in loader:
            encoded = speaker_model.encode_batch(*batch.sig)
            pending.update(zip(batch.id, encoded.squeeze(1).float().cpu()))
            bar.update(round(sum(utterances[name]["duration"] for name in batch.id)))
            if time.monotonic() - written > SECONDS_BETWEEN_PARTS:
                _write_part(pending, utterances, parts, fingerprint)
                pending, written = {}, time.monotonic()
    if pending:
        _write_part(pending, utterances, parts, fingerprint)


def _write_part(embeddings, utterances, parts, fingerprint):
    ids = list(embeddings)
    # Named by its content: no process or restart overwrites another's part.
    name = hashlib.sha256("\n".join(ids).encode()).hexdigest()[:16]
    EmbeddingStore(
        ids,
        torch.stack(list(embeddings.values())),
        [utterances[i]["speaker"] for i in ids],
        [utterances[i]["duration"] for i in ids],
        fingerprint,
    ).save(parts / f"{name}.safetensors")


def _read_parts(path, parts, fingerprint):
    """One store of what the file and its parts hold."""
    rows = {}
    for file in [path, *sorted(parts.glob("*.safetensors"))]:
        if file.is_file():
            store = EmbeddingStore.load(file, fingerprint)
            columns = (store.embeddings, store.speakers, store.durations)
            rows.update(zip(store.ids, zip(*columns)))
    if not rows:
        return EmbeddingStore([], torch.empty(0, 0), [], [], fingerprint)
    embeddings, speakers, durations = zip(*rows.values())
    return EmbeddingStore(
        list(rows),
        torch.stack(embeddings),
        list(speakers),
        list(durations),
        fingerprint,
    )


def _select(store, utterances):
    row = {name: i for i, name in enumerate(store.ids)}
    rows = [row[name] for name in utterances]
    return EmbeddingStore(
        list(utterances),
        store.embeddings[torch.tensor(rows)],
        [store.speakers[i] for i in rows],
        [store.durations[i] for i in rows],
        store.fingerprint,
    )
