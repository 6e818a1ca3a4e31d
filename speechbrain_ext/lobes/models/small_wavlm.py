"""A small WavLM in Hugging Face format, for runs without the hub."""

import tempfile
from pathlib import Path

import torch
from transformers import (
    Wav2Vec2FeatureExtractor,
    WavLMConfig,
    WavLMModel,
)


def save_small_wavlm(
    folder, n_layers=4, channels=128, conv_channels=128, seed=1986
):
    """Saves a randomly initialised WavLM as a hub folder.

    Its 20 ms frames and its structure are those of WavLM; its weights are
    random, so its layers say little. A complete folder is left as it is.

    Arguments
    ---------
    folder : str or Path
        Where to save.
    n_layers : int
        Transformer layers.
    channels : int
        Channels of the hidden states.
    conv_channels : int
        Channels of the convolutional front end.
    seed : int
        Of the weights.

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
    if (folder / "config.json").is_file():
        return str(folder)
    config = WavLMConfig(
        hidden_size=channels,
        num_hidden_layers=n_layers,
        num_attention_heads=4,
        intermediate_size=4 * channels,
        conv_dim=[conv_channels] * 7,
        feat_extract_norm="group",
        do_stable_layer_norm=False,
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = WavLMModel(config)
    feature_extractor = Wav2Vec2FeatureExtractor(
        do_normalize=True, return_attention_mask=True
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when complete: a killed run leaves no half-written encoder.
    partial = Path(tempfile.mkdtemp(dir=folder.parent))
    model.save_pretrained(partial)
    feature_extractor.save_pretrained(partial)
    partial.rename(folder)
    return str(folder)
