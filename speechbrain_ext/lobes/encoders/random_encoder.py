"""Saves a tiny SSL encoder of any family with random weights, to try recipes.

    speechbrain-ext random-encoder hubert results/random_hubert
    python recipes/VoxCeleb/train.py hparams/ltdnn_wavlm.yaml \\
        --ssl_hub results/random_hubert

It has the layout of the family's encoders on the hub, so that what runs on it
runs on them; its error rates mean nothing.
"""

from pathlib import Path

import torch
from transformers import (
    Data2VecAudioConfig,
    Data2VecAudioModel,
    HubertConfig,
    HubertModel,
    SeamlessM4TFeatureExtractor,
    UniSpeechSatConfig,
    UniSpeechSatModel,
    Wav2Vec2BertConfig,
    Wav2Vec2BertModel,
    Wav2Vec2Config,
    Wav2Vec2ConformerConfig,
    Wav2Vec2ConformerModel,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

TRANSFORMER = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}
CONVOLUTIONS = {
    **TRANSFORMER,
    "conv_dim": [32] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
STACKED_POSITIONS = {
    **CONVOLUTIONS,
    "num_conv_pos_embeddings": 2,
    "conv_pos_kernel_size": 5,
}
WITH_DECODER = {
    "d_model": 32,
    "encoder_layers": 3,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 64,
    "decoder_layers": 1,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "max_target_positions": 8,
    "vocab_size": 8,
    **dict.fromkeys(("pad_token_id", "bos_token_id", "eos_token_id"), 0),
    "decoder_start_token_id": 1,
}
FAMILIES = {
    "wav2vec2": (Wav2Vec2Config, Wav2Vec2Model, CONVOLUTIONS),
    "hubert": (HubertConfig, HubertModel, CONVOLUTIONS),
    "wavlm": (WavLMConfig, WavLMModel, CONVOLUTIONS),
    "unispeech-sat": (UniSpeechSatConfig, UniSpeechSatModel, CONVOLUTIONS),
    "data2vec-audio": (Data2VecAudioConfig, Data2VecAudioModel, STACKED_POSITIONS),
    "wav2vec2-conformer": (
        Wav2Vec2ConformerConfig,
        Wav2Vec2ConformerModel,
        CONVOLUTIONS,
    ),
    "w2v-bert": (Wav2Vec2BertConfig, Wav2Vec2BertModel, TRANSFORMER),
    "whisper": (WhisperConfig, WhisperModel, WITH_DECODER),
}


def save_random_encoder(family, folder, seed=1986, **changes):
    """Saves a tiny encoder with random weights as a hub folder.

    Arguments
    ---------
    family : str
        A key of FAMILIES, such as wavlm or whisper.
    folder : str or Path
        Where to save.
    seed : int
        Seed of the weights.
    **changes
        Changes of the family's configuration in transformers.

    Returns
    -------
    str
        The folder, for `ssl_hub`.

    Example
    -------
    >>> folder = save_random_encoder("hubert", getfixture("tmpdir") / "hubert")
    >>> HubertModel.from_pretrained(folder).config.num_hidden_layers
    3
    """
    config_class, model_class, settings = FAMILIES[family]
    if family == "w2v-bert":
        feature_extractor = SeamlessM4TFeatureExtractor()
    elif family == "whisper":
        feature_extractor = WhisperFeatureExtractor()
    else:
        feature_extractor = Wav2Vec2FeatureExtractor(
            do_normalize=changes.get("feat_extract_norm") == "layer"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = model_class(config_class(**{**settings, **changes}))
    Path(folder).mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    feature_extractor.save_pretrained(folder)
    return str(folder)
