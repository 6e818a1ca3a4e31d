"""Simulated room impulse responses, where no recorded ones are at hand."""

import csv
import functools
import random
from pathlib import Path

import soundfile
from tqdm import tqdm

from speechbrain_ext.utils.cache_keys import make_once
from speechbrain_ext.utils.distributed import on_main_process
from speechbrain_ext.utils.files import atomic_path
from speechbrain_ext.utils.packages import optional_package


def simulated_rooms(folder, n_rooms=200, sample_rate=16000, seed=1986):
    """Simulates rooms with the image source method of pyroomacoustics.

    Rooms of 3 to 10 m, reverberation times of 0.15 to 0.7 s, speaker and
    microphone anywhere. A complete folder is left as it is; one with other
    rooms, or that was moved, is made again, and the log says so.

    Arguments
    ---------
    folder : str or Path
        Where to write the impulse responses and rooms.csv.
    n_rooms : int
        Number of rooms.
    sample_rate : int
        Sample rate in Hz.
    seed : int
        Seed of the draw.

    Returns
    -------
    str
        Path of rooms.csv, as SpeechBrain's `AddReverb` takes it.

    Raises
    ------
    InputError
        If pyroomacoustics is not installed.

    Example
    -------
    >>> from speechbrain.augment.time_domain import AddReverb
    >>> import torch
    >>> rooms = simulated_rooms(getfixture("tmpdir"), n_rooms=2)
    >>> AddReverb(rooms)(torch.rand(2, 8000)).shape
    torch.Size([2, 8000])
    """
    folder = Path(folder)
    table = folder / "rooms.csv"
    key = {
        "folder": folder.absolute(),
        "n_rooms": n_rooms,
        "sample_rate": sample_rate,
        "seed": seed,
    }
    write = functools.partial(_write_rooms, folder, table, n_rooms, sample_rate, seed)
    on_main_process(make_once, table, key, write)
    return str(table)


def _write_rooms(folder, table, n_rooms, sample_rate, seed):
    pyroomacoustics = optional_package(
        "pyroomacoustics", "simulated rooms need", "rooms"
    )
    rng = random.Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in tqdm(range(n_rooms), desc="Simulating rooms"):
        size = [rng.uniform(3, 10), rng.uniform(3, 10), rng.uniform(2.4, 4)]
        # Sabine's formula has no solution for a large, very dry room.
        reverberation = max(rng.uniform(0.15, 0.7), 0.06 * min(size))
        absorption, order = pyroomacoustics.inverse_sabine(reverberation, size)
        room = pyroomacoustics.ShoeBox(
            size,
            fs=sample_rate,
            materials=pyroomacoustics.Material(absorption),
            max_order=min(order, 20),
        )
        for add in (room.add_source, room.add_microphone):
            add([rng.uniform(0.5, length - 0.5) for length in size])
        room.compute_rir()
        path = folder / f"room{number:04d}.wav"
        response = room.rir[0][0]
        response = response / abs(response).max()
        # Another training may be reading the room that this one replaces.
        with atomic_path(path) as partial:
            soundfile.write(partial, response, sample_rate, subtype="FLOAT")
        rows.append((path, len(response) / sample_rate))
    write_rooms_table(table, rows)


def write_rooms_table(table, responses):
    """Lists room impulse responses as SpeechBrain's `AddReverb` takes them.

    Arguments
    ---------
    table : str or Path
        CSV to write.
    responses : list of tuple
        Path of the audio file and duration (seconds) of each response.
    """
    with atomic_path(table) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(("ID", "duration", "wav", "wav_format", "wav_opts"))
            writer.writerows(
                (number, duration, path.absolute(), "wav", "")
                for number, (path, duration) in enumerate(responses)
            )
