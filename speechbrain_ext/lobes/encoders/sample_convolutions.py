"""The convolutions over samples of wav2vec 2.0, as matrix products.

On a processor they take less time than PyTorch's: speech goes through all of them in
blocks that stay in the cache, a frame's channels lie next to each other, so that
windows of frames are rows of a matrix without being copied, and the group norm after
the first convolution of the base encoders is part of its weights.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

BLOCK = 50  # frames that come out, a second of speech


def tap_matrices(*weights: torch.Tensor) -> list[torch.Tensor]:
    """Weights of convolutions as matrices that windows of frames are multiplied by.

    Arguments
    ---------
    *weights : torch.Tensor
        Weights of each convolution, of shape (out_channel, in_channel, tap).

    Returns
    -------
    list of torch.Tensor
        Of each convolution, of shape (tap * in_channel, out_channel).

    Example
    -------
    >>> [matrix.shape for matrix in tap_matrices(torch.rand(16, 4, 3))]
    [torch.Size([12, 16])]
    """
    return [w.permute(2, 1, 0).flatten(0, 1).contiguous() for w in weights]


def convolve_samples(
    layers: Sequence[Any], matrices: list[torch.Tensor], wav: torch.Tensor
) -> torch.Tensor:
    """Computes the frames of an utterance.

    Arguments
    ---------
    layers : torch.nn.ModuleList
        `conv_layers` of a feature encoder of transformers.
    matrices : list of torch.Tensor
        Weights of their convolutions, as of `tap_matrices`.
    wav : torch.Tensor
        Waveform, of shape (time,).

    Returns
    -------
    torch.Tensor
        Frames, of shape (frame, channel).

    Example
    -------
    >>> from transformers import WavLMConfig
    >>> from transformers.models.wav2vec2.modeling_wav2vec2 import (
    ...     Wav2Vec2FeatureEncoder,
    ... )
    >>> encoder = Wav2Vec2FeatureEncoder(WavLMConfig(conv_dim=[8] * 7)).eval()
    >>> matrices = tap_matrices(*(x.conv.weight for x in encoder.conv_layers))
    >>> wav = torch.rand(32000)
    >>> with torch.no_grad():
    ...     frames = convolve_samples(encoder.conv_layers, matrices, wav)
    ...     torch.allclose(frames.T, encoder(wav.unsqueeze(0))[0], atol=1e-5)
    True
    """
    hop = receptive_field = 1
    for layer in reversed(layers):
        (kernel,), (stride,) = layer.conv.kernel_size, layer.conv.stride
        receptive_field = kernel + stride * (receptive_field - 1)
        hop *= stride
    biases = [layer.conv.bias for layer in layers]
    norms = [getattr(layer, "layer_norm", None) for layer in layers]
    if isinstance(norms[0], nn.GroupNorm):
        weight, biases[0] = _normalised(layers[0].conv, norms.pop(0), wav)
        matrices = [*tap_matrices(weight), *matrices[1:]]
        norms.insert(0, None)
    n_frames = (len(wav) - receptive_field) // hop + 1
    blocks = []
    for start in range(0, n_frames, BLOCK):
        end = min(start + BLOCK, n_frames)
        x = wav[hop * start : hop * (end - 1) + receptive_field].unsqueeze(1)
        for layer, matrix, bias, norm in zip(layers, matrices, biases, norms):
            x = _convolve(x, matrix, bias, layer.conv)
            x = layer.activation(x if norm is None else norm(x))
        blocks.append(x)
    return torch.cat(blocks)


def _convolve(x, matrix, bias, conv):
    """Products with as many taps at once as there are frames from window to window.

    The rows of such a product do not overlap, as the libraries that multiply demand.
    """
    (kernel,), (stride,) = conv.kernel_size, conv.stride
    n_channels = x.shape[1]
    n_frames = (len(x) - kernel) // stride + 1
    y = None
    for tap in range(0, kernel, stride):
        width = min(stride, kernel - tap) * n_channels
        windows = x[tap:].as_strided((n_frames, width), (stride * n_channels, 1))
        taps = matrix[tap * n_channels :][:width]
        if y is None:
            y = windows @ taps if bias is None else torch.addmm(bias, windows, taps)
        else:  # in place, which autocast leaves alone
            y.addmm_(windows.to(y.dtype), taps.to(y.dtype))
    return y


def _normalised(conv, norm, wav):
    """Weight and bias of a convolution whose output is normalised over time.

    Mean and variance of an output channel follow from those of the windows.
    """
    windows = wav.double().unfold(0, conv.kernel_size[0], conv.stride[0])
    mean = windows.mean(0)
    windows = windows - mean
    covariance = windows.T @ windows / len(windows)
    weight = conv.weight.squeeze(1).double()
    variance = ((weight @ covariance) * weight).sum(1)
    gain = norm.weight * torch.rsqrt(variance.clamp(min=0) + norm.eps)
    bias = norm.bias - gain * (weight @ mean)
    return (gain.unsqueeze(1) * weight).unsqueeze(1).float(), bias.float()
