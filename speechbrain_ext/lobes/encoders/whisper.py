"""Whisper's encoder, which sees an utterance and not half a minute."""

import math

import torch
from torch import nn
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.whisper.modeling_whisper import (
    WhisperEncoder as WhisperEncoderOf30Seconds,
)

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.power_spectrum import PowerSpectrum, cut_frames
from speechbrain_ext.nnet.masking import reflect_padding, valid_positions

FLOOR = 1e-10  # of the mel energies
DYNAMIC_RANGE = 8.0  # of an utterance, in powers of ten


class WhisperFrames(WhisperEncoderOf30Seconds):
    """The encoder of transformers for features of any length up to 30 s.

    Parameters have the same names, so checkpoints load unchanged.

    Arguments
    ---------
    config : transformers.WhisperConfig
        Configuration of the whole model.

    Example
    -------
    >>> from transformers import WhisperConfig
    >>> config = WhisperConfig(
    ...     d_model=16, encoder_layers=2, encoder_attention_heads=2,
    ...     encoder_ffn_dim=16,
    ... )
    >>> hidden_states = WhisperFrames(config)(
    ...     torch.rand(2, 80, 100), torch.tensor([100, 60])
    ... )
    >>> len(hidden_states), hidden_states[0].shape
    (3, torch.Size([2, 50, 16]))
    """

    _keys_to_ignore_on_load_unexpected = [r"decoder\.", r"proj_out\."]

    def forward(self, features, counts):
        """Encodes features.

        Arguments
        ---------
        features : torch.Tensor
            Log-mel spectrograms, of shape (batch, mel, frame), a frame every
            10 ms.
        counts : torch.Tensor
            Valid frames of each, of shape (batch,).

        Returns
        -------
        list of torch.Tensor
            The position-encoded output of the convolutions and the output of
            each layer, the last one after the final layer norm; each of shape
            (batch, time, channel), a frame every 20 ms.
        """
        valid = valid_positions(counts, features.shape[2])
        frames = nn.functional.gelu(self.conv1(_zero_padding(features, valid)))
        # The next convolution is to see zeros after the end, as it does alone.
        frames = nn.functional.gelu(self.conv2(_zero_padding(frames, valid)))
        x = frames.transpose(1, 2)
        x = x + self.embed_positions.weight[: x.shape[1]]
        x = nn.functional.dropout(x, p=self.dropout, training=self.training)
        valid = valid_positions(frame_counts_of(counts), x.shape[1])
        mask = create_bidirectional_mask(
            config=self.config, inputs_embeds=x, attention_mask=valid
        )
        hidden_states = [x]
        for layer in self.layers:
            hidden_states.append(layer(hidden_states[-1], mask))
        hidden_states[-1] = self.layer_norm(hidden_states[-1])
        return hidden_states


def _zero_padding(x, valid):
    """Zeros in the padding of x (batch, channel, time)."""
    return x if valid is None else x.masked_fill(~valid.unsqueeze(1), 0.0)


def frame_counts_of(counts):
    """Frames of the encoder, of which each takes in two of the spectrogram.

    Arguments
    ---------
    counts : torch.Tensor or int
        Frames of the spectrograms.

    Returns
    -------
    torch.Tensor or int
        Frames of the encoder.

    Example
    -------
    >>> frame_counts_of(torch.tensor([3000, 99]))
    tensor([1500,   50])
    """
    return (counts + 1) // 2


class WhisperEncoder(Encoder):
    """All hidden states of Whisper's encoder (arXiv 2212.04356).

    Whisper was trained on inputs that are padded to 30 s. Here the
    spectrogram, the positions and the attention end where the utterance ends,
    which costs less for short utterances. Utterances over 30 s are encoded in
    windows of 30 s, as Whisper transcribes them. The last hidden state is the one
    after the final layer norm, as in transformers; the one before it is not
    returned. The decoder is not loaded.

    Arguments
    ---------
    *args
        Handed on to `Encoder`.
    **kwargs
        Handed on to `Encoder`.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.random_encoder import save_random_encoder
    >>> folder = save_random_encoder("whisper", getfixture("tmpdir") / "whisper")
    >>> encoder = WhisperEncoder(folder)
    >>> hidden_states, lengths = encoder(
    ...     torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    ... )
    >>> hidden_states.shape, lengths * 50
    (torch.Size([4, 2, 50, 32]), tensor([50., 25.]))
    """

    FAMILIES = ("whisper",)

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        extractor = self.feature_extractor
        self.hop = 2 * extractor.hop_length
        self.longest = self.config.max_source_positions * self.hop
        # The spectrum's window; the convolutions after it pad with zeros.
        self.receptive_field = extractor.n_fft
        self.spectrum = PowerSpectrum(extractor.n_fft)
        filters = torch.as_tensor(extractor.mel_filters, dtype=torch.float32)
        self.register_buffer("mel_filters", filters, persistent=False)
        window = torch.hann_window(extractor.n_fft)
        self.register_buffer("window", window, persistent=False)
        if self.freeze:
            # A layer draws these itself where it is in training mode, which
            # gradient checkpointing asks for.
            for layer in self.transformer_layers:
                layer.dropout = layer.activation_dropout = 0.0
        self.train(self.training)

    def _from_pretrained(self, source, **settings):
        # Before it: a class with a decoder, which would be loaded too.
        self.auto_class = WhisperFrames
        names = {r"^(model\.)?encoder\.": ""}
        super()._from_pretrained(source, key_mapping=names, **settings)

    @property
    def transformer_layers(self) -> nn.ModuleList:
        """Layers of the transformer, from the lowest to the highest."""
        return self.model.layers

    @property
    def front_end(self) -> list[nn.Module]:
        """The convolutions before the transformer."""
        return [self.model.conv1, self.model.conv2]

    def freeze_unused(self) -> None:
        """Freezes what no gradient can reach, which stops DDP."""
        super().freeze_unused()
        if max(self.layers) < len(self.transformer_layers):
            self.model.layer_norm.requires_grad_(False)

    def frames_of(self, samples):
        """As of `Encoder`; the last frame may have half of its samples."""
        return frame_counts_of(samples // self.feature_extractor.hop_length)

    def encode(self, wav, samples):
        """Computes all hidden states, as of `Encoder`."""
        features = self.log_mel(wav, samples)
        n_frames = features.shape[1]
        counts = samples // self.feature_extractor.hop_length
        longest = 2 * self.config.max_source_positions
        if n_frames <= longest:
            hidden_states = self.model(features.transpose(1, 2), counts)
            return hidden_states, self.frames_of(samples)
        n_windows = -(-n_frames // longest)
        features = nn.functional.pad(
            features, (0, 0, 0, n_windows * longest - n_frames)
        )
        starts = longest * torch.arange(n_windows, device=wav.device)
        # Windows after the end of an utterance are left out below, and attention
        # needs a frame.
        in_windows = (counts.unsqueeze(1) - starts).clamp(min=1, max=longest)
        windows = features.reshape(-1, longest, features.shape[2])
        hidden_states = [
            layer.reshape(len(wav), -1, layer.shape[2])[:, : frame_counts_of(n_frames)]
            for layer in self.model(windows.transpose(1, 2), in_windows.flatten())
        ]
        return hidden_states, self.frames_of(samples)

    @torch.no_grad()
    def log_mel(self, wav: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
        """The input of Whisper: log-mel energies, limited from below.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms at 16 kHz, of shape (batch, time).
        samples : torch.Tensor
            Valid samples of each, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, mel), every 10 ms.
        """
        length, shift = len(self.window), self.feature_extractor.hop_length
        valid = valid_positions(samples, wav.shape[1])
        with torch.autocast(wav.device.type, enabled=False):
            wav = wav.float().unsqueeze(1)
            if valid is None:
                wav = nn.functional.pad(wav, (length // 2, length // 2), "reflect")
            else:
                wav = reflect_padding(wav, valid, length // 2)
            frames = cut_frames(wav.squeeze(1), length, shift)[:, :-1]
            energies = self.spectrum(frames * self.window) @ self.mel_filters
            log_energies = energies.clamp(min=FLOOR).log10()
            valid = valid_positions(samples // shift, log_energies.shape[1])
            loudest = log_energies
            if valid is not None:
                loudest = loudest.masked_fill(~valid.unsqueeze(2), -math.inf)
            floor = loudest.amax((1, 2), keepdim=True) - DYNAMIC_RANGE
            return (log_energies.maximum(floor) + 4.0) / 4.0
