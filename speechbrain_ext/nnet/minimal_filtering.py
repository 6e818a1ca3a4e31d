"""Convolutions of three frames with half the products.

By Winograd's minimal filtering (arXiv 1509.09308, section 4.1), F(4, 3): four frames
that come out of six take six products in place of twelve. A processor multiplies near
its limit in a convolution of many channels, so that fewer products are what is left.
"""

import torch
from torch import nn

from speechbrain_ext.nnet.masking import is_traced

N_NEW = 4  # frames that come out of a tile
N_TILES = 24  # tiles at once, whose sums stay in the cache
# With fewer channels the sums take longer than the products that they save.
LEAST_CHANNELS = 256
# A row for each product of a tile, a column for each tap
OF_TAPS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)


def is_filtered_minimally(conv: nn.Conv2d, x: torch.Tensor) -> bool:
    """Whether `filter_normalised` can take the place of a convolution and pays.

    Arguments
    ---------
    conv : torch.nn.Conv2d
        Convolution over (layer, time) with "same" padding.
    x : torch.Tensor
        Its input.

    Returns
    -------
    bool
        True in float32 on a processor where nothing is differentiated or recorded.

    Example
    -------
    >>> conv, x = nn.Conv2d(4, 256, (5, 3), padding=(2, 1)), torch.rand(1, 4, 13, 9)
    >>> is_filtered_minimally(conv, x)
    False
    >>> with torch.no_grad():
    ...     is_filtered_minimally(conv, x)
    True
    """
    is_plain = not (is_traced() or torch.is_grad_enabled())
    is_float32 = x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return (
        is_plain
        and is_float32
        and x.device.type == "cpu"
        and conv.kernel_size[1] == 3
        and conv.dilation == (1, 1)
        and conv.out_channels >= LEAST_CHANNELS
    )


def filter_taps(weight: torch.Tensor) -> torch.Tensor:
    """Matrices that the sums of a tile are multiplied by.

    Arguments
    ---------
    weight : torch.Tensor
        Weight of the convolution, of shape (out_channel, in_channel, layer, 3).

    Returns
    -------
    torch.Tensor
        Matrices, of shape (6, layer, in_channel, out_channel).

    Example
    -------
    >>> filter_taps(torch.rand(16, 8, 5, 3)).shape
    torch.Size([6, 5, 8, 16])
    """
    of_taps = torch.tensor(OF_TAPS, dtype=torch.float64, device=weight.device)
    taps = torch.einsum("pk,oilk->plio", of_taps, weight.double())
    return taps.to(weight.dtype).contiguous()


def filter_normalised(
    norm: nn.Module,
    conv: nn.Conv2d,
    taps: torch.Tensor,
    x: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """A batch norm in evaluation, and a convolution of the valid frames of its output.

    As `convolve_normalised`; tiles begin with each utterance, so that what comes out
    does not depend on the batch.

    Arguments
    ---------
    norm : torch.nn.BatchNorm2d or torch.nn.SyncBatchNorm
        Batch norm in evaluation.
    conv : torch.nn.Conv2d
        Convolution for which `is_filtered_minimally` is True.
    taps : torch.Tensor
        `filter_taps` of its weight.
    x : torch.Tensor
        Input, of shape (batch, in_channels, layer, time); fastest where the channels of
        a frame lie next to each other.
    mask : torch.Tensor or None
        Valid frames, of shape (batch, time).

    Returns
    -------
    torch.Tensor
        Output of the convolution; what stands in padded frames means nothing.

    Example
    -------
    >>> norm = nn.BatchNorm2d(8).eval()
    >>> conv = nn.Conv2d(8, 16, (5, 3), padding=(2, 1))
    >>> x = torch.rand(2, 8, 13, 50)
    >>> with torch.no_grad():
    ...     y = filter_normalised(norm, conv, filter_taps(conv.weight), x)
    ...     torch.allclose(y, conv(norm(x)), atol=1e-5)
    True
    """
    n_batch, n_channels, n_layers, n_frames = x.shape
    gain = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    shift = norm.bias - gain * norm.running_mean
    n_tiles = -(-n_frames // N_NEW)
    border = conv.padding[0]
    output = x.new_empty(n_batch, conv.out_channels, n_layers, N_NEW * n_tiles)
    padded = x.new_zeros(n_layers + 2 * border, N_NEW * n_tiles + 2, n_channels)
    inner = padded[border : border + n_layers, 1 : n_frames + 1]
    for utterance, own in enumerate(x.permute(0, 2, 3, 1)):
        torch.addcmul(shift, own, gain, out=inner)
        if mask is not None:
            inner[:, ~mask[utterance]] = 0.0
        for first in range(0, n_tiles, N_TILES):
            frames = slice(N_NEW * first, N_NEW * (first + N_TILES) + 2)
            products = _filter_tiles(padded[:, frames], taps)
            if conv.bias is not None:
                products += conv.bias
            rows = products.unflatten(0, (n_layers, -1)).permute(2, 0, 1)
            output[utterance, :, :, frames.start : frames.stop - 2] = rows
    return output[..., :n_frames]


def _filter_tiles(x, taps):
    """Filters tiles of frames, of shape (layer, time, channel), padding included.

    What comes out is of shape (layer * time, out_channel).
    """
    n_tiles = (x.shape[1] - 2) // N_NEW
    n_layers = len(x) - taps.shape[1] + 1
    end = N_NEW * n_tiles
    d0, d1, d2, d3, d4, d5 = (x[:, i : i + end - N_NEW + 1 : N_NEW] for i in range(6))
    even, odd = d4 - 4 * d2, d3 - 4 * d1
    inner_even, inner_odd = d4 - d2, 2 * (d3 - d1)
    sums = (
        torch.add(d4 - 5 * d2, d0, alpha=4),
        even + odd,
        even - odd,
        inner_even + inner_odd,
        inner_even - inner_odd,
        torch.add(d5 - 5 * d3, d1, alpha=4),
    )
    products = []
    for own, matrices in zip(sums, taps):
        rows = own.flatten(0, 1)
        windows = [
            rows[layer * n_tiles : (layer + n_layers) * n_tiles]
            for layer in range(len(matrices))
        ]
        product = windows[0] @ matrices[0]
        for window, matrix in zip(windows[1:], matrices[1:]):
            product.addmm_(window, matrix)
        products.append(product)
    m0, m1, m2, m3, m4, m5 = products
    plus, minus = m1 + m2, m1 - m2
    wide_plus, wide_minus = m3 + m4, m3 - m4
    new = (
        m0 + plus + wide_plus,
        torch.add(minus, wide_minus, alpha=2),
        torch.add(plus, wide_plus, alpha=4),
        torch.add(minus, wide_minus, alpha=8) + m5,
    )
    return torch.stack(new, dim=1).flatten(0, 1)
