"""Waveforms, alone or above what a model makes of them."""

import numpy as np

from speechbrain_ext.plots.figures import new_figure


def draw_waveform(axes, wav, sample_rate):
    """Draws a waveform over time.

    Arguments
    ---------
    axes : matplotlib.axes.Axes
        Where to draw; the label of the time axis is left to the caller.
    wav : torch.Tensor
        Waveform, of shape (time,).
    sample_rate : int
        Sample rate in Hz.

    Example
    -------
    >>> import torch
    >>> figure, axes = new_figure(figsize=(2, 1))
    >>> draw_waveform(axes, torch.randn(16000), 16000)
    >>> axes.get_ylabel()
    'amplitude'
    """
    axes.plot(np.arange(len(wav)) / sample_rate, wav.numpy(), linewidth=0.3)
    axes.set_ylabel("amplitude")


def waveform_figure(wav, sample_rate):
    """Draws a waveform in a figure of its own.

    Arguments
    ---------
    wav : torch.Tensor
        Waveform, of shape (time,).
    sample_rate : int
        Sample rate in Hz.

    Returns
    -------
    matplotlib.figure.Figure
        The figure.

    Example
    -------
    >>> import torch
    >>> figure = waveform_figure(torch.randn(16000), 16000)
    >>> figure.axes[0].get_xlabel()
    'time (s)'
    """
    figure, axes = new_figure(figsize=(8, 1.8), layout="constrained")
    draw_waveform(axes, wav, sample_rate)
    axes.set_xlabel("time (s)")
    axes.set_xlim(0, len(wav) / sample_rate)
    return figure
