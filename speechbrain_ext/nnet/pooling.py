"""Pooling over layers and over frames."""

import torch
from torch import nn

from speechbrain_ext.nnet.masking import (
    expand_mask,
    frame_mask,
    masked_batch_norm,
    masked_mean,
)


class WeightedLayerSum(nn.Module):
    """SUPERB's weighted sum of layers: one softmax weight for each layer.

    Arguments
    ---------
    n_layers : int
        Number of layers.

    Example
    -------
    >>> weighted_sum = WeightedLayerSum(n_layers=13)
    >>> weighted_sum(torch.rand(13, 2, 50, 768)).shape
    torch.Size([2, 50, 768])
    """

    def __init__(self, n_layers):
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))

    def forward(self, hidden_states):
        """Sums the layers.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Of shape (layer, batch, time, channel).

        Returns
        -------
        torch.Tensor
            Of shape (batch, time, channel).
        """
        weights = torch.softmax(self.weights, dim=0)
        return torch.einsum("lbtc,l->btc", hidden_states, weights)


class LayerAttentivePooling(nn.Module):
    """Frame-adaptive aggregation of layers (arXiv 2409.07770, section 2.3).

    For each head and frame, the mean and the maximum over the head's channels
    give two profiles over layers; each goes through a squeeze-excitation net
    of the head's own; the sigmoid of their sum weighs the layers, and the
    maximum over the weighted layers is kept.

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.
    n_layers : int
        Number of layers.
    n_heads : int
        Number of heads; divides out_channels.
    dropout : float
        Dropout probability of the layer weights.

    Raises
    ------
    ValueError
        If the heads do not divide the channels.

    Example
    -------
    >>> pooling = LayerAttentivePooling(768, 512, n_layers=13, n_heads=8)
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> frames, weights = pooling(hidden_states, return_weights=True)
    >>> frames.shape, weights.shape
    (torch.Size([2, 50, 512]), torch.Size([2, 8, 50, 13]))
    """

    def __init__(
        self, in_channels, out_channels, n_layers, n_heads=8, dropout=0.1
    ):
        super().__init__()
        if out_channels % n_heads:
            raise ValueError(
                f"n_heads={n_heads} does not divide out_channels={out_channels}"
            )
        self.n_layers = n_layers
        self.n_heads = n_heads
        squeezed = n_layers // 2
        self.in_norm = nn.BatchNorm2d(in_channels)
        self.in_proj = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.squeeze_weight = nn.Parameter(
            torch.empty(n_heads, n_layers, squeezed)
        )
        self.squeeze_bias = nn.Parameter(torch.zeros(n_heads, 1, squeezed))
        self.excite_weight = nn.Parameter(
            torch.empty(n_heads, squeezed, n_layers)
        )
        self.excite_bias = nn.Parameter(torch.zeros(n_heads, 1, n_layers))
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Conv1d(out_channels, out_channels, 1, bias=False)
        self.out_norm = nn.BatchNorm1d(out_channels)
        for weight in (self.squeeze_weight, self.excite_weight):
            for head in weight:
                nn.init.xavier_uniform_(head)

    def _excitation(self, profile):
        """Two-layer net over layer profiles (batch, head, time, layer)."""
        squeezed = torch.relu(
            profile @ self.squeeze_weight + self.squeeze_bias
        )
        return squeezed @ self.excite_weight + self.excite_bias

    def forward(self, hidden_states, lengths=None, return_weights=False):
        """Aggregates the layers of each frame.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths of shape (batch,), to keep padded frames out of
            the training statistics of the batch norms.
        return_weights : bool
            Whether to return the layer weights too.

        Returns
        -------
        torch.Tensor
            Of shape (batch, time, out_channels).
        torch.Tensor
            With return_weights, the sigmoid weights, of shape
            (batch, head, time, layer).

        Raises
        ------
        ValueError
            If the input has another number of layers.
        """
        n_layers, n_batch, n_frames, _ = hidden_states.shape
        if n_layers != self.n_layers:
            raise ValueError(
                f"LayerAttentivePooling was built for n_layers={self.n_layers} "
                f"and got {n_layers} layers"
            )
        mask = frame_mask(lengths, n_frames)
        # (batch, channel, layer, time)
        x = hidden_states.permute(1, 3, 0, 2)
        x = self.in_proj(masked_batch_norm(self.in_norm, x, mask))
        x = x.reshape(n_batch, self.n_heads, -1, n_layers, n_frames)
        mean_profile = x.mean(dim=2).transpose(2, 3)
        max_profile = x.amax(dim=2).transpose(2, 3)
        weights = torch.sigmoid(
            self._excitation(mean_profile) + self._excitation(max_profile)
        )
        dropped = self.dropout(weights).transpose(2, 3).unsqueeze(2)
        x = (x * dropped).amax(dim=3).flatten(1, 2)
        x = masked_batch_norm(self.out_norm, self.out_proj(x), mask)
        x = x.transpose(1, 2)
        return (x, weights) if return_weights else x


class AttentiveStatisticsPooling(nn.Module):
    """Attentive statistics over frames with global context (arXiv 2409.07770).

    The attention of a frame sees its features and the utterance's mean and
    standard deviation; each channel has weights of its own.

    Arguments
    ---------
    channels : int
        Channels of the input.
    attention_channels : int
        Channels of the attention's bottleneck.
    dropout : float
        Dropout probability of the frame weights.

    Example
    -------
    >>> pooling = AttentiveStatisticsPooling(512, attention_channels=256)
    >>> frames = torch.rand(2, 50, 512)
    >>> pooling(frames, lengths=torch.tensor([1.0, 0.8])).shape
    torch.Size([2, 1, 1024])
    """

    MIN_VARIANCE = 1e-4

    def __init__(self, channels, attention_channels, dropout=0.1):
        super().__init__()
        self.bottleneck = nn.Conv1d(3 * channels, attention_channels, 1)
        self.norm = nn.BatchNorm1d(attention_channels)
        self.scores = nn.Conv1d(attention_channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, frames, lengths=None, return_weights=False):
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the frame weights too.

        Returns
        -------
        torch.Tensor
            Weighted mean and standard deviation, of shape
            (batch, 1, 2 * channel).
        torch.Tensor
            With return_weights, the softmax weights, of shape
            (batch, time, channel).
        """
        mask = frame_mask(lengths, frames.shape[1])
        x = frames.transpose(1, 2)
        mean = masked_mean(x, mask, (2,))
        std = self._std(masked_mean((x - mean) ** 2, mask, (2,)))
        context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
        hidden = torch.relu(self.bottleneck(context))
        scores = self.scores(masked_batch_norm(self.norm, hidden, mask))
        if mask is not None:
            scores = scores.masked_fill(~expand_mask(mask, 3), float("-inf"))
        weights = torch.softmax(scores, dim=2)
        dropped = self.dropout(weights)
        mean = (dropped * x).sum(dim=2)
        variance = (dropped * x**2).sum(dim=2) - mean**2
        pooled = torch.cat([mean, self._std(variance)], dim=1).unsqueeze(1)
        return (pooled, weights.transpose(1, 2)) if return_weights else pooled

    def _std(self, variance):
        return variance.clamp(min=self.MIN_VARIANCE).sqrt()
