"""w2v-BERT 2.0: a conformer on filter banks."""

from collections.abc import Sequence

import torch
from torch import nn

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.power_spectrum import PowerSpectrum, cut_frames
from speechbrain_ext.nnet.masking import valid_positions

FRAME_SHIFT = 160  # samples
INT16_SCALE = 2**15  # Kaldi's waveforms are integers
PREEMPHASIS = 0.97
FLOOR = 2**-23  # of the mel energies


class W2VBertEncoder(Encoder):
    """All hidden states of a w2v-BERT 2.0 encoder (arXiv 2312.05187).

    SpeechBrain's lobe computes filter banks with NumPy on the CPU and gives no
    lengths; here they are computed where the waveforms are, and lengths in
    frames come with the hidden states, as from every `Encoder`. There is no
    convolutional front end that could be frozen by itself.

    Arguments
    ---------
    source : str
        Name on the Hugging Face hub, "facebook/w2v-bert-2.0", or a local
        folder with config.json, preprocessor_config.json and weights.
    save_path : str
        Folder for downloads.
    freeze : bool
        See `Encoder`.
    gradient_checkpointing : bool
        See `Encoder`.
    lora_rank : int
        See `Encoder`.
    lora_alpha : int
        See `Encoder`.
    lora_targets : list of str
        See `Encoder`.
    layers : list of int
        See `Encoder`.
    **settings
        Handed on to `Encoder`.

    Example
    -------
    >>> from transformers import SeamlessM4TFeatureExtractor
    >>> from transformers import Wav2Vec2BertConfig, Wav2Vec2BertModel
    >>> folder = str(getfixture("tmpdir") / "w2v-bert")
    >>> config = Wav2Vec2BertConfig(
    ...     num_hidden_layers=2, hidden_size=32, num_attention_heads=2,
    ...     intermediate_size=32, feature_projection_input_dim=160,
    ... )
    >>> Wav2Vec2BertModel(config).save_pretrained(folder)
    >>> _ = SeamlessM4TFeatureExtractor().save_pretrained(folder)
    >>> encoder = W2VBertEncoder(folder, lora_rank=4)
    >>> hidden_states, lengths = encoder(
    ...     torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    ... )
    >>> hidden_states.shape, lengths * 49
    (torch.Size([3, 2, 49, 32]), tensor([49., 24.]))
    >>> sum(p.numel() for p in encoder.parameters() if p.requires_grad)
    1024
    """

    FAMILIES = ("wav2vec2-bert",)

    def __init__(
        self,
        source: str,
        save_path: str = "pretrained_models",
        freeze: bool = True,
        gradient_checkpointing: bool = False,
        lora_rank: int = 0,
        lora_alpha: int = 128,
        lora_targets: Sequence[str] | None = None,
        layers: Sequence[int] | None = None,
        **settings,
    ) -> None:
        super().__init__(
            source,
            save_path,
            freeze=freeze,
            gradient_checkpointing=gradient_checkpointing,
            layers=layers,
            lora_rank=lora_rank,
            lora_alpha=lora_alpha,
            lora_targets=lora_targets,
            **settings,
        )
        self.stride = self.feature_extractor.stride
        self.hop = self.stride * FRAME_SHIFT
        for name, value in (
            ("window", self.feature_extractor.window),
            ("mel_filters", self.feature_extractor.mel_filters),
        ):
            value = torch.as_tensor(value, dtype=torch.float32)
            self.register_buffer(name, value, persistent=False)
        self.spectrum = PowerSpectrum(2 * (len(self.mel_filters) - 1))
        self.receptive_field = len(self.window) + (self.stride - 1) * FRAME_SHIFT
        self.train(self.training)

    @property
    def transformer_layers(self) -> nn.ModuleList:
        """Layers of the transformer, from the lowest to the highest."""
        return self.model.encoder.layers

    def encode(self, wav, samples):
        """Computes all hidden states, as of `Encoder`."""
        features, frames = self.filter_banks(wav, samples)
        valid = valid_positions(frames, features.shape[1])
        hidden_states = self.model(
            features,
            attention_mask=None if valid is None else valid.long(),
            output_hidden_states=True,
        ).hidden_states
        return hidden_states, frames

    @torch.no_grad()
    def filter_banks(
        self, wav: torch.Tensor, samples: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The input of w2v-BERT: normalised filter banks, two frames in one.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, of shape (batch, time).
        samples : torch.Tensor
            Valid samples of each, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, 2 * mel), every 20 ms.
        torch.Tensor
            Valid frames of each utterance, of shape (batch,).
        """
        length = len(self.window)
        with torch.autocast(wav.device.type, enabled=False):
            frames = cut_frames(wav.float() * INT16_SCALE, length, FRAME_SHIFT)
            frames = frames - frames.mean(-1, keepdim=True)
            before = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = (frames - PREEMPHASIS * before) * self.window
            energies = self.spectrum(frames) @ self.mel_filters
            features = energies.clamp(min=FLOOR).log()
            counts = (samples - length) // FRAME_SHIFT + 1
            positions = torch.arange(features.shape[1], device=wav.device)
            padded = (positions >= counts.unsqueeze(1)).unsqueeze(2)
            counts = counts.view(-1, 1, 1)
            features = features.masked_fill(padded, 0.0)
            mean = features.sum(1, keepdim=True) / counts
            features = (features - mean).masked_fill(padded, 0.0)
            variance = (features**2).sum(1, keepdim=True) / (counts - 1)
            features = features * torch.rsqrt(variance + 1e-7)
        n_pairs = features.shape[1] // self.stride
        features = features[:, : n_pairs * self.stride]
        features = features.reshape(len(wav), n_pairs, -1)
        return features, counts.flatten() // self.stride
