"""A small WavLM in Hugging Face format, for runs without the hub."""

import os
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)

from speechbrain_ext.utils.errors import InputError


def small_wavlm(n_layers=6, channels=192, conv_channels=192, seed=1986):
    """Builds a randomly initialised small WavLM.

    The structure is that of WavLM base, with frames of 25 ms every 20 ms. The
    first convolutions, which see the most frames, have fewer channels.

    Arguments
    ---------
    n_layers : int
        Transformer layers.
    channels : int
        Channels of the hidden states, a multiple of 32.
    conv_channels : int
        Channels of the last convolutions of the front end.
    seed : int
        Of the weights.

    Returns
    -------
    transformers.WavLMModel
        The encoder.

    Example
    -------
    >>> sum(p.numel() for p in small_wavlm().parameters())
    3197140
    """
    config = WavLMConfig(
        hidden_size=channels,
        num_hidden_layers=n_layers,
        num_attention_heads=channels // 32,
        intermediate_size=4 * channels,
        conv_dim=[
            *[conv_channels // 3] * 2,
            conv_channels // 2,
            2 * conv_channels // 3,
            *[conv_channels] * 3,
        ],
        feat_extract_norm="group",
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
        return WavLMModel(config)


def save_small_wavlm(folder, **arguments):
    """Saves a randomly initialised small WavLM as a hub folder.

    Its weights are random, so its layers say little. A complete folder is
    left as it is.

    Arguments
    ---------
    folder : str or Path
        Where to save.
    **arguments
        As of `small_wavlm`.

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
    if not (folder / "config.json").is_file():
        save_encoder(small_wavlm(**arguments), folder)
    return str(folder)


def save_encoder(encoder, folder):
    """Saves an encoder with its feature extractor as a hub folder.

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
    feature_extractor.save_pretrained(partial)
    partial.rename(folder)


def load_wavlm(folder):
    """Loads an encoder to train it further.

    Arguments
    ---------
    folder : str or Path
        Of `save_encoder`.

    Returns
    -------
    transformers.WavLMModel
        In float32.

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
