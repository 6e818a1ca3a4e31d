"""SpeechBrain datasets and loaders for speaker embedding models."""

import functools
import itertools
import random

import numpy as np
import torch
from speechbrain.augment.time_domain import SpeedPerturb
from speechbrain.dataio.batch import PaddedBatch
from speechbrain.dataio.dataloader import SaveableDataLoader
from speechbrain.dataio.dataset import DynamicItemDataset
from speechbrain.dataio.encoder import CategoricalEncoder
from torch.utils.data import Sampler

from speechbrain_ext.dataio.audio import PackedFile, read_crop
from speechbrain_ext.utils.distributed import rank_and_processes
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.randomness import seeded
from speechbrain_ext.utils.signals import outlive_first_signal

# Utterances of shards that are put in another order at once
SHUFFLED = 2048
# Of the longest utterance of a batch, what the shortest one has at the least
LEAST_SHARE = 0.8


class DrawnDataset(DynamicItemDataset):
    """A DynamicItemDataset whose random items are those of their key.

    A key is an index, or an index and any numbers that tell a draw, such as
    those of `StepSampler`. All that the pipeline draws depends on the key, in
    whatever process it runs and whatever ran before.

    Example
    -------
    >>> dataset = DrawnDataset({"a": {"wav": "a.wav"}, "b": {"wav": "b.wav"}})
    >>> dataset.add_dynamic_item(lambda wav: random.random(), "wav", "start")
    >>> dataset.set_output_keys(["id", "start"])
    >>> dataset[1, 1986, 7] == dataset[1, 1986, 7], dataset[1] == dataset[1, 5]
    (True, False)
    """

    def __getitem__(self, key):
        index, *draw = key if isinstance(key, tuple) else (key,)
        with seeded(index, *draw):
            return super().__getitem__(index)

    @property
    def shard_sizes(self):
        """Items of each shard, a list of int; None where the audio is in no shards."""
        wavs = (item.get("wav") for item in self.data.values())
        shards = [wav.shard for wav in wavs if isinstance(wav, PackedFile)]
        return [len(list(same)) for _, same in itertools.groupby(shards)] or None


def training_dataset(
    utterances, label_encoder, sample_rate, crop_duration, speeds=(100,)
):
    """Random crops with speaker labels.

    An utterance shorter than the crop is repeated to fill it.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.
    label_encoder : speechbrain.dataio.encoder.CategoricalEncoder
        Encoder of the names that `speaker_classes` gives.
    sample_rate : int
        Sample rate in Hz.
    crop_duration : float
        Duration of a crop in seconds.
    speeds : list of int
        Speeds in per cent; one is drawn for each crop, and a speaker at another speed
        than 100 is another speaker.

    Returns
    -------
    DrawnDataset
        Data set with the keys id, sig and spk_id_encoded.
    """
    dataset = DrawnDataset(utterances)
    draw = functools.partial(
        _draw_crop,
        label_encoder=label_encoder,
        sample_rate=sample_rate,
        crop_duration=crop_duration,
        speeds=speeds,
        change_speed={
            speed: SpeedPerturb(sample_rate, [speed]) for speed in set(speeds) - {100}
        },
    )
    dataset.add_dynamic_item(
        draw, ["wav", "duration", "speaker"], ["sig", "spk_id_encoded"]
    )
    dataset.set_output_keys(["id", "sig", "spk_id_encoded"])
    return dataset


# What reads items is no function within another one, which could not be sent to the
# processes that read, where these are not forked (macOS, Python 3.14).
def _draw_crop(
    wav, duration, speaker, label_encoder, sample_rate, crop_duration, speeds,
    change_speed,
):  # fmt: skip
    speed = random.choice(speeds)
    crop = read_random_crop(wav, duration, sample_rate, crop_duration * speed / 100)
    if speed != 100:
        crop = change_speed[speed](crop.unsqueeze(0)).squeeze(0)
    # A resampled crop may lack a sample.
    n_samples = round(crop_duration * sample_rate)
    yield torch.nn.functional.pad(crop, (0, n_samples - len(crop)))
    yield label_encoder.encode_sequence_torch([speaker_class(speaker, speed)])


def speaker_class(speaker, speed):
    """Name of a speaker at a speed.

    Arguments
    ---------
    speaker : str
        The speaker.
    speed : int
        Speed in per cent.

    Returns
    -------
    str
        The name of the class.

    Example
    -------
    >>> speaker_class("id10001", 100), speaker_class("id10001", 90)
    ('id10001', 'id10001 at 90 %')
    """
    return speaker if speed == 100 else f"{speaker} at {speed} %"


def speaker_classes(utterances, speeds=(100,)):
    """Names of all speakers at all speeds.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.
    speeds : list of int
        Speeds in per cent.

    Returns
    -------
    list of str
        Sorted.

    Example
    -------
    >>> speaker_classes({"1.wav": {"speaker": "a"}}, [100, 100, 90])
    ['a', 'a at 90 %']
    """
    speakers = {item["speaker"] for item in utterances.values()}
    return sorted(
        speaker_class(speaker, speed) for speaker in speakers for speed in set(speeds)
    )


def speaker_encoder(speakers):
    """An encoder of names of speakers, or of other classes.

    SpeechBrain's own way to fill it looks for a free index from 0 on, name by name,
    which takes minutes for 100,000 speakers.

    Arguments
    ---------
    speakers : list of str
        Different names; the first one becomes 0.

    Returns
    -------
    speechbrain.dataio.encoder.CategoricalEncoder
        The encoder.

    Example
    -------
    >>> speaker_encoder(["ann", "bob"]).encode_sequence_torch(["bob"])
    tensor([1])
    """
    label_encoder = CategoricalEncoder()
    label_encoder.ind2lab = dict(enumerate(speakers))
    label_encoder.lab2ind = {name: index for index, name in enumerate(speakers)}
    label_encoder.expect_len(len(speakers))
    return label_encoder


def read_random_crop(wav, duration, sample_rate, crop_duration):
    """Reads a crop from anywhere; a shorter utterance is repeated to fill it.

    Arguments
    ---------
    wav : str
        Audio file.
    duration : float
        Duration of the file, in seconds.
    sample_rate : int
        Sample rate in Hz.
    crop_duration : float
        Duration of a crop in seconds.

    Returns
    -------
    torch.Tensor
        Waveform, of shape (time,).

    Raises
    ------
    InputError
        If the file ends before the crop begins.
    """
    n_samples = round(crop_duration * sample_rate)
    start = random.uniform(0, max(0.0, duration - crop_duration))
    crop = read_crop(wav, sample_rate, start, crop_duration)
    if len(crop) == 0:
        raise InputError(f"'{wav}' is shorter than its header says")
    repeats = -(-n_samples // len(crop))
    return crop.repeat(repeats)[:n_samples]


def crop_pair_dataset(utterances, sample_rate, crop_duration, change_voice=None):
    """Two random crops of each utterance, for pre-training without labels.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.
    sample_rate : int
        Sample rate in Hz.
    crop_duration : float
        Duration of a crop in seconds.
    change_voice : callable
        Function from waveforms to waveforms of another voice, both of shape (batch,
        time); it may shorten them by a fifth.

    Returns
    -------
    DrawnDataset
        Data set with the keys id, first and second.
    """
    dataset = DrawnDataset(utterances)
    draw = functools.partial(
        _draw_crop_pair,
        sample_rate=sample_rate,
        crop_duration=crop_duration,
        change_voice=change_voice,
    )
    dataset.add_dynamic_item(draw, ["wav", "duration"], ["first", "second"])
    dataset.set_output_keys(["id", "first", "second"])
    return dataset


def _draw_crop_pair(wav, duration, sample_rate, crop_duration, change_voice):
    read_duration = crop_duration if change_voice is None else 1.25 * crop_duration
    crops = torch.stack(
        [read_random_crop(wav, duration, sample_rate, read_duration) for _ in range(2)]
    )
    if change_voice is not None:
        crops = change_voice(crops)
    yield from crops[:, : round(crop_duration * sample_rate)]


class StepSampler(Sampler):
    """Batches of a training, an epoch of which is a number of steps.

    The batches run through the whole data set again and again, however small,
    in an order of its own each time. They and the seeds of their crops depend
    on the optimiser step alone: a resumed training goes on with the batches
    that an uninterrupted one gets, and all processes together get those of
    one process with as many times the batch size. The last epoch may be
    shorter.

    Where the audio is in shards each process has shards of its own, others each
    time, and reads one after the other. Together they have each item once, as
    without shards: the sequence of shards is cut where the share of a process ends,
    so that two may read a part of the same one. The order within `SHUFFLED` items
    is random. It depends on the number of processes and the batch size too; where
    these change on the way, items of the present round may come twice or not at all.

    Arguments
    ---------
    n_items : int
        Items of the data set.
    number_of_steps : int
        Optimiser steps of the training.
    steps_per_epoch : int
        Optimiser steps of an epoch.
    batch_size : int
        Items of a batch in each process.
    grad_accumulation_factor : int
        Batches of a step.
    seed : int
        Seed of the order and of the crops.
    rank : int
        Number of this process.
    n_processes : int
        How many there are.
    shard_sizes : list of int
        Items of each shard, as `DrawnDataset.shard_sizes` has them.

    Example
    -------
    >>> sampler = StepSampler(
    ...     8, number_of_steps=3, steps_per_epoch=2, batch_size=4, seed=1986
    ... )
    >>> sorted(index for batch in sampler for index, *_ in batch)
    [0, 1, 2, 3, 4, 5, 6, 7]
    >>> sampler.set_epoch(2)
    >>> len(sampler), len(list(sampler))
    (1, 1)
    """

    def __init__(
        self,
        n_items,
        number_of_steps,
        steps_per_epoch,
        batch_size,
        grad_accumulation_factor=1,
        seed=0,
        rank=0,
        n_processes=1,
        shard_sizes=None,
    ):
        self.n_items = n_items
        self.number_of_steps = number_of_steps
        self.steps_per_epoch = steps_per_epoch
        self.batch_size = batch_size
        self.grad_accumulation_factor = grad_accumulation_factor
        self.seed = seed
        self.rank = rank
        self.n_processes = n_processes
        self.shard_sizes = shard_sizes
        self.epoch = 1
        self.steps_done = 0

    def set_epoch(self, epoch):
        """Chooses the epoch of the next iteration.

        Arguments
        ---------
        epoch : int
            Number of the epoch, from 1.
        """
        self.epoch = epoch

    def resume(self, steps_done):
        """Leaves out the steps before a checkpoint.

        Arguments
        ---------
        steps_done : int
            Optimiser steps of the checkpoint.
        """
        self.steps_done = steps_done

    def _steps(self):
        """The epoch's steps, those before a checkpoint among them."""
        first = (self.epoch - 1) * self.steps_per_epoch
        last = min(first + self.steps_per_epoch, self.number_of_steps)
        return range(first, last)

    def __len__(self):
        return len(self._steps()) * self.grad_accumulation_factor

    def __iter__(self):
        """Yields lists of keys of a `DrawnDataset`."""
        order_of = None
        for step in self._steps():
            if step < self.steps_done:
                continue
            for part in range(self.grad_accumulation_factor):
                number = step * self.grad_accumulation_factor + part
                first = (number * self.n_processes + self.rank) * self.batch_size
                batch = []
                for position in range(first, first + self.batch_size):
                    round_, place = divmod(position, self.n_items)
                    if round_ != order_of:
                        order = self._order(round_)
                        order_of = round_
                    batch.append((order[place], self.seed, position))
                yield batch

    def _order(self, round_):
        """The items at the places of a round, a list of their numbers."""
        rng = np.random.default_rng([self.seed, round_])
        if self.shard_sizes is None:
            return rng.permutation(self.n_items).tolist()
        items = np.split(np.arange(self.n_items), np.cumsum(self.shard_sizes)[:-1])
        items = np.concatenate([items[i] for i in rng.permutation(len(items))])
        positions = np.arange(self.n_items) + round_ * self.n_items
        rank_of = positions // self.batch_size % self.n_processes
        counts = np.bincount(rank_of, minlength=self.n_processes)
        for share in np.split(items, np.cumsum(counts)[:-1]):
            for first in range(0, len(share), SHUFFLED):
                rng.shuffle(share[first : first + SHUFFLED])
        order = np.empty_like(items)
        order[np.argsort(rank_of, kind="stable")] = items
        return order.tolist()


def own_share(utterances):
    """The utterances that this process embeds where several share the work.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them.

    Returns
    -------
    dict
        The share of this process, of about the same duration as those of the
        others. With more processes than utterances some have one that is another's
        too.

    Example
    -------
    >>> list(own_share({"a": {"duration": 2.0}, "b": {"duration": 1.0}}))
    ['b', 'a']
    """
    rank, n_processes = rank_and_processes()
    names = sorted(utterances, key=lambda name: utterances[name]["duration"])
    return {name: utterances[name] for name in names[rank::n_processes] or names[:1]}


def embedding_loader(utterances, sample_rate, max_batch_duration, num_workers=0):
    """Whole utterances in batches of similar duration.

    Arguments
    ---------
    utterances : dict
        Utterances as `read_manifest` gives them; one with a start (seconds) is a crop
        of that start and duration.
    sample_rate : int
        Sample rate in Hz.
    max_batch_duration : float
        Seconds of speech in a batch; a longer utterance comes alone.
    num_workers : int
        Processes that read audio.

    Returns
    -------
    SaveableDataLoader
        Gives batches with the keys id and sig, as of `loader_by_duration`.
    """
    dataset = DynamicItemDataset(
        {name: {"start": None, **item} for name, item in utterances.items()}
    )
    read = functools.partial(_read_utterance, sample_rate=sample_rate)
    dataset.add_dynamic_item(read, ["wav", "start", "duration"], "sig")
    dataset.set_output_keys(["id", "sig"])
    return loader_by_duration(dataset, max_batch_duration, num_workers)


def _read_utterance(wav, start, duration, sample_rate):
    if start is None:
        return read_crop(wav, sample_rate)
    crop = read_crop(wav, sample_rate, start, duration)
    if len(crop) == 0:
        raise InputError(f"'{wav}' is shorter than its header says")
    return crop


def loader_by_duration(dataset, max_batch_duration, num_workers=0):
    """Whole utterances in padded batches of similar duration.

    Arguments
    ---------
    dataset : DynamicItemDataset
        Data set whose items have a duration (seconds).
    max_batch_duration : float
        As of `embedding_loader`.
    num_workers : int
        Processes that read the items.

    Returns
    -------
    SaveableDataLoader
        Gives batches, longest first, so that a lack of memory shows at once.
    """
    durations = [dataset.data[name]["duration"] for name in dataset.data_ids]
    return SaveableDataLoader(
        dataset,
        batch_sampler=batches_by_duration(durations, max_batch_duration),
        collate_fn=PaddedBatch,
        num_workers=num_workers,
        worker_init_fn=outlive_first_signal,
    )


def batches_by_duration(durations, max_batch_duration):
    """Puts neighbours in the order of their durations into batches.

    A fifth of a batch is padding at the most, and next to nothing where utterances are
    many, whereas SpeechBrain's buckets of a geometric series leave a fifth.

    Arguments
    ---------
    durations : list of float
        Seconds of each utterance.
    max_batch_duration : float
        Seconds of a batch, padding included; a longer utterance comes alone.

    Returns
    -------
    list of list of int
        Positions of the utterances of each batch, the longest first.

    Example
    -------
    >>> batches_by_duration([3.0, 9.0, 2.9, 5.0, 3.1], 6.0)
    [[1], [3], [4], [0, 2]]
    """
    batches, longest = [], 0.0
    for i in sorted(range(len(durations)), key=lambda i: -durations[i]):
        is_full = not batches or (len(batches[-1]) + 1) * longest > max_batch_duration
        if is_full or durations[i] < LEAST_SHARE * longest:
            batches.append([])
            longest = durations[i]
        batches[-1].append(i)
    return batches
