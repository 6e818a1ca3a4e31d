"""Spectra of batches of waveforms, for encoders that do not take the samples."""

import torch
from torch import nn


def cut_frames(wav: torch.Tensor, length: int, shift: int) -> torch.Tensor:
    """Cuts waveforms into frames that overlap.

    Arguments
    ---------
    wav : torch.Tensor
        Waveforms, of shape (batch, time).
    length : int
        Samples of a frame.
    shift : int
        Samples from the start of a frame to that of the next.

    Returns
    -------
    torch.Tensor
        Whole frames, of shape (batch, frame, length).

    Example
    -------
    >>> cut_frames(torch.arange(6).unsqueeze(0), length=4, shift=2)
    tensor([[[0, 1, 2, 3],
             [2, 3, 4, 5]]])
    """
    # No `unfold`, which ONNX lacks for waveforms of any duration.
    n_frames = (wav.shape[1] - length) // shift + 1
    starts = shift * torch.arange(n_frames, device=wav.device)
    return wav[:, starts.unsqueeze(1) + torch.arange(length, device=wav.device)]


class PowerSpectrum(nn.Module):
    """Energies of frames at the frequencies of a Fourier transform.

    A module, so that an export can put another way to the same numbers in its
    place.

    Arguments
    ---------
    n_fft : int
        Length of the transform; shorter frames are padded with zeros.

    Example
    -------
    >>> PowerSpectrum(8)(torch.ones(2, 8))
    tensor([[64.,  0.,  0.,  0.,  0.],
            [64.,  0.,  0.,  0.,  0.]])
    """

    def __init__(self, n_fft: int) -> None:
        super().__init__()
        self.n_fft = n_fft

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Transforms frames.

        Arguments
        ---------
        frames : torch.Tensor
            Of shape (..., sample).

        Returns
        -------
        torch.Tensor
            Energies, of shape (..., n_fft // 2 + 1).
        """
        return torch.fft.rfft(frames, self.n_fft).abs() ** 2
