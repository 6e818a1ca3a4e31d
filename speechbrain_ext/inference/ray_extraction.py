"""Embeddings of a corpus by all machines of a Ray cluster."""

import contextlib
import functools
import json
import os
import socket
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.dataio.parquet import parquet_files, read_parquet, write_parquet
from speechbrain_ext.dataio.speech import doubts_about
from speechbrain_ext.dataio.windows import Windows
from speechbrain_ext.inference.extraction import (
    embed_utterances,
    part_name,
    stale_rows,
    store_of_embeddings,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import fingerprint_differences
from speechbrain_ext.utils.locks import hold_folder
from speechbrain_ext.utils.packages import optional_package

logger = get_logger(__name__)

# What a worker embeds at a time, which is what is lost when it is killed, and a file
CHUNK_SECONDS = 3600
CHUNKS_OF_WORKER = 4  # at least, so that all end at about the same time


class Extraction(NamedTuple):
    """What was embedded, and recordings that say little, or nothing.

    Arguments
    ---------
    doubts : dict
        For each id that `doubts_about` names, why.
    without_embedding : list of str
        Ids for which the model gives no finite embedding.
    seconds : float
        Seconds of speech that were embedded.
    """

    doubts: dict[str, str]
    without_embedding: list[str]
    seconds: float


def extract_on_ray(
    load_speaker_model,
    utterances,
    folder,
    window_length=None,
    window_overlap=None,
    min_speech=None,
    num_workers=0,
    device=None,
):
    """Embeds each utterance once into a folder of Parquet files.

    The embeddings are those of `extract_embeddings`. Each GPU of the cluster, or each
    CPU where there is none, gets a worker with the model; Ray gives what a lost worker
    had to another one. What is in the folder is used where all that it depends on is
    the same, so that a run goes on where a killed one was. The cluster is the one of
    RAY_ADDRESS, the one that runs on this machine, or a new one of this machine alone.
    All machines must see the recordings and the folder by the same paths.

    Arguments
    ---------
    load_speaker_model : callable
        From a device, "cuda" or "cpu", to the `SpeakerRecognition`; each worker calls
        it, and must get the same model.
    utterances : dict
        As of `extract_embeddings`.
    folder : str or Path
        Where to write; see `read_embeddings`.
    window_length : float
        As of `extract_embeddings`.
    window_overlap : float
        As of `extract_embeddings`.
    min_speech : float
        As of `doubt_about`; what has less speech is left out.
    num_workers : int
        Processes of each worker that read audio; each needs a CPU.
    device : str
        "cuda" or "cpu"; if None, GPUs where the cluster has any.

    Returns
    -------
    Extraction
        Of what was embedded now.

    Raises
    ------
    InputError
        As of `extract_embeddings`, if the folder has other files of Parquet, or the
        machines do not share it or load different models.
    """
    ray = import_ray()
    windows = Windows.of_settings(window_length, window_overlap)
    folder = Path(folder).absolute()
    if folder.is_file():
        raise InputError(f"'{folder}' is a file; Ray's workers write to a folder")
    hold_folder(folder)
    settings = {"min_speech": str(min_speech)}
    fingerprint = load_speaker_model("cpu").fingerprint
    missing = _missing(folder, utterances, windows, fingerprint, settings)
    result = Extraction({}, [], 0.0)
    if not missing:
        return result
    with _connected(ray):
        n_workers, resources = _workers(ray, device, num_workers)
        chunks = _chunks(missing, n_workers)
        answers = ray.data.from_items(
            [{"utterances": json.dumps(chunk)} for chunk in chunks],
            override_num_blocks=len(chunks),
        ).map_batches(
            _Worker,
            fn_constructor_args=(
                load_speaker_model, fingerprint, folder, windows, min_speech,
                num_workers, settings,
            ),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=min(n_workers, len(chunks))),
            **resources,
        )  # fmt: skip
        seconds = sum(item["duration"] for item in missing.values())
        with tqdm(
            total=round(seconds),
            unit="s",
            desc=f"Embedding, {n_workers} workers",
            dynamic_ncols=True,
            disable=None,  # where nobody looks
        ) as bar:
            for row in answers.iter_rows():
                answer = json.loads(row["answer"])
                if answer["error"] is not None:
                    raise InputError(answer["error"])
                part = answer["part"]
                if part is not None and not (folder / part).is_file():
                    raise InputError(
                        f"a worker has written '{folder / part}', which is not there; "
                        "give a folder that all machines of the cluster share"
                    )
                result.doubts.update(answer["doubts"])
                result.without_embedding.extend(answer["without_embedding"])
                bar.update(round(answer["seconds"]))
    return result._replace(seconds=seconds)


class _Worker:
    """Embeds chunks of a corpus; each becomes a file."""

    def __init__(
        self,
        load_speaker_model,
        fingerprint,
        folder,
        windows,
        min_speech,
        num_workers,
        settings,
    ):
        self.load_speaker_model = load_speaker_model
        self.fingerprint = fingerprint
        self.folder = folder
        self.windows = windows
        self.min_speech = min_speech
        self.num_workers = num_workers
        self.settings = settings

    @functools.cached_property
    def model(self):
        import ray

        model = self.load_speaker_model("cuda" if ray.get_gpu_ids() else "cpu")
        other = fingerprint_differences(model.fingerprint, self.fingerprint)
        if other:
            raise InputError(
                f"'{socket.gethostname()}' has a model of other {' and '.join(other)}; "
                "give all machines of the cluster the same"
            )
        return model

    def __call__(self, batch):
        answers = []
        for utterances in map(json.loads, batch["utterances"]):
            answer = {
                "part": None,
                "doubts": {},
                "without_embedding": [],
                "seconds": sum(item["duration"] for item in utterances.values()),
                "error": None,
            }
            try:
                answer.update(self.embed(utterances))
            except InputError as error:
                # Of Ray it would come with pages of its own.
                answer["error"] = str(error)
            answers.append(json.dumps(answer))
        return {"answer": answers}

    def embed(self, utterances):
        doubts = doubts_about(utterances, self.min_speech)
        left_out = set() if self.min_speech is None else set(doubts)
        wanted = {n: item for n, item in utterances.items() if n not in left_out}
        embeddings = {}
        for some in embed_utterances(
            self.model, wanted, self.windows, num_workers=self.num_workers
        ):
            embeddings.update(some)
        finite = {n: row for n, row in embeddings.items() if row.isfinite().all()}
        part = None
        if finite:
            keys = row_keys_of({name: wanted[name] for name in finite}, self.windows)
            part = f"{part_name(utterances)}.parquet"
            write_parquet(
                self.folder / part,
                store_of_embeddings(finite, wanted, keys, self.fingerprint),
                **self.settings,
            )
        return {
            "part": part,
            "doubts": doubts,
            "without_embedding": sorted(set(embeddings) - set(finite)),
        }


def _missing(folder, utterances, windows, fingerprint, settings):
    """What has to be embedded; what is stale in the folder is taken out of it."""
    keys = row_keys_of(utterances, windows)
    row_of = {name: row for row, name in enumerate(utterances)}
    done, stale = set(), {}
    for file in parquet_files(folder):
        try:
            store, kept = read_parquet(file)
        except InputError as error:
            raise InputError(
                f"{error}; delete it, and its recordings are embedded again"
            ) from None
        if set(kept) != set(settings):
            raise InputError(
                f"'{file}' is not of an extraction by Ray; give another folder"
            )
        why_stale = stale_rows(store, fingerprint, row_of, keys)
        if kept != settings:
            why_stale = dict.fromkeys(range(len(store.ids)), ", ".join(settings))
        if why_stale:
            current = [row for row in range(len(store.ids)) if row not in why_stale]
            stale.update({store.ids[row]: why for row, why in why_stale.items()})
            if current:
                store = store.rows(current)
                write_parquet(file, store, **settings)
            else:
                file.unlink()
                continue
        done.update(store.ids)
    reasons = Counter(why for name, why in stale.items() if name in row_of)
    if reasons:
        shown = ", ".join(f"{count} of other {why}" for why, count in reasons.items())
        logger.warning(f"Stale embeddings in '{folder}', {shown}: embedded again.")
    n_done = sum(name in done for name in utterances)
    if n_done:
        logger.info(f"{n_done} utterances were embedded before.")
    return {
        name: {**item, "wav": os.path.abspath(item["wav"])}
        for name, item in utterances.items()
        if name not in done
    }


def _chunks(utterances, n_workers):
    """Parts of a corpus that take about as long each."""
    ids = sorted(utterances, key=lambda name: utterances[name]["duration"])
    seconds = sum(item["duration"] for item in utterances.values())
    n_chunks = max(CHUNKS_OF_WORKER * n_workers, round(seconds / CHUNK_SECONDS))
    n_chunks = min(n_chunks, len(ids))
    return [{n: utterances[n] for n in ids[i::n_chunks]} for i in range(n_chunks)]


def _workers(ray, device, num_workers):
    """How many workers there can be, and what each takes."""
    cluster = ray.cluster_resources()
    n_cpus, n_gpus = (int(cluster.get(kind, 0)) for kind in ("CPU", "GPU"))
    if device not in (None, "cpu", "cuda"):
        raise InputError(
            f"device '{device}': Ray gives each worker its GPU; give cuda, cpu or none"
        )
    if device == "cuda" and not n_gpus:
        raise InputError("device 'cuda': the cluster has no GPU")
    cpus = 1 + num_workers
    n_workers = n_cpus // cpus
    resources = {"num_cpus": cpus}
    if n_gpus and device != "cpu":
        n_workers = min(n_workers, n_gpus)
        resources["num_gpus"] = 1
    if not n_workers:
        raise InputError(
            f"num_workers {num_workers}: a worker needs {cpus} CPUs, and the cluster "
            f"has {n_cpus}; give a lower number"
        )
    return n_workers, resources


@contextlib.contextmanager
def _connected(ray):
    """Connects to the cluster, unless this process is connected already."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # for ours
    context.print_on_execution_start = False
    if ray.is_initialized():
        yield
        return
    ray.init(log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def import_ray():
    """Imports Ray.

    Returns
    -------
    module
        ray, with ray.data.

    Raises
    ------
    InputError
        If it is not installed.
    """
    ray, _ = (
        optional_package(name, "the engine ray needs", "ray")
        for name in ("ray", "ray.data")
    )
    return ray
