"""Encoders of the wav2vec 2.0 kind: convolutions over samples, a transformer."""

import math

import torch
from speechbrain.integrations.huggingface.wav2vec2 import Wav2Vec2
from torch import nn
from transformers.models.wav2vec2.modeling_wav2vec2 import Wav2Vec2FeatureEncoder
from transformers.models.wavlm.modeling_wavlm import WavLMAttention

from speechbrain_ext.lobes.encoders.encoder import Encoder
from speechbrain_ext.lobes.encoders.position_convolution import (
    convolve_positions,
    tap_spectrum,
)
from speechbrain_ext.lobes.encoders.sample_convolutions import (
    convolve_samples,
    tap_matrices,
)
from speechbrain_ext.nnet.derived import Derived
from speechbrain_ext.nnet.masking import is_traced, valid_positions

# Rows of an utterance's attention that are computed at once
QUERIES = 256


class LengthAwareGroupNorm(nn.GroupNorm):
    """Group norm of one channel a group over the valid frames only.

    The first convolution of the base encoders is followed by a group norm
    over time, which counts padding in PyTorch's version. Parameters have the
    same names, so checkpoints load unchanged.

    Arguments
    ---------
    n_channels : int
        Channels of the input, each a group of its own.
    eps : float
        What is added to the variance.

    Example
    -------
    >>> norm = LengthAwareGroupNorm(4)
    >>> x = torch.rand(2, 4, 10)
    >>> norm.counts = torch.tensor([10, 6])
    >>> padded = norm(x)[1, :, :6]
    >>> norm.counts = torch.tensor([6])
    >>> torch.allclose(padded, norm(x[1:, :, :6])[0], atol=1e-6)
    True
    """

    # Set before each call.
    fingerprint_ignores = ("counts",)

    def __init__(self, n_channels, eps=1e-5):
        super().__init__(n_channels, n_channels, eps=eps)
        self.counts = None

    def forward(self, x):
        """Normalises each channel over the first `counts` frames.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x.
        """
        valid = None
        if self.counts is not None:
            valid = valid_positions(self.counts.to(x.device), x.shape[-1])
        if valid is None:
            return super().forward(x)
        valid, counts = valid.unsqueeze(1), valid.sum(1).view(-1, 1, 1)
        x32 = x.float()
        mean = (x32 * valid).sum(-1, keepdim=True) / counts
        x32 = x32 - mean
        variance = (x32 * x32 * valid).sum(-1, keepdim=True) / counts
        gain = torch.rsqrt(variance + self.eps) * self.weight.view(1, -1, 1)
        return (x32 * gain + self.bias.view(1, -1, 1)).to(x.dtype)


class OneByOneFeatureEncoder(Wav2Vec2FeatureEncoder):
    """The convolutions over samples, an utterance after the other on a processor.

    Those of a whole batch do not fit into a processor's cache, and are done for
    padding too. All families have the convolutions of wav2vec 2.0.
    """

    # The first follows from the weights, the second is set before each call.
    fingerprint_ignores = ("matrices", "lengths")
    matrices: Derived
    lengths: tuple[torch.Tensor, int] | None = None

    def one_by_one(self, wavs, samples):
        """Computes the frames of each waveform.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms, of shape (batch, time).
        samples : torch.Tensor
            Valid samples of each, of shape (batch,).

        Returns
        -------
        list of torch.Tensor
            Frames of each, of shape (time, channel).
        """
        matrices = self.matrices(*(layer.conv.weight for layer in self.conv_layers))
        return [
            convolve_samples(self.conv_layers, matrices, wav[:count])
            for wav, count in zip(wavs, samples.tolist())
        ]

    def forward(self, input_values):
        """Computes the frames of waveforms.

        Arguments
        ---------
        input_values : torch.Tensor
            Waveforms, of shape (batch, time); with `lengths`, valid samples of each
            and frames of all, one by one.

        Returns
        -------
        torch.Tensor
            Frames, of shape (batch, channel, time).
        """
        lengths, self.lengths = self.lengths, None
        if lengths is None:
            return super().forward(input_values)
        samples, n_frames = lengths
        frames = self.one_by_one(input_values, samples)
        padded = frames[0].new_zeros(len(frames), n_frames, frames[0].shape[1])
        for row, own in zip(padded, frames):
            row[: len(own)] = own
        return padded.transpose(1, 2)


class SeparateProjectionsAttention(WavLMAttention):
    """WavLM's attention, which calls its linear layers.

    The one in transformers reads their weights instead, so that what LoRA adds
    to the layers would have no effect.
    """

    def forward(
        self,
        hidden_states,
        attention_mask=None,
        position_bias=None,
        index=0,
        counts=None,
        **kwargs,
    ):
        """Attends within each utterance.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (batch, time, channel).
        attention_mask : torch.Tensor
            1 where a frame is valid, of shape (batch, time), or None.
        position_bias : torch.Tensor
            What the layer before returned; None in the first one.
        index : int
            Number of the layer.
        counts : list of int
            Where the batch is one row of utterances, the frames of each.
        **kwargs
            Handed on.

        Returns
        -------
        torch.Tensor
            Output of the shape of hidden_states.
        None
            In place of the weights, which nobody asks for.
        torch.Tensor
            The bias of positions, for the next layer.
        """
        if counts is None:
            return super().forward(
                hidden_states, attention_mask, position_bias, index, **kwargs
            )
        if position_bias is None:
            position_bias = self.compute_bias(max(counts), max(counts))
        (frames,) = hidden_states
        queries, keys, values, gates = (
            x.unflatten(1, (self.num_heads, -1)).transpose(0, 1).split(counts, dim=1)
            for x in (
                self.q_proj(frames),
                self.k_proj(frames),
                self.v_proj(frames),
                self._gates(frames),
            )
        )
        attended = [
            self._attend(*utterance, position_bias)
            for utterance in zip(queries, keys, values, gates)
        ]
        output = self.out_proj(torch.cat(attended))
        return output.unsqueeze(0), None, position_bias

    def _gates(self, frames):
        """Factors of the bias of positions, of shape (time, head)."""
        by_head = frames.unflatten(1, (self.num_heads, -1))
        projected = self.gru_rel_pos_linear(by_head).unflatten(2, (2, -1)).sum(3)
        reset, update = torch.sigmoid(projected).unbind(2)
        return reset * (update * self.gru_rel_pos_const.flatten() - 1.0) + 2.0

    def _attend(self, queries, keys, values, gates, position_bias):
        """Attention of an utterance; arguments are (head, time, ...)."""
        n_frames = keys.shape[1]
        bias = position_bias[:, :n_frames, :n_frames]
        parts = []
        for query, gate, row in zip(
            *(x.split(QUERIES, dim=1) for x in (queries, gates, bias))
        ):
            # In place: new memory costs a processor more than the products do.
            scores = (row * gate).to(query.dtype)
            scores.baddbmm_(query, keys.transpose(1, 2), alpha=self.scaling)
            torch.softmax(scores, 2, out=scores)
            parts.append((scores @ values).transpose(0, 1).flatten(1))
        return torch.cat(parts)

    def torch_multi_head_self_attention(
        self, hidden_states, attention_mask, gated_position_bias
    ):
        """Attends with a bias of positions.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (batch, time, channel).
        attention_mask : torch.Tensor
            1 where a frame is valid, of shape (batch, time), or None.
        gated_position_bias : torch.Tensor
            Bias, of shape (batch * head, time, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of hidden_states.
        None
            In place of the weights, which nobody asks for.
        """
        n_batch, n_frames, _ = hidden_states.shape
        queries, keys, values = (
            projection(hidden_states)
            .view(n_batch, n_frames, self.num_heads, self.head_dim)
            .transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        bias = gated_position_bias.view(n_batch, self.num_heads, n_frames, n_frames)
        if attention_mask is not None:
            padded = attention_mask.ne(1)[:, None, None]
            bias = bias.masked_fill(padded, -math.inf)
        attended = nn.functional.scaled_dot_product_attention(
            queries,
            keys,
            values,
            attn_mask=bias.to(queries.dtype),
            dropout_p=self.dropout if self.training else 0.0,
        )
        attended = attended.transpose(1, 2).reshape(hidden_states.shape)
        return self.out_proj(attended), None


class SSLEncoder(Encoder):
    """All hidden states of an encoder of the wav2vec 2.0 kind.

    wav2vec 2.0, HuBERT, WavLM, UniSpeech-SAT, data2vec-audio and the conformer
    of wav2vec 2.0. Batch norms of the conformer keep the statistics of the
    pre-training. The last hidden state is the output of the last layer, as in
    transformers from version 5 on: large encoders and the conformer have a
    layer norm after it, which is left out.

    Arguments
    ---------
    *args
        Handed on to `Encoder`.
    **kwargs
        Handed on to `Encoder`.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
    >>> folder = save_small_wavlm(getfixture("tmpdir") / "wavlm")
    >>> encoder = SSLEncoder(folder, freeze=True)
    >>> hidden_states, lengths = encoder(
    ...     torch.rand(2, 16000), torch.tensor([1.0, 0.5])
    ... )
    >>> hidden_states.shape
    torch.Size([7, 2, 48, 192])
    >>> lengths * 48
    tensor([48., 23.])
    """

    FAMILIES = (
        "wav2vec2",
        "hubert",
        "wavlm",
        "unispeech-sat",
        "data2vec-audio",
        "wav2vec2-conformer",
    )

    # The first is set before each call, the second follows from the weights.
    fingerprint_ignores = ("frame_mask", "position_spectrum")

    # Loads encoders that SpeechBrain has pre-trained.
    _modify_state_dict = Wav2Vec2._modify_state_dict

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.normalize_wav = self.feature_extractor.do_normalize
        self.hop = math.prod(self.config.conv_stride)
        self.receptive_field = 1
        for kernel, stride in zip(
            reversed(self.config.conv_kernel), reversed(self.config.conv_stride)
        ):
            self.receptive_field = kernel + stride * (self.receptive_field - 1)
        self.model.feature_extractor.__class__ = OneByOneFeatureEncoder
        self.model.feature_extractor.matrices = Derived(tap_matrices)
        self.position_spectrum = Derived(tap_spectrum)
        first = self.model.feature_extractor.conv_layers[0]
        if isinstance(getattr(first, "layer_norm", None), nn.GroupNorm):
            norm = LengthAwareGroupNorm(
                first.layer_norm.num_channels, first.layer_norm.eps
            )
            norm.load_state_dict(first.layer_norm.state_dict())
            for new, old in zip(norm.parameters(), first.layer_norm.parameters()):
                new.requires_grad = old.requires_grad
            first.layer_norm = norm
        # Convolutions in the transformer: of positions, and of the conformer.
        self.frame_mask = None
        for module in self.model.encoder.modules():
            if isinstance(module, nn.Conv1d) and module.kernel_size[0] > 1:
                module.register_forward_pre_hook(self._leave_padding_out)
            if isinstance(module, WavLMAttention):
                module.__class__ = SeparateProjectionsAttention
        self.train(self.training)

    def _leave_padding_out(self, module, arguments):
        if self.frame_mask is None:
            return arguments
        (frames,) = arguments
        return (frames.masked_fill(~self.frame_mask.unsqueeze(1), 0.0),)

    @property
    def transformer_layers(self) -> nn.ModuleList:
        """Layers of the transformer, from the lowest to the highest."""
        return self.model.encoder.layers

    @property
    def front_end(self) -> list[nn.Module]:
        """The convolutions before the transformer."""
        return [self.model.feature_extractor]

    def freeze_unused(self) -> None:
        """Freezes what no gradient can reach, which stops DDP."""
        super().freeze_unused()
        is_conformer = self.config.model_type == "wav2vec2-conformer"
        if is_conformer or getattr(self.config, "do_stable_layer_norm", False):
            self.model.encoder.layer_norm.requires_grad_(False)
        if is_conformer:  # which has other positions, and leaves these out
            self.model.encoder.pos_conv_embed.requires_grad_(False)

    def frames_of(self, samples):
        """As of `Encoder`, convolution after convolution, as exports trace it."""
        for kernel, stride in zip(self.config.conv_kernel, self.config.conv_stride):
            samples = (samples - kernel) // stride + 1
        return samples

    def encode(self, wav, samples):
        """Computes all hidden states, as of `Encoder`."""
        frames, n_frames = (
            self.frames_of(n) + self.n_inserted for n in (samples, wav.shape[1])
        )
        self.frame_mask = valid_positions(frames, n_frames)
        valid = valid_positions(samples, wav.shape[1])
        if valid is not None:
            wav = wav.masked_fill(~valid, 0.0)
        if self.normalize_wav:
            wav = normalize_waveform(wav, valid)
        # Nothing is differentiated or recorded.
        is_plain = not (is_traced() or torch.is_grad_enabled() or self.training)
        on_processor = is_plain and wav.device.type == "cpu"
        is_wavlm = self.config.model_type == "wavlm"
        if on_processor and is_wavlm and not self.n_inserted:
            return self._encode_without_padding(wav, samples, frames), frames
        first = self.model.feature_extractor.conv_layers[0]
        norm = getattr(first, "layer_norm", None)
        if isinstance(norm, LengthAwareGroupNorm):
            kernel, stride = first.conv.kernel_size[0], first.conv.stride[0]
            norm.counts = (samples - kernel) // stride + 1
        if on_processor:
            lengths = samples, self.frames_of(wav.shape[1])
            self.model.feature_extractor.lengths = lengths
        hidden_states = self.model(
            wav,
            attention_mask=None if valid is None else valid.long(),
            output_hidden_states=True,
        ).hidden_states
        if is_traced():
            # What a recording leaves behind is no tensor.
            self.frame_mask = None
            if isinstance(norm, LengthAwareGroupNorm):
                norm.counts = None
        return hidden_states, frames - self.n_inserted

    def _encode_without_padding(self, wav, samples, frames):
        """Hidden states of WavLM, computed of a row of all utterances' frames.

        Only convolutions and attention need to know where an utterance ends.
        """
        counts, model = frames.tolist(), self.model
        x = torch.cat(model.feature_extractor.one_by_one(wav, samples))
        x, _ = model.feature_projection(x)
        encoder, positions = model.encoder, model.encoder.pos_conv_embed
        taps = positions.conv.parametrizations.weight
        spectrum = self.position_spectrum(*taps.parameters())
        shifts = convolve_positions(positions.conv, spectrum, x, counts)
        x = x + positions.activation(shifts)
        if not self.config.do_stable_layer_norm:
            x = encoder.layer_norm(x)
        hidden_states, position_bias = [x.unsqueeze(0)], None
        for layer in encoder.layers:
            x, position_bias = layer(
                hidden_states[-1], position_bias=position_bias, counts=counts
            )
            hidden_states.append(x)
        return [self._pad(states[0], len(wav)) for states in hidden_states]

    def _pad(self, row, n_batch):
        if self.frame_mask is None:
            return row.view(n_batch, -1, row.shape[1])
        padded = row.new_zeros(*self.frame_mask.shape, row.shape[1])
        padded[self.frame_mask] = row
        return padded


def normalize_waveform(wav: torch.Tensor, valid: torch.Tensor | None) -> torch.Tensor:
    """Zero mean and unit variance over the valid samples.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms, zero where padded, of shape (batch, time).
    valid : torch.Tensor or None
        Boolean mask of shape (batch, time); None where all samples are valid.

    Returns
    -------
    torch.Tensor
        Output of the shape of wav, zero where padded.

    Example
    -------
    >>> wav = torch.tensor([[1.0, 3.0, 0.0]])
    >>> normalize_waveform(wav, torch.tensor([[True, True, False]]))
    tensor([[-1.,  1.,  0.]])
    """
    if valid is None:
        valid = torch.ones_like(wav, dtype=torch.bool)
    counts = valid.sum(1, keepdim=True)
    mean = wav.sum(1, keepdim=True) / counts
    centered = (wav - mean).masked_fill(~valid, 0.0)
    variance = (centered**2).sum(1, keepdim=True) / counts
    return centered * torch.rsqrt(variance + 1e-7)
