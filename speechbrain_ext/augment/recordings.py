"""Recorded noise and rooms, such as MUSAN and RIRS_NOISES."""

import os
import random
import shutil
from pathlib import Path

import torch
from speechbrain.augment.preparation import prepare_dataset_from_URL
from speechbrain.augment.time_domain import AddNoise, AddReverb
from speechbrain.utils.logger import get_logger

from speechbrain_ext.augment.rooms import write_rooms_table
from speechbrain_ext.dataio.audio import require_header
from speechbrain_ext.dataio.corpora.base import audio_files
from speechbrain_ext.dataio.datasets import read_random_crop
from speechbrain_ext.utils.distributed import in_all_processes, on_main_process
from speechbrain_ext.utils.errors import InputError

logger = get_logger(__name__)

LACKING = {"noise": "added noise", "rir": "reverberation"}


class RecordedNoise:
    """A crop of a recording for each waveform, for SpeechBrain's `AddNoise`.

    Long recordings are not read as a whole, of any sample rate and channels.

    Arguments
    ---------
    folder : str or Path
        Folder with audio files anywhere below.
    sample_rate : int
        Sample rate in Hz.

    Raises
    ------
    InputError
        If there is no audio in the folder.

    Example
    -------
    >>> import numpy as np, soundfile
    >>> folder = getfixture("tmpdir")
    >>> soundfile.write(folder / "hum.wav", np.random.randn(8000), 16000)
    >>> RecordedNoise(folder)(torch.zeros(2, 12000)).shape
    torch.Size([2, 12000])
    """

    def __init__(self, folder, sample_rate=16000):
        self.sample_rate = sample_rate
        self.recordings = [
            (path, require_header(path).duration) for path in audio_below(folder)
        ]

    def __call__(self, waveforms):
        """Reads noise.

        Arguments
        ---------
        waveforms : torch.Tensor
            Waveforms, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of waveforms.
        """
        duration = waveforms.shape[1] / self.sample_rate
        crops = [
            read_random_crop(
                *random.choice(self.recordings), self.sample_rate, duration
            )
            for _ in waveforms
        ]
        return torch.stack(crops).to(waveforms)


def draw_anew(augmenter):
    """Lets SpeechBrain's readers of recordings draw from the current seed.

    `AddNoise` and `AddReverb` read on where their last call has ended, in an
    order that was drawn at their first one. After this call the order is of
    SB_GLOBAL_SEED and starts anew.

    Arguments
    ---------
    augmenter : speechbrain.augment.augmenter.Augmenter
        Its augmentations; None has none.
    """
    for augmentation in getattr(augmenter, "augmentations", {}).values():
        loader = getattr(augmentation, "data_loader", None)
        if loader is None:
            continue
        loader.sampler.seed = int(os.environ["SB_GLOBAL_SEED"])
        for reader in ("noise_data", "rir_data"):
            if hasattr(augmentation, reader):
                # At its end, which makes the next call start anew
                setattr(augmentation, reader, iter(()))


def audio_below(folder):
    """Audio files of a folder.

    Arguments
    ---------
    folder : str or Path
        Where to look, folders below included.

    Returns
    -------
    list of Path
        Sorted.

    Raises
    ------
    InputError
        If there are none.
    """
    paths = sorted(file.path for file in audio_files(folder, []))
    if not paths:
        raise InputError(f"there is no audio in '{folder}'")
    return paths


def rooms_table(folder, table, sample_rate):
    """Lists the room impulse responses of a folder for `AddReverb`.

    Arguments
    ---------
    folder : str or Path
        Folder with mono responses anywhere below.
    table : str or Path
        CSV to write.
    sample_rate : int
        Sample rate in Hz; responses of another one, and of several channels, are left
        out.

    Raises
    ------
    InputError
        If no response is left.
    """
    responses = []
    for path in audio_below(folder):
        header = require_header(path)
        if (header.sample_rate, header.n_channels) == (sample_rate, 1):
            responses.append((path, header.duration))
    if not responses:
        raise InputError(
            f"rir_folder: no mono response at {sample_rate} Hz in '{folder}'"
        )
    write_rooms_table(table, responses)


def recorded_augmentations(
    noise_folder,
    rir_folder,
    save_folder,
    sample_rate=16000,
    snr_low=0,
    snr_high=15,
    noise_url=None,
    rir_url=None,
):
    """Noise and reverberation of recordings, as far as there are any.

    What is missing is downloaded where a URL is given; what cannot be had is
    named in the log and left out.

    Arguments
    ---------
    noise_folder : str or Path
        Folder with noises, such as MUSAN's; None for no noise.
    rir_folder : str or Path
        Folder with room impulse responses, such as RIRS_NOISES; None for no rooms.
    save_folder : str or Path
        Folder to write the table of the rooms to.
    sample_rate : int
        Sample rate in Hz.
    snr_low : float
        Lowest signal-to-noise ratio, in dB.
    snr_high : float
        Highest ratio, in dB.
    noise_url : str
        Archive (zip) to download where noise_folder is not there.
    rir_url : str
        Address of a zip archive that is downloaded where rir_folder is not there.

    Returns
    -------
    list of torch.nn.Module
        SpeechBrain's `AddNoise` and `AddReverb`, for its `Augmenter`.

    Example
    -------
    >>> recorded_augmentations(None, "nowhere", getfixture("tmpdir"))
    []
    """
    augmentations = []
    if is_at_hand("noise", noise_folder, noise_url):
        noise = RecordedNoise(noise_folder, sample_rate)
        augmentations.append(
            AddNoise(snr_low=snr_low, snr_high=snr_high, noise_funct=noise)
        )
    if is_at_hand("rir", rir_folder, rir_url):
        table = Path(save_folder) / "rooms.csv"
        on_main_process(rooms_table, rir_folder, table, sample_rate)
        augmentations.append(
            AddReverb(
                str(table),
                reverb_sample_rate=sample_rate,
                clean_sample_rate=sample_rate,
            )
        )
    return augmentations


def is_at_hand(kind, folder, url):
    """Whether there are recordings; downloads them where they can be had.

    Arguments
    ---------
    kind : str
        "noise" or "rir", for the log.
    folder : str or Path
        Folder of the recordings; None where none are wanted.
    url : str
        Archive (zip) to download where the folder is not there, or None.

    Returns
    -------
    bool
        Whether the folder is there; if not, the log says what goes on without.

    Example
    -------
    >>> is_at_hand("noise", None, None)
    False
    """
    # Asked together: the main process may create it before another one looks.
    if in_all_processes(folder is not None and Path(folder).is_dir()):
        return True
    reason = f"{kind}_folder is not given"
    if folder is not None:
        reason = f"there is no folder '{folder}' and {kind}_url is not given"
        if url is not None:
            try:
                on_main_process(_download, url, Path(folder))
                return True
            except OSError as error:
                reason = f"{url} could not be downloaded ({error})"
    logger.warning(f"{reason}; training goes on without {LACKING[kind]}")
    return False


def _download(url, folder):
    # What a kill leaves half downloaded is no folder of recordings.
    partial = folder.with_name(f".partial-{folder.name}")
    shutil.rmtree(partial, ignore_errors=True)
    table = partial.with_suffix(".csv")
    prepare_dataset_from_URL(url, str(partial), "wav", str(table))
    table.unlink()
    partial.rename(folder)
