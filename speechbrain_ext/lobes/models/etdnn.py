"""E-TDNN, the extended TDNN: x-vectors from ten frame-level layers."""

from torch import nn

from speechbrain_ext.lobes.models.xvector import MaskedXvector


class ETDNN(MaskedXvector):
    """The deeper x-vector of Snyder et al. (ICASSP 2019).

    Four convolutions with a wider context each than the one before, and a fully
    connected layer after each of them and before the last, wide one: "Speaker
    recognition for multi-speaker conversations using x-vectors", table 1. Each
    layer is followed by ReLU and batch norm; its modules are `blocks.0` to
    `blocks.29`, three for each layer.

    Arguments
    ---------
    in_channels : int
        Channels of the frames.
    channels : int
        Channels of all frame-level layers but the last.
    pooled_channels : int
        Channels of the last one, whose mean and standard deviation are taken.
    lin_neurons : int
        Dimension of the embedding.

    Example
    -------
    >>> import torch
    >>> model = ETDNN(in_channels=30)
    >>> model(torch.rand(2, 100, 30), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 512])
    >>> sum(p.numel() for p in model.parameters())
    6069652
    """

    def __init__(
        self, in_channels, channels=512, pooled_channels=1500, lin_neurons=512
    ):
        super().__init__(
            in_channels=in_channels,
            activation=nn.ReLU,
            tdnn_blocks=10,
            tdnn_channels=[channels] * 9 + [pooled_channels],
            tdnn_kernel_sizes=[5, 1, 3, 1, 3, 1, 3, 1, 1, 1],
            tdnn_dilations=[1, 1, 2, 1, 3, 1, 4, 1, 1, 1],
            lin_neurons=lin_neurons,
        )
