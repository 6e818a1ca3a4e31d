"""Convolution of a batch norm's output that spares the gradient of its input."""

import torch
from torch.nn import functional as F

from speechbrain_ext.nnet.masking import (
    expand_mask,
    is_traced,
    masked_batch_norm,
    zero_padded_batch_norm,
)


def convolve_normalised(norm, conv, x, mask=None):
    """A batch norm, and a convolution of the valid frames of its output.

    The result is that of one module after the other. Where the input needs no
    gradient, as hidden states of a frozen encoder, PyTorch would still compute the
    convolution's gradient with respect to its input, for no more than the weight and
    bias of the batch norm. These are moved to the other side of the convolution here:

        conv(weight * x + bias) = (conv * weight)(x) + (conv * bias)(1)

    The map of ones has one channel. It is zero where the convolution pads and where
    frames are padded, so the identity is exact at the borders as well.

    Arguments
    ---------
    norm : torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm
        See `masked_batch_norm`.
    conv : torch.nn.Conv2d
        Convolution in one group, of single frames or with zeros as padding.
    x : torch.Tensor
        Input, of shape (batch, in_channels, layer, time).
    mask : torch.Tensor or None
        Valid frames, of shape (batch, time).

    Returns
    -------
    torch.Tensor
        Output of the convolution; what stands in padded frames means nothing.

    Example
    -------
    >>> norm, conv = torch.nn.BatchNorm2d(8), torch.nn.Conv2d(8, 16, 3, padding=1)
    >>> convolve_normalised(norm, conv, torch.rand(2, 8, 13, 50)).shape
    torch.Size([2, 16, 13, 50])
    """
    if not x.is_contiguous() and not is_traced():
        # Batch norms take several times as long in the order of memory in which
        # hidden states come, and a copy layer by layer is faster than `contiguous`.
        x = torch.stack(x.unbind(2), dim=2)
    pads = any(conv.padding)
    batch_norm = zero_padded_batch_norm if pads else masked_batch_norm
    needs_gradient = torch.is_grad_enabled() and norm.weight.requires_grad
    if x.requires_grad or not needs_gradient:
        return conv(batch_norm(norm, x, mask))
    x = batch_norm(norm, x, mask, affine=False)
    of_weight = conv.weight * norm.weight.view(-1, 1, 1)
    # A product with a row for each output channel, without a copy of all weights
    row = norm.bias.expand(len(conv.weight), 1, -1)
    of_bias = torch.bmm(row, conv.weight.flatten(2)).unflatten(2, conv.kernel_size)
    geometry = conv.stride, conv.padding, conv.dilation
    if not pads:  # the bias is the same in every valid frame
        bias = of_bias.sum((1, 2, 3))
        bias = bias if conv.bias is None else conv.bias + bias
        return F.conv2d(x, of_weight, bias, *geometry)
    ones = x.new_ones(1, 1, *x.shape[2:])
    if mask is not None:
        ones = ones * expand_mask(mask, x.dim())
    y = F.conv2d(x, of_weight, None, *geometry)
    return y.add_(F.conv2d(ones, of_bias, conv.bias, *geometry))
