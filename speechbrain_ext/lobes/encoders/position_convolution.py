"""The convolution of positions of wav2vec 2.0, by Fourier transforms.

A processor multiplies matrices at a third of its speed or less in a convolution of 128
taps with 16 groups, which is a tenth of the time of a base encoder. By transforms it
takes an eighth of that.
"""

from collections.abc import Sequence

import torch
from torch import nn


def tap_spectrum(gain: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Transforms the taps of a convolution with weight norm.

    Arguments
    ---------
    gain : torch.Tensor
        Norm of each tap, of shape (1, 1, tap).
    direction : torch.Tensor
        Weight before it is normalised, of shape (out_channel, group_channel, tap).

    Returns
    -------
    torch.Tensor
        Complex matrices, of shape (frequency, group, group_channel, group_channel),
        for transforms of at least twice as many points as there are taps.
    """
    weight = direction * (gain / direction.norm(dim=(0, 1), keepdim=True))
    n_points = 2 ** (2 * weight.shape[2] - 1).bit_length()
    # A convolution of neural networks is a correlation.
    spectrum = torch.fft.rfft(weight, n_points).conj()
    groups = spectrum.unflatten(0, (-1, weight.shape[1]))
    return groups.permute(3, 0, 2, 1).contiguous()


def convolve_positions(
    conv: nn.Conv1d, spectrum: torch.Tensor, x: torch.Tensor, counts: Sequence[int]
) -> torch.Tensor:
    """Convolves utterances over time, each by itself.

    They lie in a row with zeros between them and are cut into blocks for the transform
    ("overlap-save").

    Arguments
    ---------
    conv : torch.nn.Conv1d
        The convolution; what comes out is as long as what goes in.
    spectrum : torch.Tensor
        `tap_spectrum` of the parameters of its weight.
    x : torch.Tensor
        Frames of one utterance after the other, of shape (frame, channel).
    counts : list of int
        Frames of each.

    Returns
    -------
    torch.Tensor
        Output of the shape of x.

    Example
    -------
    >>> conv = nn.Conv1d(8, 8, kernel_size=4, padding=2, groups=2)
    >>> conv = nn.utils.parametrizations.weight_norm(conv, dim=2)
    >>> x = torch.rand(15, 8)
    >>> with torch.no_grad():
    ...     spectrum = tap_spectrum(*conv.parametrizations.weight.parameters())
    ...     y = convolve_positions(conv, spectrum, x, [10, 5])
    ...     torch.allclose(y[10:], conv(x[10:].T)[:, :5].T, atol=1e-5)
    True
    """
    n_taps = conv.kernel_size[0]
    gap = n_taps // 2
    n_channels, n_groups = x.shape[1], conv.groups
    n_points = 2 * (len(spectrum) - 1)
    n_new = n_points - n_taps + 1
    n_blocks = -(-(len(x) + gap * len(counts)) // n_new)
    row = x.new_zeros(n_blocks * n_new + n_taps - 1, n_channels)
    starts = [gap * (i + 1) + sum(counts[:i]) for i in range(len(counts))]
    for start, frames in zip(starts, x.split(list(counts))):
        row[start : start + len(frames)] = frames
    blocks = torch.fft.rfft(row.unfold(0, n_points, n_new))
    blocks = blocks.unflatten(1, (n_groups, -1)).permute(3, 1, 0, 2)
    blocks = (blocks @ spectrum).permute(2, 1, 3, 0).flatten(1, 2)
    blocks = torch.fft.irfft(blocks, n_points)[:, :, :n_new]
    row = blocks.transpose(1, 2).reshape(-1, n_channels) + conv.bias
    return torch.cat(
        [row[start - gap :][:count] for start, count in zip(starts, counts)]
    )
