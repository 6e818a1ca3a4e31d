"""Pooling over layers and over frames, and what every such module keeps to."""

import abc
from collections.abc import Callable
from typing import Any

import torch
from speechbrain.nnet.pooling import StatisticsPooling
from torch import nn

from speechbrain_ext._moved import renamed
from speechbrain_ext.nnet.initialisation import draw_by_xavier
from speechbrain_ext.nnet.masking import (
    expand_mask,
    frame_mask,
    is_traced,
    layers_to_map,
    masked_batch_norm,
    masked_mean,
)
from speechbrain_ext.nnet.normalised_convolution import convolve_normalised
from speechbrain_ext.nnet.recomputation import with_recomputation
from speechbrain_ext.utils.distributed import without_wrapper
from speechbrain_ext.utils.errors import InputError

# What is pooled; with return_weights a pair of it and the weights
MaybeWithWeights = torch.Tensor | tuple[torch.Tensor, torch.Tensor]


class LayerAttention(nn.Module, abc.ABC):
    """What weighs the layers of an SSL encoder and gives the weights on request.

    The layer poolings, and the embedding models that begin with one. A model
    of another package that is to be found by `attends_to_layers` inherits
    from it.
    """

    @abc.abstractmethod
    def forward(
        self,
        hidden_states: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Takes all layers in.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the layer weights too.

        Returns
        -------
        torch.Tensor
            A layer pooling gives frames, of shape (batch, time, channel); an
            embedding model gives embeddings, of shape (batch, 1, dim).
        torch.Tensor
            With return_weights, the layer weights, of shape
            (batch, head, time, layer).
        """


class LayerPooling(LayerAttention):
    """From all layers to frames of shape (batch, time, channel)."""


class FramePooling(nn.Module, abc.ABC):
    """From frames to one vector for each utterance.

    Attributes
    ----------
    in_channels : int
        Channels of the frames, for `check_pooling`.
    out_channels : int
        Dimension of the vector.
    """

    in_channels: int
    out_channels: int

    @abc.abstractmethod
    def forward(
        self, frames: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> MaybeWithWeights:
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, out_channels).
        """


class MultiHeadFramePooling(FramePooling):
    """A pooling each head of which weighs the frames, and gives the weights."""

    @abc.abstractmethod
    def forward(
        self,
        frames: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the frame weights too.

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, out_channels).
        torch.Tensor
            With return_weights, the weights of the frames, of shape
            (batch, head, time).
        """


def attends_to_layers(module: nn.Module) -> bool:
    """Whether a module gives its weights of layers on request.

    Arguments
    ---------
    module : torch.nn.Module
        An embedding model or a layer pooling, also one that is wrapped for
        several processes.

    Returns
    -------
    bool
        Whether it is a `LayerAttention`.

    Example
    -------
    >>> attends_to_layers(WeightedLayerSum(n_layers=13))
    True
    >>> attends_to_layers(nn.Linear(13, 1))
    False
    """
    return isinstance(without_wrapper(module), LayerAttention)


def check_pooling(frame_pooling: nn.Module, channels: int) -> None:
    """Checks that a pooling takes the channels that it will get.

    Arguments
    ---------
    frame_pooling : torch.nn.Module
        Pooling with in_channels, unless it takes any number of channels.
    channels : int
        Channels of the frames.

    Raises
    ------
    InputError
        If the pooling takes another number of channels.

    Example
    -------
    >>> check_pooling(MultiHeadAttnPooling(1536, n_heads=8), 512)
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: frame_pooling: MultiHeadAttnPooling ...
    """
    expected = getattr(frame_pooling, "in_channels", channels)
    if expected != channels:
        name = type(frame_pooling).__name__
        raise InputError(
            f"frame_pooling: {name} takes {expected} channels, and the frames have "
            f"{channels}; build it with {channels} channels"
        )


class MaskedStatisticsPooling(StatisticsPooling):
    """Mean and standard deviation over the valid frames.

    SpeechBrain's pooling, without the noise that it adds to the means at each
    call. The standard deviation of a single frame is zero.

    Arguments
    ---------
    return_mean : bool
        Whether to return the mean.
    return_std : bool
        Whether to return the standard deviation, the unbiased one.

    Example
    -------
    >>> pooling = MaskedStatisticsPooling()
    >>> pooling(torch.rand(2, 50, 512), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 1024])
    """

    MIN_VARIANCE = 1e-12

    def forward(
        self, x: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pools the valid frames.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Mean, then standard deviation, of shape (batch, 1, dim).
        """
        mask = frame_mask(lengths, x.shape[1])
        x = x.transpose(1, 2)
        mean = masked_mean(x, mask, (2,))
        statistics = [mean] if self.return_mean else []
        if self.return_std:
            variance = _unbiased(masked_mean((x - mean) ** 2, mask, (2,)), x, mask)
            statistics.append(variance.clamp(min=self.MIN_VARIANCE).sqrt() + self.eps)
        return torch.cat(statistics, dim=1).transpose(1, 2)


class FrameStatistics(FramePooling):
    """Mean and standard deviation of the frames, without attention.

    Arguments
    ---------
    in_channels : int
        Channels of the frames.

    Example
    -------
    >>> pooling = FrameStatistics(512)
    >>> pooling(torch.rand(2, 50, 512), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 1024])
    """

    def __init__(self, in_channels: int) -> None:
        super().__init__()
        self.in_channels = in_channels
        self.out_channels = 2 * in_channels
        self.statistics = MaskedStatisticsPooling()

    def forward(
        self, frames: torch.Tensor, lengths: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Pools the valid frames, as of `FramePooling`."""
        return self.statistics(frames, lengths)


def _maximum(x: torch.Tensor, dim: int) -> torch.Tensor:
    """The maximum over a dimension, of which training keeps no more than the index.

    For its backward pass `torch.amax` would keep all of x and compare it with the
    maxima; forward it is the faster one.
    """
    if _is_recorded():
        return x.max(dim).values
    return x.amax(dim)


def _weighted_maximum(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Maximum over the layers of a weighted map, with gradients of the winners only.

    x is (batch, head, channel, layer, time), weights are (batch, head, layer, time).
    """
    if not _is_recorded():
        return (x * weights.unsqueeze(2)).amax(dim=3)
    with torch.no_grad():
        # Several times as fast as `argmax`
        winners = (x * weights.unsqueeze(2)).max(dim=3).indices
    return x.gather(3, winners.unsqueeze(3)).squeeze(3) * weights.gather(2, winners)


def _weighted_sum(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (x * weights.unsqueeze(2)).sum(dim=3)


def _weighted_mean(x: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return (x * weights.unsqueeze(2)).mean(dim=3)


def _is_recorded() -> bool:
    """Whether operations are kept for a backward pass, and not for a model file."""
    return torch.is_grad_enabled() and not is_traced()


def _unbiased(
    variance: torch.Tensor, x: torch.Tensor, mask: torch.Tensor | None
) -> torch.Tensor:
    """The unbiased variance over the frames of x (batch, channel, time)."""
    if mask is None:
        return variance * (x.shape[2] / max(x.shape[2] - 1, 1))
    counts = mask.sum(1).view(-1, 1, 1)
    return variance * counts / (counts - 1).clamp(min=1)


class WeightedLayerSum(LayerPooling):
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

    def __init__(self, n_layers: int) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(n_layers))

    def forward(
        self,
        hidden_states: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Sums the layers.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Not used; as of `LayerAttentivePooling`.
        return_weights : bool
            Whether to return the layer weights too.

        Returns
        -------
        torch.Tensor
            Frames, of shape (batch, time, channel).
        torch.Tensor
            With return_weights, the softmax weights, the same for each frame,
            of shape (batch, 1, time, layer).
        """
        weights = torch.softmax(self.weights, dim=0)
        frames = torch.einsum("lbtc,l->btc", hidden_states, weights)
        if not return_weights:
            return frames
        return frames, weights.expand(*frames.shape[:2], -1).unsqueeze(1)


class LayerAttentivePooling(LayerPooling):
    """Frame-adaptive aggregation of layers (arXiv 2409.07770, section 2.3).

    For each head and frame, the mean and the maximum over the head's channels
    give two profiles over layers; each goes through a squeeze-excitation net
    of the head's own; the sigmoid of their sum weighs the layers, and the
    maximum over the weighted layers is kept. The weights are sigmoids
    (equation 2), so they do not add up to one over the layers.

    The defaults are those of L-TDNN, and weights are drawn as in its authors'
    code: projections and excitation by Xavier's rule, the squeeze by Kaiming's,
    each over the tensor of all heads. LAP (arXiv 2512.22148) works on the
    hidden states themselves: `projected_channels=in_channels, bias=True`, 12
    heads for base and 16 for large encoders.

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.
    n_layers : int
        Number of layers.
    n_heads : int
        Number of heads; divides projected_channels.
    dropout : float
        Dropout probability of the layer weights.
    projected_channels : int
        Channels of all heads together; out_channels if None, as in the authors'
        code. The paper's text has in_channels.
    bias : bool
        Whether the projections have a bias.
    pool : str
        What is kept of the weighted layers: "max", "sum" or "mean".
    recompute : bool
        Whether the batch norm of the input is computed again in the backward pass,
        which takes less memory.

    Raises
    ------
    ValueError
        If the heads do not divide the channels, or pool is unknown.

    Example
    -------
    >>> pooling = LayerAttentivePooling(768, 512, n_layers=13, n_heads=8)
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> frames, weights = pooling(hidden_states, return_weights=True)
    >>> frames.shape, weights.shape
    (torch.Size([2, 50, 512]), torch.Size([2, 8, 50, 13]))
    """

    # Of the map (batch, head, channel, layer, time) and its weights (batch, head,
    # layer, time)
    POOLS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
        "max": _weighted_maximum,
        "sum": _weighted_sum,
        "mean": _weighted_mean,
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        n_layers: int,
        n_heads: int = 8,
        dropout: float = 0.1,
        projected_channels: int | None = None,
        bias: bool = False,
        pool: str = "max",
        recompute: bool = False,
    ) -> None:
        super().__init__()
        self.recompute = recompute
        projected_channels = projected_channels or out_channels
        if projected_channels % n_heads:
            raise ValueError(
                f"n_heads={n_heads} does not divide the {projected_channels} "
                "channels of the heads"
            )
        if pool not in self.POOLS:
            raise ValueError(f'pool="{pool}": use {", ".join(self.POOLS)}')
        self.pool = pool
        self.n_layers = n_layers
        self.n_heads = n_heads
        squeezed = n_layers // 2
        self.in_norm = nn.BatchNorm2d(in_channels)
        self.in_proj = nn.Conv2d(in_channels, projected_channels, 1, bias=bias)
        self.squeeze_weight = nn.Parameter(torch.empty(n_heads, n_layers, squeezed))
        self.squeeze_bias = nn.Parameter(torch.zeros(n_heads, 1, squeezed))
        self.excite_weight = nn.Parameter(torch.empty(n_heads, squeezed, n_layers))
        self.excite_bias = nn.Parameter(torch.zeros(n_heads, 1, n_layers))
        self.dropout = nn.Dropout(dropout)
        self.out_proj = nn.Conv1d(projected_channels, out_channels, 1, bias=bias)
        self.out_norm = nn.BatchNorm1d(out_channels)
        draw_by_xavier(self)
        nn.init.kaiming_uniform_(self.squeeze_weight)

    def _excitation(self, profile: torch.Tensor) -> torch.Tensor:
        """Two-layer net over layer profiles (batch, head, time, layer)."""
        squeezed = torch.relu(profile @ self.squeeze_weight + self.squeeze_bias)
        return squeezed @ self.excite_weight + self.excite_bias

    def forward(
        self,
        hidden_states: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Aggregates the layers of each frame.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths of shape (batch,), to keep padded frames out of
            the training statistics of the batch norms.
        return_weights : bool
            Whether to return the layer weights too.

        Returns
        -------
        torch.Tensor
            Frames, of shape (batch, time, out_channels).
        torch.Tensor
            With return_weights, the sigmoid weights, of shape
            (batch, head, time, layer).

        Raises
        ------
        ValueError
            If the input has another number of layers.
        """
        mask = frame_mask(lengths, hidden_states.shape[2])
        x, weights = self._project(hidden_states, mask)
        x = self.POOLS[self.pool](x, self.dropout(weights).transpose(2, 3))
        x = x.flatten(1, 2)
        x = masked_batch_norm(self.out_norm, self.out_proj(x), mask)
        x = x.transpose(1, 2)
        return (x, weights) if return_weights else x

    def weigh(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Projects and weighs the layers, as in evaluation, before one is kept.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        mask : torch.Tensor
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Weighted layers, of shape (batch, head, channel, layer, time).
        torch.Tensor
            The sigmoid weights, of shape (batch, head, time, layer).

        Raises
        ------
        ValueError
            If the input has another number of layers.
        """
        x, weights = self._project(hidden_states, mask)
        return x * weights.transpose(2, 3).unsqueeze(2), weights

    def _project(
        self, hidden_states: torch.Tensor, mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The projection of a map, (batch, head, channel, layer, time), and weights."""
        n_layers, n_batch, n_frames, _ = hidden_states.shape
        if n_layers != self.n_layers:
            raise ValueError(
                f"LayerAttentivePooling was built for n_layers={self.n_layers} "
                f"and got {n_layers} layers"
            )
        x = with_recomputation(
            self,
            convolve_normalised,
            self.in_norm,
            self.in_proj,
            layers_to_map(hidden_states),
            mask,
        )
        x = x.reshape(n_batch, self.n_heads, -1, n_layers, n_frames)
        mean_profile = x.mean(dim=2).transpose(2, 3)
        max_profile = _maximum(x, dim=2).transpose(2, 3)
        weights = torch.sigmoid(
            self._excitation(mean_profile) + self._excitation(max_profile)
        )
        return x, weights


class ChannelAttentiveStatisticsPooling(FramePooling):
    """Attentive statistics over frames with global context (arXiv 2409.07770).

    The attention of a frame sees its features and the utterance's mean and
    standard deviation; each channel has weights of its own.

    The defaults are those of L-TDNN; `drop_frames=True, unbiased=True` are
    the ASTP of LAP (arXiv 2512.22148).

    Arguments
    ---------
    channels : int
        Channels of the input.
    attention_channels : int
        Channels of the attention's bottleneck.
    dropout : float
        Dropout probability of the frame weights.
    drop_frames : bool
        Whether the dropout leaves whole frames out before the softmax, so
        that the weights of the others still add up to one.
    unbiased : bool
        Whether the standard deviation in the context is the unbiased one.

    Example
    -------
    >>> pooling = ChannelAttentiveStatisticsPooling(512, attention_channels=256)
    >>> frames = torch.rand(2, 50, 512)
    >>> pooling(frames, lengths=torch.tensor([1.0, 0.8])).shape
    torch.Size([2, 1, 1024])
    """

    MIN_VARIANCE = 1e-4

    def __init__(
        self,
        channels: int,
        attention_channels: int,
        dropout: float = 0.1,
        drop_frames: bool = False,
        unbiased: bool = False,
    ) -> None:
        super().__init__()
        self.in_channels = channels
        self.out_channels = 2 * channels
        self.drop_frames = drop_frames
        self.unbiased = unbiased
        self.bottleneck = nn.Conv1d(3 * channels, attention_channels, 1)
        self.norm = nn.BatchNorm1d(attention_channels)
        self.scores = nn.Conv1d(attention_channels, channels, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        frames: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
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
        variance = masked_mean((x - mean) ** 2, mask, (2,))
        if self.unbiased:
            variance = _unbiased(variance, x, mask)
        std = self._std(variance)
        context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
        hidden = torch.relu(self.bottleneck(context))
        scores = self.scores(masked_batch_norm(self.norm, hidden, mask))
        if self.training and self.drop_frames:
            kept = torch.rand(x.shape[0], x.shape[2], device=x.device)
            kept = kept >= self.dropout.p
            mask = kept if mask is None else mask & kept
        if mask is not None:
            # Finite, so that an utterance of which no frame is left has
            # equal weights and not NaN.
            lowest = torch.finfo(scores.dtype).min
            scores = scores.masked_fill(~expand_mask(mask, 3), lowest)
        weights = torch.softmax(scores, dim=2)
        dropped = weights if self.drop_frames else self.dropout(weights)
        mean = (dropped * x).sum(dim=2)
        variance = (dropped * x**2).sum(dim=2) - mean**2
        pooled = torch.cat([mean, self._std(variance)], dim=1).unsqueeze(1)
        return (pooled, weights.transpose(1, 2)) if return_weights else pooled

    def _std(self, variance: torch.Tensor) -> torch.Tensor:
        return variance.clamp(min=self.MIN_VARIANCE).sqrt()


class MultiHeadAttnPooling(MultiHeadFramePooling):
    """Self multi-head attention pooling over frames (arXiv 1906.09890).

    The channels are split into heads. Each head has a trainable query, whose
    dot product with the head's channels says how much a frame counts, and the
    weighted means of all heads are concatenated (equations 1 to 3). One head
    is vanilla self attention.

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    n_heads : int
        Number of heads; divides in_channels.
    scale : float
        Factor of the dot products, 1 as in the paper; the authors' later code
        has one over the square root of the number of heads.
    n_queries : int
        Queries of each head (multi-query, arXiv 2110.05042); the means of
        all of them are concatenated.
    statistics : bool
        Whether weighted standard deviations follow the weighted means, as in
        attentive statistics pooling.

    Raises
    ------
    ValueError
        If the heads do not divide the channels.

    Example
    -------
    >>> pooling = MultiHeadAttnPooling(512, n_heads=32)
    >>> frames, lengths = torch.rand(2, 50, 512), torch.tensor([1.0, 0.6])
    >>> pooled, weights = pooling(frames, lengths, return_weights=True)
    >>> pooled.shape, weights.shape
    (torch.Size([2, 1, 512]), torch.Size([2, 32, 50]))
    """

    MIN_VARIANCE = 1e-4

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        scale: float = 1.0,
        n_queries: int = 1,
        statistics: bool = False,
    ) -> None:
        super().__init__()
        if in_channels % n_heads:
            raise ValueError(
                f"n_heads={n_heads} does not divide in_channels={in_channels}"
            )
        self.in_channels = in_channels
        self.n_heads = n_heads
        self.n_queries = n_queries
        self.statistics = statistics
        head_channels = in_channels // n_heads
        self.scale = scale
        self.out_channels = in_channels * n_queries * (1 + statistics)
        self.query = nn.Parameter(torch.empty(n_heads, n_queries, head_channels))
        for query in self.query.unbind(1):
            # As the authors do, whose parameter is one matrix of all heads
            nn.init.xavier_normal_(query)

    def forward(
        self,
        frames: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the frame weights too.

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, out_channels), head by head.
        torch.Tensor
            With return_weights, the softmax weights, of shape
            (batch, head * query, time).
        """
        pooled, weights = self.attend(frames, frame_mask(lengths, frames.shape[1]))
        return (pooled, weights) if return_weights else pooled

    def attend(
        self, items: torch.Tensor, mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Pools what a mask lets through, frames or anything else.

        Arguments
        ---------
        items : torch.Tensor
            Items, of shape (batch, item, channel).
        mask : torch.Tensor
            True where an item counts, of shape (batch, item); all if None.

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, out_channels).
        torch.Tensor
            The weights, of shape (batch, head * query, item).
        """
        heads = items.unflatten(2, (self.n_heads, -1))
        scores = torch.einsum("bthc,hqc->bhqt", heads, self.query)
        if is_traced():  # for single utterances too, as in `layers_to_map`
            scores = scores.contiguous()
        scores = scores * self.scale
        if mask is not None:
            scores = scores.masked_fill(~expand_mask(mask, 4), float("-inf"))
        weights = torch.softmax(scores, dim=-1).to(heads.dtype)
        pooled = torch.einsum("bhqt,bthc->bhqc", weights, heads)
        if self.statistics:
            squares = torch.einsum("bhqt,bthc->bhqc", weights, heads**2)
            variance = (squares - pooled**2).clamp(min=self.MIN_VARIANCE)
            pooled = torch.cat([pooled, variance.sqrt()], dim=-1)
        return pooled.flatten(1).unsqueeze(1), weights.flatten(1, 2)


class DoubleMultiHeadAttnPooling(MultiHeadFramePooling):
    """Attention over the heads of multi-head attention (arXiv 2007.13199).

    The heads' weighted means are themselves pooled by self attention into one
    vector of a head's size, so that heads which say nothing about the speaker
    do not count.

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    n_heads : int
        Number of heads; divides in_channels.
    scale : float
        Factor of the dot products for frames; see `MultiHeadAttnPooling`.
    head_dropout : float
        Probability with which a head is left out in training.

    Raises
    ------
    ValueError
        If the heads do not divide the channels.

    Example
    -------
    >>> pooling = DoubleMultiHeadAttnPooling(512, n_heads=32)
    >>> pooling(torch.rand(2, 50, 512), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 16])
    """

    def __init__(
        self,
        in_channels: int,
        n_heads: int,
        scale: float = 1.0,
        head_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.of_frames = MultiHeadAttnPooling(in_channels, n_heads, scale)
        self.of_heads = MultiHeadAttnPooling(in_channels // n_heads, 1)
        self.in_channels = in_channels
        self.n_heads = n_heads
        self.head_dropout = head_dropout
        self.out_channels = in_channels // n_heads

    def forward(
        self,
        frames: torch.Tensor,
        lengths: torch.Tensor | None = None,
        return_weights: bool = False,
    ) -> MaybeWithWeights:
        """Pools the valid frames, then the heads.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the frame weights too.

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, channel / head).
        torch.Tensor
            With return_weights, the frames' weights, of shape
            (batch, head, time).
        """
        pooled, weights = self.of_frames(frames, lengths, return_weights=True)
        heads = pooled.squeeze(1).unflatten(1, (self.n_heads, -1))
        mask = None
        if self.training and self.head_dropout:
            mask = torch.rand(heads.shape[:2], device=heads.device)
            # The luckiest head always stays.
            lucky = mask == mask.amax(dim=1, keepdim=True)
            mask = (mask >= self.head_dropout) | lucky
        pooled, _ = self.of_heads.attend(heads, mask)
        return (pooled, weights) if return_weights else pooled


def __getattr__(name: str) -> Any:
    return renamed(__name__, name)
