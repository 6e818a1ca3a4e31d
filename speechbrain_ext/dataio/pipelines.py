"""SpeechBrain datasets and loaders for speaker embedding models."""

import os
import random

import speechbrain as sb
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.sampler import (
    DynamicBatchSampler,
    ReproducibleRandomSampler,
)

from speechbrain_ext.dataio.audio import read_crop
from speechbrain_ext.utils.errors import InputError


def training_dataset(utterances, label_encoder, sample_rate, crop_duration):
    """Random crops with speaker labels.

    An utterance shorter than the crop is repeated to fill it.

    Arguments
    ---------
    utterances : dict
        As of `read_manifest`.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Of the speakers.
    sample_rate : int
        In Hz.
    crop_duration : float
        In seconds.

    Returns
    -------
    DynamicItemDataset
        With the keys id, sig and spk_id_encoded.
    """
    dataset = DynamicItemDataset(utterances)
    n_samples = round(crop_duration * sample_rate)

    @sb.utils.data_pipeline.takes("wav", "duration")
    @sb.utils.data_pipeline.provides("sig")
    def random_crop(wav, duration):
        start = random.uniform(0, max(0.0, duration - crop_duration))
        crop = read_crop(wav, sample_rate, start, crop_duration)
        if len(crop) == 0:
            raise InputError(f"'{wav}' is shorter than its header says")
        repeats = -(-n_samples // len(crop))
        return crop.repeat(repeats)[:n_samples]

    @sb.utils.data_pipeline.takes("speaker")
    @sb.utils.data_pipeline.provides("spk_id_encoded")
    def speaker_label(speaker):
        return label_encoder.encode_sequence_torch([speaker])

    dataset.add_dynamic_item(random_crop)
    dataset.add_dynamic_item(speaker_label)
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    return dataset


def step_sampler(dataset, n_steps, batch_size, grad_accumulation_factor, seed):
    """Sampler whose epoch is a number of optimiser steps.

    It runs through the whole data set again and again, however small.

    Arguments
    ---------
    dataset : DynamicItemDataset
        To sample from.
    n_steps : int
        Optimiser steps of an epoch.
    batch_size : int
        Of each process.
    grad_accumulation_factor : int
        Batches of a step.
    seed : int
        Of the order.

    Returns
    -------
    ReproducibleRandomSampler
        Gives the same order after a restart.
    """
    n_processes = int(os.environ.get("WORLD_SIZE", 1))  # set by torchrun
    return ReproducibleRandomSampler(
        dataset,
        seed=seed,
        num_samples=n_steps * batch_size * grad_accumulation_factor * n_processes,
    )


def embedding_loader(utterances, sample_rate, max_batch_duration, num_workers=0):
    """Whole utterances in batches of similar duration.

    Arguments
    ---------
    utterances : dict
        As of `read_manifest`; one with a start (seconds) is a crop of that
        start and duration.
    sample_rate : int
        In Hz.
    max_batch_duration : float
        Seconds of speech in a batch; a longer utterance comes alone.
    num_workers : int
        Processes that read audio.

    Returns
    -------
    SaveableDataLoader
        Gives batches with the keys id and sig, longest first, so that a lack
        of memory shows at once.
    """
    dataset = DynamicItemDataset(
        {name: {"start": None, **item} for name, item in utterances.items()}
    )

    @sb.utils.data_pipeline.takes("wav", "start", "duration")
    @sb.utils.data_pipeline.provides("sig")
    def whole_utterance(wav, start, duration):
        if start is None:
            return read_crop(wav, sample_rate)
        return read_crop(wav, sample_rate, start, duration)

    dataset.add_dynamic_item(whole_utterance)
    dataset.set_output_keys(["id", "sig"])
    sampler = DynamicBatchSampler(
        dataset,
        max_batch_length=max_batch_duration,
        num_buckets=20,
        length_func=lambda item: min(item["duration"], max_batch_duration),
        shuffle=False,
        batch_ordering="descending",
    )
    return SaveableDataLoader(
        dataset,
        batch_sampler=sampler,
        collate_fn=PaddedBatch,
        num_workers=num_workers,
    )
