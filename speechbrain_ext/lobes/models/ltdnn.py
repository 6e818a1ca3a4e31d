"""L-TDNN, a layer-aware TDNN over the hidden states of an SSL encoder.

Paper: https://arxiv.org/abs/2409.07770
"""

import torch
from torch import nn

from speechbrain_ext.lobes.models.astp import ASTP
from speechbrain_ext.nnet.derived import Derived
from speechbrain_ext.nnet.initialisation import draw_by_xavier
from speechbrain_ext.nnet.masking import (
    frame_mask,
    layers_to_map,
    masked_mean,
    zero_padded_batch_norm,
)
from speechbrain_ext.nnet.minimal_filtering import (
    filter_normalised,
    filter_taps,
    is_filtered_minimally,
)
from speechbrain_ext.nnet.normalised_convolution import convolve_normalised
from speechbrain_ext.nnet.pooling import (
    FrameStatistics,
    LayerAttention,
    LayerAttentivePooling,
)
from speechbrain_ext.nnet.recomputation import with_recomputation
from speechbrain_ext.utils.errors import InputError


class ConvReLUNorm(nn.Module):
    """2D convolution over (layer, time) with "same" padding, ReLU, batch norm.

    Arguments
    ---------
    in_channels : int
        Channels of the input.
    out_channels : int
        Channels of the output.
    kernel_size : tuple of int
        Odd sizes over layers and frames.
    dilation : int
        Dilation over both axes.

    Example
    -------
    >>> block = ConvReLUNorm(8, 16, kernel_size=(5, 3))
    >>> block(torch.rand(2, 8, 13, 50)).shape
    torch.Size([2, 16, 13, 50])
    """

    def __init__(self, in_channels, out_channels, kernel_size=(1, 1), dilation=1):
        super().__init__()
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            dilation=dilation,
            # What "same" is for odd sizes; onnxruntime knows no such word.
            padding=tuple(dilation * (size - 1) // 2 for size in kernel_size),
        )
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x, mask=None):
        """Arguments and result are maps (batch, channel, layer, time).

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, in_channels, layer, time), zero in padded frames.
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output, of shape (batch, out_channels, layer, time), zero there too.
        """
        return self.relu_norm(self.conv(x), mask)

    def relu_norm(self, x, mask=None):
        """What comes after the convolution; the ReLU is applied in place.

        Arguments
        ---------
        x : torch.Tensor
            Output of the convolution, of shape (batch, out_channels, layer, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x, zero in padded frames.
        """
        return zero_padded_batch_norm(self.norm, torch.relu_(x), mask)


class Res2Conv(nn.Module):
    """Res2Net convolutions: groups of channels in sequence, the last passes.

    Arguments
    ---------
    channels : int
        Channels of input and output; a multiple of scale.
    scale : int
        Number of groups.
    dilation : int
        Dilation over layers and frames.

    Example
    -------
    >>> Res2Conv(64, scale=8, dilation=2)(torch.rand(2, 64, 13, 50)).shape
    torch.Size([2, 64, 13, 50])
    """

    def __init__(self, channels, scale, dilation):
        super().__init__()
        if channels % scale:
            raise ValueError(f"scale={scale} does not divide {channels} channels")
        width = channels // scale
        self.scale = scale
        self.convs = nn.ModuleList(
            ConvReLUNorm(width, width, (3, 3), dilation) for _ in range(scale - 1)
        )

    def forward(self, x, mask=None):
        """Convolves group after group, each added to the next one's input.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, layer, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x.
        """
        groups = list(x.chunk(self.scale, dim=1))
        previous = 0.0
        for i, conv in enumerate(self.convs):
            groups[i] = previous = conv(groups[i] + previous, mask)
        return torch.cat(groups, dim=1)


class SqueezeExcitation(nn.Module):
    """Channel gates from the mean over layers and frames.

    Arguments
    ---------
    channels : int
        Channels of input and output.
    bottleneck : int
        Channels of the hidden layer.

    Example
    -------
    >>> SqueezeExcitation(64, 16)(torch.rand(2, 64, 13, 50)).shape
    torch.Size([2, 64, 13, 50])
    """

    def __init__(self, channels, bottleneck):
        super().__init__()
        self.squeeze = nn.Conv2d(channels, bottleneck, 1)
        self.excite = nn.Conv2d(bottleneck, channels, 1)

    def forward(self, x, mask=None):
        """Gates the channels.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, layer, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x.
        """
        mean = masked_mean(x, mask, (2, 3))
        return x * torch.sigmoid(self.excite(torch.relu(self.squeeze(mean))))


class SERes2Block2d(nn.Module):
    """SE-Res2Block of ECAPA-TDNN over the map of layers and frames.

    Arguments
    ---------
    channels : int
        Channels of input and output.
    dilation : int
        Dilation over layers and frames.
    scale : int
        Res2 groups.
    se_channels : int
        Bottleneck of the squeeze-excitation.

    Example
    -------
    >>> SERes2Block2d(64, dilation=2)(torch.rand(2, 64, 13, 50)).shape
    torch.Size([2, 64, 13, 50])
    """

    def __init__(self, channels, dilation, scale=8, se_channels=128):
        super().__init__()
        self.conv_in = ConvReLUNorm(channels, channels)
        self.res2conv = Res2Conv(channels, scale, dilation)
        self.conv_out = ConvReLUNorm(channels, channels)
        self.squeeze_excitation = SqueezeExcitation(channels, se_channels)

    def forward(self, x, mask=None):
        """Arguments and result are maps (batch, channel, layer, time).

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, layer, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x.
        """
        residual = x
        x = self.conv_in(x, mask)
        x = self.res2conv(x, mask)
        x = self.conv_out(x, mask)
        return self.squeeze_excitation(x, mask) + residual


class LayerAwareConvolutions(nn.Module):
    """The convolutions of L-TDNN (arXiv 2409.07770, section 2.2).

    Weights are drawn by Xavier's rule, as in the authors' code.

    Arguments
    ---------
    in_channels : int
        Channels of the SSL encoder.
    channels : int
        Channels C0 of the convolutions.
    dilations : list of int
        Dilation of each SE-Res2Block.
    scale : int
        Res2 groups.
    se_channels : int
        Bottleneck of the squeeze-excitations.
    recompute : bool
        Whether no more than the input and the output of each block are kept for
        the backward pass, which computes the rest again.

    Example
    -------
    >>> convolutions = LayerAwareConvolutions(768, channels=64)
    >>> convolutions(torch.rand(2, 768, 13, 50)).shape
    torch.Size([2, 192, 13, 50])
    """

    fingerprint_ignores = ("taps_in",)  # which follow from the weights

    def __init__(
        self,
        in_channels,
        channels=256,
        dilations=(2, 3, 4),
        scale=8,
        se_channels=128,
        recompute=False,
    ):
        super().__init__()
        self.recompute = recompute
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv_in = ConvReLUNorm(in_channels, channels, (5, 3))
        self.taps_in = Derived(filter_taps)
        self.blocks = nn.ModuleList(
            SERes2Block2d(channels, dilation, scale, se_channels)
            for dilation in dilations
        )
        self.out_channels = channels * len(dilations)
        self.fusion = nn.Conv2d(self.out_channels, self.out_channels, 1)
        draw_by_xavier(self)

    def forward(self, x, mask=None):
        """Convolves the map of layers and frames.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, in_channels, layer, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output, of shape (batch, out_channels, layer, time).
        """
        x = self.conv_in.relu_norm(self._convolve_in(x, mask), mask)
        outputs = []
        for block in self.blocks:
            x = with_recomputation(self, block, x, mask)
            outputs.append(x)
        return torch.relu_(with_recomputation(self, self._fuse, *outputs))

    def _convolve_in(self, x, mask):
        norm, conv = self.norm, self.conv_in.conv
        if not norm.training and is_filtered_minimally(conv, x):
            return filter_normalised(norm, conv, self.taps_in(conv.weight), x, mask)
        return with_recomputation(self, convolve_normalised, norm, conv, x, mask)

    def _fuse(self, *outputs):
        return self.fusion(torch.cat(outputs, dim=1))


class LTDNN(LayerAttention):
    """Speaker embeddings from all hidden states of an SSL encoder.

    Layer-aware convolutions, frame-adaptive layer aggregation and attentive
    statistics pooling of arXiv 2409.07770.

    Arguments
    ---------
    in_channels : int
        Channels of the SSL encoder, 768 (base) or 1,024 (large).
    n_layers : int
        Hidden states of the SSL encoder, 13 (base) or 25 (large).
    conv_channels : int
        Channels C0 of the convolutions.
    pooled_channels : int
        Channels C1 after the layer aggregation.
    emb_dim : int
        Dimension of the embedding.
    n_heads : int
        Heads of the layer aggregation.
    dilations : list of int
        Dilation of each SE-Res2Block, as many as there are.
    projected_channels : int
        Channels of all heads of the layer aggregation together; pooled_channels
        if None, as in the authors' code. The paper's text has those of the
        convolutions' output, conv_channels for each block.
    scale : int
        Res2 groups.
    se_channels : int
        Bottleneck of the squeeze-excitations.
    dropout : float
        Dropout probability of layer and frame weights.
    mask : str
        "full": convolutions, squeeze-excitation, batch norm and pooling leave
        padded frames out, so an embedding does not depend on its batch.
        "pooling": only the pooling over frames does, as in the published
        implementation.
    attentive : bool
        False for the plain mean and standard deviation of the frames.
    frame_pooling : FramePooling
        Pooling in place of attentive statistics, of pooled_channels; see `ASTP`.
    unbiased : bool
        Whether the deviation that the attention over frames sees is the unbiased
        one. The authors' code has it where it is given no lengths, and the
        biased one where it is.
    recompute : bool
        Whether blocks and batch norms are computed again in the backward pass, which
        takes less memory and more time; see docs/performance.md.

    Raises
    ------
    ValueError
        If mask is neither "full" nor "pooling".
    InputError
        If frame_pooling takes another number of channels, or is given though
        attentive is False.

    Example
    -------
    >>> model = LTDNN(in_channels=768, n_layers=13)
    >>> sum(p.numel() for p in model.parameters())
    5717272
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> model(hidden_states, lengths=torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 192])
    """

    def __init__(
        self,
        in_channels=768,
        n_layers=13,
        conv_channels=256,
        pooled_channels=512,
        emb_dim=192,
        n_heads=8,
        dilations=(2, 3, 4),
        projected_channels=None,
        scale=8,
        se_channels=128,
        dropout=0.1,
        mask="full",
        attentive=True,
        frame_pooling=None,
        unbiased=False,
        recompute=False,
    ):
        super().__init__()
        if mask not in ("full", "pooling"):
            raise ValueError(f'mask="{mask}": use "full" or "pooling"')
        self.mask = mask
        if not attentive:
            if frame_pooling is not None:
                raise InputError(
                    "attentive: False is the plain mean and deviation; leave it at "
                    "True with a frame_pooling"
                )
            frame_pooling = FrameStatistics(pooled_channels)
        self.convolutions = LayerAwareConvolutions(
            in_channels, conv_channels, dilations, scale, se_channels, recompute
        )
        self.layer_pooling = LayerAttentivePooling(
            self.convolutions.out_channels,
            pooled_channels,
            n_layers,
            n_heads,
            dropout,
            projected_channels,
            recompute=recompute,
        )
        self.astp = ASTP(
            pooled_channels,
            emb_dim,
            dropout=dropout,
            unbiased=unbiased,
            frame_pooling=frame_pooling,
        )

    def forward(self, hidden_states, lengths=None, return_weights=False):
        """Embeds a batch of utterances.

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
            Embeddings, of shape (batch, 1, emb_dim).
        torch.Tensor
            With return_weights, the layer weights, of shape
            (batch, head, time, layer).
        """
        layer_lengths = lengths if self.mask == "full" else None
        x = layers_to_map(hidden_states)
        x = self.convolutions(x, frame_mask(layer_lengths, x.shape[-1]))
        x, weights = self.layer_pooling(
            x.permute(2, 0, 3, 1), layer_lengths, return_weights=True
        )
        x = self.astp(x, lengths)
        return (x, weights) if return_weights else x
