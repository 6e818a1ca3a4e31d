"""One kind of noise or room for each utterance, as arXiv 2512.22148 trains.

Reverberation, noise, music, babble and television are as likely as each other;
levels and durations are those of the authors' published code.
"""

import random
from pathlib import Path

import soundfile
import torch
import torchaudio
from torch import nn

from speechbrain_ext.augment.recordings import audio_below, is_at_hand
from speechbrain_ext.dataio.audio import require_header
from speechbrain_ext.dataio.datasets import read_random_crop
from speechbrain_ext.utils.errors import InputError

# Share of the utterance that a recording is heard in
DURATIONS = ((1.0, 1.0), (0.4, 0.6), (0.2, 0.4))
# Recordings that are heard at once, and signal-to-noise ratios of each, in dB
NOISE = {"n_recordings": (1, 1), "snr": (0, 15)}
MUSIC = {"n_recordings": (1, 1), "snr": (5, 15)}
BABBLE = {"n_recordings": (4, 7), "snr": (13, 20)}
FLOOR = 1e-4  # added to powers


class OneKindEach(nn.Module):
    """Changes some utterances of a batch, each by one kind of augmentation.

    Takes the place of SpeechBrain's `Augmenter`, which draws once for a batch.

    Arguments
    ---------
    kinds : list of callable
        Functions from a waveform of shape (time,) to another one of that shape.
    prob : float
        Probability that an utterance is changed.

    Example
    -------
    >>> augment = OneKindEach([lambda wav: -wav], prob=1.0)
    >>> augment(torch.ones(1, 3), torch.ones(1))
    (tensor([[-1., -1., -1.]]), tensor([1.]))
    """

    def __init__(self, kinds, prob=0.6):
        super().__init__()
        self.kinds = list(kinds)
        self.prob = prob

    def forward(self, wavs, lengths):
        """Changes the waveforms.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, of shape (batch, time).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Output of the shape of wavs.
        torch.Tensor
            The lengths, as they were.
        """
        if not self.kinds:
            return wavs, lengths
        changed = [
            random.choice(self.kinds)(wav) if random.random() < self.prob else wav
            for wav in wavs
        ]
        return torch.stack(changed), lengths

    def replicate_labels(self, labels):
        """Gives the labels as they are: no utterance is there twice.

        Arguments
        ---------
        labels : torch.Tensor
            Labels of the batch.

        Returns
        -------
        torch.Tensor
            The same.
        """
        return labels


class Reverberation:
    """A room of recorded or simulated impulse responses, which keeps the level.

    Arguments
    ---------
    folder : str or Path
        Folder with responses anywhere below, of any number of channels, one of which is
        drawn.
    sample_rate : int
        Sample rate in Hz; responses of another one are left out.

    Raises
    ------
    InputError
        If no response is left.
    """

    def __init__(self, folder, sample_rate=16000):
        self.responses = [
            path
            for path in audio_below(folder)
            if require_header(path).sample_rate == sample_rate
        ]
        if not self.responses:
            raise InputError(
                f"rir_folder: no response at {sample_rate} Hz in '{folder}'"
            )

    def __call__(self, wav):
        """Convolves a waveform of shape (time,) with a response."""
        channels, _ = soundfile.read(
            random.choice(self.responses), dtype="float32", always_2d=True
        )
        response = torch.from_numpy(channels[:, random.randrange(channels.shape[1])])
        response = (response / response.norm().clamp(min=FLOOR)).to(wav)
        return torchaudio.functional.fftconvolve(wav, response)[: len(wav)]


class AddedRecordings:
    """Recordings that are heard beside an utterance.

    Arguments
    ---------
    folder : str or Path
        Folder with recordings anywhere below.
    sample_rate : int
        Sample rate in Hz.
    n_recordings : tuple of int
        Fewest and most that are heard at once.
    snr : tuple of float
        Lowest and highest signal-to-noise ratio of each, in dB.
    durations : tuple of tuple of float
        Ranges, one of which is drawn, of the share of the utterance in which
        they are heard.

    Example
    -------
    >>> import numpy as np
    >>> folder = getfixture("tmpdir")
    >>> soundfile.write(folder / "hum.wav", np.random.randn(8000), 16000)
    >>> noise = AddedRecordings(folder, snr=(0, 0), durations=((1.0, 1.0),))
    >>> wav = torch.randn(16000)
    >>> added = noise(wav) - wav
    >>> bool((added.pow(2).mean() / wav.pow(2).mean() - 1).abs() < 0.01)
    True
    """

    def __init__(
        self,
        folder,
        sample_rate=16000,
        n_recordings=(1, 1),
        snr=(0, 15),
        durations=DURATIONS,
    ):
        self.sample_rate = sample_rate
        self.n_recordings = n_recordings
        self.snr = snr
        self.durations = durations
        self.recordings = [
            (path, require_header(path).duration) for path in audio_below(folder)
        ]

    def __call__(self, wav):
        """Adds recordings to a waveform of shape (time,)."""
        result = wav.clone()
        power = wav.pow(2).mean() + FLOOR
        shares = random.choice(self.durations)
        for _ in range(random.randint(*self.n_recordings)):
            n_samples = max(1, int(random.uniform(*shares) * len(wav)))
            noise = read_random_crop(
                *random.choice(self.recordings),
                self.sample_rate,
                n_samples / self.sample_rate,
            ).to(wav)
            ratio = 10 ** (random.uniform(*self.snr) / 10)
            gain = (power / (noise.pow(2).mean() + FLOOR) / ratio).sqrt()
            start = random.randint(0, len(wav) - n_samples)
            result[start : start + n_samples] += gain * noise
        return result


class Television:
    """Voices and music behind a whole utterance.

    Arguments
    ---------
    speech_folder : str or Path
        Folder with recordings of speech.
    music_folder : str or Path
        Folder with recordings of music.
    sample_rate : int
        Sample rate in Hz.
    """

    def __init__(self, speech_folder, music_folder, sample_rate=16000):
        whole = {"sample_rate": sample_rate, "durations": DURATIONS[:1]}
        self.voices = AddedRecordings(speech_folder, **BABBLE, **whole)
        self.music = AddedRecordings(music_folder, **MUSIC, **whole)

    def __call__(self, wav):
        """Adds both to a waveform of shape (time,)."""
        return self.music(self.voices(wav))


def one_kind_each(
    noise_folder,
    rir_folder,
    sample_rate=16000,
    prob=0.6,
    noise_url=None,
    rir_url=None,
):
    """The five kinds of arXiv 2512.22148, as far as there are recordings.

    What is missing is downloaded where a URL is given; what cannot be had is
    named in the log and left out.

    Arguments
    ---------
    noise_folder : str or Path
        MUSAN, whose folders noise, music and speech give four kinds; a folder
        without these is noise as a whole. None for none of the four.
    rir_folder : str or Path
        Folder with room impulse responses, such as RIRS_NOISES; None for no rooms.
    sample_rate : int
        Sample rate in Hz.
    prob : float
        Probability that an utterance is changed.
    noise_url : str
        Archive (zip) to download where noise_folder is not there.
    rir_url : str
        Address of a zip archive that is downloaded where rir_folder is not there.

    Returns
    -------
    OneKindEach
        The augmentation of waveforms.

    Example
    -------
    >>> one_kind_each(None, None).kinds
    []
    """
    kinds = []
    if is_at_hand("rir", rir_folder, rir_url):
        kinds.append(Reverberation(rir_folder, sample_rate))
    if is_at_hand("noise", noise_folder, noise_url):
        folder = Path(noise_folder)
        of_musan = [folder / name for name in ("noise", "music", "speech")]
        if all(part.is_dir() for part in of_musan):
            noise, music, speech = of_musan
            kinds += [
                AddedRecordings(noise, sample_rate, **NOISE),
                AddedRecordings(music, sample_rate, **MUSIC),
                AddedRecordings(speech, sample_rate, **BABBLE),
                Television(speech, music, sample_rate),
            ]
        else:
            kinds.append(AddedRecordings(folder, sample_rate, **NOISE))
    return OneKindEach(kinds, prob)
