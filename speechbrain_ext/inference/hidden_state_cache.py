"""Hidden states of a frozen encoder, computed once and resumable."""

import contextlib
import math
import shutil
from pathlib import Path

import torch
from speechbrain.utils.distributed import if_main_process
from speechbrain.utils.logger import get_logger
from tqdm import tqdm

from speechbrain_ext.dataio.datasets import embedding_loader
from speechbrain_ext.dataio.embedding_store import row_keys_of
from speechbrain_ext.dataio.hidden_states import HiddenStates
from speechbrain_ext.dataio.windows import check_whole
from speechbrain_ext.inference.cores import fitting_duration, on_each_core
from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.utils.cache_keys import stable_hash
from speechbrain_ext.utils.distributed import (
    in_all_processes,
    rank_and_processes,
    together,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.fingerprints import model_fingerprint
from speechbrain_ext.utils.locks import in_turn

logger = get_logger(__name__)

PART_BYTES = 2**28  # what is lost at most when a process is killed
GIB = 2**30


def cache_hidden_states(
    encoder, manifests, folder, device="cpu", max_batch_duration=120.0, num_workers=0
):
    """Encodes each utterance once, as a whole, or finds what is there.

    The folder may be shared by any encoders, corpora and trainings: what is used is of
    the same encoder (its fingerprint), audio file (path, size and time of change),
    start and duration. One process at a time writes, and another one finds then what it
    has written; a killed one goes on where it was. Under torchrun the processes share
    the work. Encoded is in float32, and kept are all layers that the encoder gives, in
    float16.

    Arguments
    ---------
    encoder : Encoder
        A frozen encoder.
    manifests : list of dict
        Utterances as `read_manifest` gives them, in one or several groups.
    folder : str or Path
        Where to keep them.
    device : str
        Where to compute.
    max_batch_duration : float
        Seconds of speech in a batch.
    num_workers : int
        Processes that read audio.

    Returns
    -------
    list of HiddenStates
        One for each group.

    Raises
    ------
    InputError
        If the encoder is trained, the disk is too small, an utterance is too long to
        be encoded as a whole, or a hidden state is too large for float16.
    """
    check_storable(encoder)
    # An id may be of another utterance in another group.
    utterances = {
        f"{group} {name}": item
        for group, manifest in enumerate(manifests)
        for name, item in manifest.items()
    }
    for item in utterances.values():
        check_whole(
            item["duration"],
            f"hidden_state_cache: '{item['wav']}'",
            "cut it, or leave the cache out",
        )
    # With sample rate and layers, which are attributes of the encoder
    own = stable_hash([model_fingerprint(encoder), "float16"])[:16]
    folder = Path(folder) / own
    if not in_all_processes(not HiddenStates(folder, utterances).missing):
        _encode_missing(
            encoder, utterances, folder, device, max_batch_duration, num_workers
        )
    return [HiddenStates(folder, manifest) for manifest in manifests]


def check_storable(encoder):
    """Refuses an encoder whose hidden states cannot be stored to train on.

    Arguments
    ---------
    encoder : torch.nn.Module
        The encoder of a training.

    Raises
    ------
    InputError
        If it is trained, or gives no hidden states.
    """
    if not isinstance(encoder, Encoder) or encoder.n_inserted:
        raise InputError(
            f"hidden_state_cache: {type(encoder).__name__} gives no hidden states of "
            "which any stretch will do; leave the cache out"
        )
    if any(p.requires_grad for p in encoder.parameters()):
        raise InputError(
            "hidden_state_cache: the encoder is trained, so that its hidden states "
            "change; freeze it, or leave the cache out"
        )


def _encode_missing(
    encoder, utterances, folder, device, max_batch_duration, num_workers
):
    """Encodes what no other process has encoded before, or does now."""
    with contextlib.ExitStack() as stack:
        with together():
            if if_main_process():
                stack.enter_context(in_turn(folder))
        with together():
            missing = HiddenStates(folder, utterances).missing
            size = _check_space(encoder, {n: utterances[n] for n in missing}, folder)
        rank, n_processes = rank_and_processes()
        mine = {name: utterances[name] for name in sorted(missing)[rank::n_processes]}
        with together():
            if mine:
                _encode(
                    encoder, mine, folder, device, max_batch_duration, num_workers, size
                )


def _check_space(encoder, utterances, folder):
    """Says how much will be written, in GiB, and refuses what does not fit."""
    frame_bytes = 2 * encoder.n_layers * encoder.channels
    n_frames = sum(
        math.ceil(item["duration"] * encoder.sample_rate / encoder.hop) + 1
        for item in utterances.values()
    )
    needed = n_frames * frame_bytes / GIB
    free = shutil.disk_usage(folder).free / GIB
    hours = sum(item["duration"] for item in utterances.values()) / 3600
    size = (
        f"{encoder.n_layers} layers of {encoder.channels} channels of {hours:.2f} h "
        f"take {needed:.2f} GiB in '{folder}', which has {free:.2f} GiB"
    )
    if needed > free:
        raise InputError(
            f"hidden_state_cache: {size}; give a folder on a larger disk, an encoder "
            "with fewer layers, or leave the cache out"
        )
    if utterances and if_main_process():
        logger.info(f"Hidden states of {len(utterances)} utterances: {size}.")
    return needed


@torch.no_grad()
def _encode(encoder, utterances, folder, device, max_batch_duration, num_workers, size):
    encoder = encoder.to(device)
    max_batch_duration = fitting_duration(encoder, max_batch_duration)
    loader = embedding_loader(
        utterances, encoder.sample_rate, max_batch_duration, num_workers
    )
    seconds = sum(item["duration"] for item in utterances.values())
    part, n_bytes = {}, 0
    with tqdm(
        total=round(seconds),
        unit="s",
        desc=f"Encoding to {size:.1f} GiB",
        dynamic_ncols=True,
        disable=None,  # where nobody looks
    ) as bar:
        for batch, (states, lengths) in on_each_core(
            lambda own, batch: own(*(x.to(device) for x in batch.sig)),
            encoder,
            loader,
            len(loader),
        ):
            counts = (lengths * states.shape[2]).round().long().tolist()
            for row, (name, count) in enumerate(zip(batch.id, counts)):
                frames = states[:, row, :count].transpose(0, 1).half().cpu()
                if not frames.isfinite().all():
                    raise InputError(
                        f"hidden_state_cache: '{utterances[name]['wav']}' has hidden "
                        "states that float16 cannot hold; leave the cache out"
                    )
                part[name] = frames.contiguous()
                n_bytes += frames.numel() * frames.element_size()
                bar.update(round(utterances[name]["duration"]))
            if n_bytes >= PART_BYTES:
                _write(part, utterances, folder)
                part, n_bytes = {}, 0
    if part:
        _write(part, utterances, folder)
    encoder.to("cpu")


def _write(part, utterances, folder):
    keys = row_keys_of({name: utterances[name] for name in part})
    path = folder / f"{stable_hash(keys.tolist())[:16]}.safetensors"
    HiddenStates.write(path, list(part.values()), keys)
