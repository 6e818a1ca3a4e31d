"""A small WavLM in Hugging Face format, for runs without the hub."""

import inspect
import math
import os
import shutil
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from speechbrain_ext.utils.cache_keys import key_file, make_once
from speechbrain_ext.utils.errors import InputError

PHASES = 3  # filters of a band, for an envelope that hardly ripples
LOWEST, HIGHEST = 60.0, 7600.0  # Hz


def small_wavlm(n_layers=6, channels=192, n_bands=64, mel_filters=True, seed=1986):
    """Builds an untrained small WavLM, with a frame every 20 ms.

    Its front end has two convolutions in place of seven: filters of 25 ms
    every 2.5 ms, which start as a mel filter bank, and a convolution over
    25 ms every 20 ms, which starts as the mean of the filters' rectified
    outputs. What a large corpus teaches a front end, a few hours need not.

    Arguments
    ---------
    n_layers : int
        Transformer layers.
    channels : int
        Channels of the hidden states, a multiple of 32.
    n_bands : int
        Mel bands, of three filters each.
    mel_filters : bool
        If False, the front end starts from random weights too.
    seed : int
        Seed of the weights.

    Returns
    -------
    transformers.WavLMModel
        The encoder.

    Example
    -------
    >>> sum(p.numel() for p in small_wavlm().parameters())
    3353812
    """
    config = WavLMConfig(
        hidden_size=channels,
        num_hidden_layers=n_layers,
        num_attention_heads=channels // 32,
        intermediate_size=4 * channels,
        num_feat_extract_layers=2,
        conv_dim=[PHASES * n_bands, channels],
        conv_kernel=[400, 10],
        conv_stride=[40, 8],
        # A group norm would remove the long-term spectrum of the speaker.
        feat_extract_norm="layer",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=64,
        num_conv_pos_embedding_groups=channels // 16,
        hidden_dropout=0.05,
        # On CPUs half of the time of attention would go into its dropout.
        attention_dropout=0.0,
        activation_dropout=0.0,
        feat_proj_dropout=0.0,
        final_dropout=0.0,
        layerdrop=0.0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = WavLMModel(config)
    if mel_filters:
        filters, mean = (
            layer.conv.weight.data for layer in encoder.feature_extractor.conv_layers
        )
        filters.copy_(mel_filters_of_phases(n_bands, filters.shape[-1]))
        band_of_filter = torch.arange(PHASES * n_bands) // PHASES
        band_of_channel = torch.arange(channels) * n_bands // channels
        same_band = band_of_channel.unsqueeze(1) == band_of_filter
        # Weak random weights stay, so that the channels of a band differ.
        mean.mul_(0.1).add_(same_band.unsqueeze(-1) / (PHASES * mean.shape[-1]))
    return encoder


def mel_filters_of_phases(n_bands, kernel_size, sample_rate=16000):
    """Windowed cosines at mel frequencies, in several phases each.

    Arguments
    ---------
    n_bands : int
        Bands, evenly spaced in mel.
    kernel_size : int
        Samples of a filter.
    sample_rate : int
        Sample rate in Hz.

    Returns
    -------
    torch.Tensor
        Filters of unit norm, of shape (PHASES * n_bands, 1, kernel_size), the
        phases of a band next to each other.

    Example
    -------
    >>> mel_filters_of_phases(40, 400).shape
    torch.Size([120, 1, 400])
    """
    low, high = (2595 * math.log10(1 + f / 700) for f in (LOWEST, HIGHEST))
    edges = 700 * (10 ** (torch.linspace(low, high, n_bands + 2) / 2595) - 1)
    centre = edges[1:-1].view(-1, 1, 1)
    half_width = ((edges[2:] - edges[:-2]) / 4).view(-1, 1, 1)
    phase = (torch.arange(PHASES) * 2 * math.pi / PHASES).view(1, -1, 1)
    time = (torch.arange(kernel_size) - (kernel_size - 1) / 2) / sample_rate
    gaussian = torch.exp(-2 * (math.pi * half_width * time) ** 2)
    window = gaussian * torch.hann_window(kernel_size, periodic=False)
    filters = window * torch.cos(2 * math.pi * centre * time + phase)
    filters = filters / filters.norm(dim=-1, keepdim=True)
    return filters.view(-1, 1, kernel_size)


def save_small_wavlm(folder, **arguments):
    """Saves a randomly initialised small WavLM as a hub folder.

    Its weights are random, so its layers say little. A folder of the same
    arguments is left as it is; one of others is made again, and the log says
    so.

    Arguments
    ---------
    folder : str or Path
        Where to save.
    **arguments
        Handed on to `small_wavlm`.

    Returns
    -------
    str
        The folder, for `ssl_hub`.

    Raises
    ------
    OSError
        If the folder holds something else.

    Example
    -------
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=1)
    >>> WavLMModel.from_pretrained(folder).config.num_hidden_layers
    1
    """
    folder = Path(folder)
    defaults = inspect.signature(small_wavlm).bind(**arguments)
    defaults.apply_defaults()
    key = dict(defaults.arguments)

    def save():
        shutil.rmtree(folder, ignore_errors=True)
        save_encoder(small_wavlm(**arguments), folder)

    # What is not of this function may be a trained encoder.
    if folder.exists() and not key_file(folder).is_file():
        raise FileExistsError(f"'{folder}' is there already")
    make_once(folder, key, save)
    return str(folder)


def save_encoder(encoder, folder):
    """Saves an encoder with its feature extractor as a hub folder.

    Weights in half precision save space only: the folder asks who loads it to
    compute in float32, as SpeechBrain's lobes need.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        The encoder.
    folder : str or Path
        Where to save; not there yet.

    Raises
    ------
    OSError
        If the folder is there.

    Example
    -------
    >>> folder = getfixture("tmpdir") / "wavlm"
    >>> save_encoder(small_wavlm(n_layers=1), folder)
    >>> sorted(path.name for path in Path(folder).iterdir())
    ['config.json', 'model.safetensors', 'preprocessor_config.json']
    """
    folder = Path(folder)
    if folder.exists():
        raise FileExistsError(f"'{folder}' is there already")
    feature_extractor = Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=True
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: a killed run leaves no half-written encoder.
    partial = folder.with_name(f".partial-{os.getpid()}-{folder.name}")
    encoder.save_pretrained(partial)
    encoder.config.dtype = "float32"
    encoder.config.save_pretrained(partial)
    feature_extractor.save_pretrained(partial)
    partial.rename(folder)


def load_wavlm(folder):
    """Loads an encoder to train it further.

    Arguments
    ---------
    folder : str or Path
        Folder that `save_encoder` wrote.

    Returns
    -------
    transformers.WavLMModel
        The model, in float32.

    Raises
    ------
    InputError
        If there is no such folder.

    Example
    -------
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm", n_layers=1)
    >>> load_wavlm(folder).dtype
    torch.float32
    """
    if not Path(folder).is_dir():
        raise InputError(
            f"first_iteration: there is no folder '{folder}'; run "
            "hparams/pretrain_wavlm.yaml first, or name its encoder"
        )
    return WavLMModel.from_pretrained(folder, dtype=torch.float32)
