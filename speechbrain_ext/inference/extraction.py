"""Embeddings of a corpus, extracted once and resumable."""

import contextlib
import hashlib
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.datasets import embedding_loader
from speechbrain_ext.dataio.embedding_store import (
    ROW_PARTS,
    EmbeddingStore,
    row_keys_of,
    same_parts,
)
from speechbrain_ext.dataio.windows import Windows, cut_recording
from speechbrain_ext.inference.cores import fitting_duration, on_each_core
from speechbrain_ext.utils.cache_keys import stable_hash
from speechbrain_ext.utils.distributed import (
    in_all_processes,
    rank_and_processes,
    together,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import fingerprint_differences

logger = get_logger(__name__)

SECONDS_BETWEEN_PARTS = 60


def store_path(speaker_model, manifest, suffix="", store_folder=None):
    """Where the embeddings of a manifest are kept.

    Named by the model, so that a further trained one extracts its own.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The model.
    manifest : str or Path
        The utterances; their store is beside it where that folder can be
        written to.
    suffix : str
        Suffix of what is not the utterances themselves, such as crops of them.
    store_folder : str or Path
        Folder of the store where that of the manifest is read-only.

    Returns
    -------
    Path
        A .safetensors file.
    """
    manifest = Path(manifest)
    folder = manifest.parent
    if store_folder is not None and not os.access(folder, os.W_OK):
        folder = Path(store_folder)
    model = stable_hash(speaker_model.fingerprint)[:12]
    return folder / f"{manifest.stem}{suffix}-{model}.safetensors"


def extract_embeddings(
    speaker_model,
    utterances,
    path,
    max_batch_duration=120.0,
    num_workers=0,
    window_length=None,
    window_overlap=None,
):
    """Embeds each utterance once, or reads the store where that was done.

    What is in the store is used where model, audio file (path, size and time
    of change), start, duration and windows are the same; what is not is
    embedded again, and the log says how much and why. A file that is gone
    counts as unchanged. After a kill the utterances that are missing are
    embedded. Under torchrun the processes share the work, and all get the
    whole store.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The model.
    utterances : dict
        Utterances as `read_manifest` gives them; one with a start (seconds) is a crop.
    path : str or Path
        File of the store.
    max_batch_duration : float
        Seconds of speech in a batch at the most; on a processor there are fewer, as
        `fitting_duration` has it.
    num_workers : int
        Processes that read audio.
    window_length : float
        Seconds of the windows that longer utterances are cut into, whose
        embeddings are averaged with their lengths as weights; each utterance
        as a whole if None.
    window_overlap : float
        Seconds that windows share, at the least; none if None.

    Returns
    -------
    EmbeddingStore
        Embeddings of the utterances, in the order given.

    Raises
    ------
    InputError
        If the file is no embedding store, an utterance is too long to be
        embedded as a whole, or memory does not suffice.
    """
    store, _ = extract_missing(
        speaker_model, utterances, path, max_batch_duration, num_workers,
        window_length, window_overlap,
    )  # fmt: skip
    return store


def extract_missing(
    speaker_model,
    utterances,
    path,
    max_batch_duration=120.0,
    num_workers=0,
    window_length=None,
    window_overlap=None,
):
    """As `extract_embeddings`, and says what was embedded now.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        As of `extract_embeddings`.
    utterances : dict
        As of `extract_embeddings`.
    path : str or Path
        As of `extract_embeddings`.
    max_batch_duration : float
        As of `extract_embeddings`.
    num_workers : int
        As of `extract_embeddings`.
    window_length : float
        As of `extract_embeddings`.
    window_overlap : float
        As of `extract_embeddings`.

    Returns
    -------
    store : EmbeddingStore
        As of `extract_embeddings`.
    embedded : list of str
        Ids of what was not in the store before.

    Raises
    ------
    InputError
        As of `extract_embeddings`.
    """
    path = Path(path)
    windows = Windows.of_settings(window_length, window_overlap)
    fingerprint = speaker_model.fingerprint
    parts = path.with_name(f"{path.name}.parts")
    # All processes read the parts before one writes another.
    with together():
        keys = row_keys_of(utterances, windows)
        rows, stale = _read_rows(path, parts, fingerprint, utterances, keys)
        missing = sorted(set(utterances) - set(rows))
    if stale and if_main_process():
        reasons = ", ".join(f"{count} of other {part}" for part, count in stale.items())
        logger.warning(f"Stale embeddings in '{path}', {reasons}: embedded again.")
    # What one process finds, another may not see yet; they go the same way.
    if not in_all_processes(not missing and not parts.exists()):
        if rows:
            logger.info(f"{len(rows)} utterances were embedded before.")
        rank, n_processes = rank_and_processes()
        mine = {name: utterances[name] for name in missing[rank::n_processes]}
        row_of = {name: row for row, name in enumerate(utterances)}
        with together():
            for embeddings in embed_utterances(
                speaker_model, mine, windows, max_batch_duration, num_workers
            ):
                own_keys = keys[[row_of[name] for name in embeddings]]
                part = store_of_embeddings(
                    embeddings, utterances, own_keys, fingerprint
                )
                part.save(parts / f"{part_name(part.ids)}.safetensors")
        with together():
            if if_main_process():
                rows, _ = _read_rows(path, parts, fingerprint, utterances, keys)
                _store_of(rows, fingerprint).save(path)
                shutil.rmtree(parts, ignore_errors=True)
    return _select(EmbeddingStore.load(path), utterances), missing


def embed_utterances(
    speaker_model, utterances, windows, max_batch_duration=120.0, num_workers=0
):
    """Embeds utterances, without a store.

    Arguments
    ---------
    speaker_model : SpeakerRecognition
        The model.
    utterances : dict
        As of `extract_embeddings`.
    windows : Windows
        How long utterances are embedded; as a whole if None.
    max_batch_duration : float
        As of `extract_embeddings`.
    num_workers : int
        As of `extract_embeddings`.

    Yields
    ------
    dict
        What was embedded in about a minute: for each id the embedding on the CPU, of
        shape (dim,).

    Raises
    ------
    InputError
        As of `extract_embeddings`.
    """
    pieces = {name: cut_recording(item, windows) for name, item in utterances.items()}
    numbered = [(name, piece) for name, own in pieces.items() for piece in own]
    items = {str(number): piece for number, (_, piece) in enumerate(numbered)}
    if not items:
        return
    max_batch_duration = fitting_duration(speaker_model, max_batch_duration)
    loader = embedding_loader(
        items, speaker_model.sample_rate, max_batch_duration, num_workers
    )

    def encode(model, batch):
        longest = max((items[n] for n in batch.id), key=lambda i: i["duration"])
        with _memory_errors(longest):
            return model.encode_batch(*batch.sig)

    left = {name: len(own) for name, own in pieces.items()}
    sums, weights = {}, Counter()
    done, written = {}, time.monotonic()
    seconds = sum(piece["duration"] for piece in items.values())
    with tqdm(
        total=round(seconds),
        unit="s",
        desc="Embedding",
        dynamic_ncols=True,
        disable=None,  # where nobody looks
    ) as bar:
        for batch, encoded in on_each_core(encode, speaker_model, loader, len(loader)):
            wavs, lengths = batch.sig
            # In double precision a mean over one piece is the piece itself.
            for number, embedding, weight in zip(
                batch.id, encoded.squeeze(1).double().cpu(), lengths.tolist()
            ):
                name, piece = numbered[int(number)]
                weight = round(weight * wavs.shape[1])
                sums[name] = sums.get(name, 0.0) + weight * embedding
                weights[name] += weight
                left[name] -= 1
                if not left[name]:
                    done[name] = (sums.pop(name) / weights.pop(name)).float()
                bar.update(round(piece["duration"]))
            if done and time.monotonic() - written > SECONDS_BETWEEN_PARTS:
                yield done
                done, written = {}, time.monotonic()
    if done:
        yield done


@contextlib.contextmanager
def _memory_errors(item):
    """Says in one line what to do where memory does not suffice."""
    try:
        yield
    except RuntimeError as error:
        if "memory" not in str(error):
            raise
        raise InputError(
            f"memory does not suffice for the batch with '{item['wav']}' "
            f"({item['duration']:.0f} s); give a smaller max_batch_duration, or a "
            "window_length (seconds) that is shorter"
        ) from error


def part_name(ids):
    """Names a file by the utterances that are in it.

    No process and no restart overwrites what another one has embedded.

    Arguments
    ---------
    ids : iterable of str
        Utterance ids.

    Returns
    -------
    str
        16 hexadecimal digits.

    Example
    -------
    >>> part_name(["a/1", "b/1"]) == part_name(["a/1"])
    False
    """
    text = "\n".join(ids).encode(errors="surrogatepass")
    return hashlib.sha256(text).hexdigest()[:16]


def store_of_embeddings(embeddings, utterances, keys, fingerprint):
    """Makes a store of what `embed_utterances` gives.

    Arguments
    ---------
    embeddings : dict
        Embedding of each id.
    utterances : dict
        These utterances, and maybe others.
    keys : torch.Tensor
        What `row_keys_of` gives for each embedding.
    fingerprint : str
        Of the model.

    Returns
    -------
    EmbeddingStore
        The store.
    """
    return EmbeddingStore(
        list(embeddings),
        torch.stack(list(embeddings.values())),
        [utterances[name]["speaker"] for name in embeddings],
        [utterances[name]["duration"] for name in embeddings],
        fingerprint,
        keys,
    )


def stale_rows(store, fingerprint, row_of, keys):
    """Finds what cannot be used of embeddings that were extracted before.

    Arguments
    ---------
    store : EmbeddingStore
        The embeddings.
    fingerprint : str
        Of the model that is wanted.
    row_of : dict
        Row in `keys` of each utterance that is wanted; what is of others counts as
        current.
    keys : torch.Tensor
        What `row_keys_of` gives for the utterances that are wanted.

    Returns
    -------
    dict
        For each row that is stale, why.
    """
    other_model = fingerprint_differences(store.fingerprint, fingerprint)
    if other_model:
        return dict.fromkeys(range(len(store.ids)), f"model ({', '.join(other_model)})")
    kept = _keys_of(store)
    wanted = [row_of.get(name, -1) for name in store.ids]
    is_same = same_parts(kept, keys[wanted])
    is_same[[row == -1 for row in wanted]] = True
    return {
        row: ", ".join(
            p for p, same in zip(ROW_PARTS, is_same[row].tolist()) if not same
        )
        for row in (~is_same.all(dim=1)).nonzero().flatten().tolist()
    }


def _keys_of(store):
    """Keys of a store; zeros, which are those of nothing, where it has none."""
    if store.row_keys is None:
        return torch.zeros(len(store.ids), len(ROW_PARTS), dtype=torch.long)
    return store.row_keys


def _read_rows(path, parts, fingerprint, utterances, keys):
    """What the file and its parts hold, and how much of it is stale and why."""
    row_of = {name: row for row, name in enumerate(utterances)}
    rows, stale = {}, {}
    # A part that is being written, or was when its process was killed, is hidden.
    for file in (path, *sorted(parts.glob("[!.]*.safetensors"))):
        if not file.is_file():
            continue
        try:
            store = EmbeddingStore.load(file)
        except InputError as error:
            # Whatever else it may be, the file that was asked for is not ours
            # to overwrite.
            if file == path:
                raise
            logger.warning(f"{error}; its utterances are embedded again.")
            continue
        why_stale = stale_rows(store, fingerprint, row_of, keys)
        kept = _keys_of(store)
        columns = zip(store.ids, store.embeddings, store.speakers, store.durations)
        for i, (name, *row) in enumerate(columns):
            if i in why_stale:
                stale[name] = why_stale[i]
            elif name in row_of:
                rows[name] = (*row, kept[i])
            else:
                # Another call's; checked when it is wanted.
                rows.setdefault(name, (*row, kept[i]))
    reasons = Counter(
        reason for name, reason in stale.items() if name in row_of and name not in rows
    )
    return rows, reasons


def _store_of(rows, fingerprint):
    embeddings, speakers, durations, keys = zip(*rows.values())
    return EmbeddingStore(
        list(rows),
        torch.stack(embeddings),
        list(speakers),
        list(durations),
        fingerprint,
        torch.stack(keys),
    )


def _select(store, utterances):
    """The utterances' rows, with the speakers that they have now."""
    row_of = {name: row for row, name in enumerate(store.ids)}
    rows = torch.tensor([row_of[name] for name in utterances])
    return EmbeddingStore(
        list(utterances),
        store.embeddings[rows],
        [item["speaker"] for item in utterances.values()],
        [item["duration"] for item in utterances.values()],
        store.fingerprint,
        store.row_keys[rows],
    )
