"""SpecAugment's masks on features of frames (arXiv 1904.08779)."""

import torch
from torch import nn


class FrameMasking(nn.Module):
    """Sets one band of channels and one span of frames of each utterance to zero.

    Widths are drawn evenly below a maximum, for each utterance anew.

    Arguments
    ---------
    max_freq_mask : int
        A band has fewer channels.
    max_time_mask : int
        A span has fewer frames.

    Example
    -------
    >>> masking = FrameMasking(max_freq_mask=10, max_time_mask=5)
    >>> frames, lengths = masking(torch.ones(2, 200, 80), torch.ones(2))
    >>> bool((frames == 0).sum() <= 2 * (9 * 200 + 4 * 80))
    True
    """

    def __init__(self, max_freq_mask=10, max_time_mask=5):
        super().__init__()
        self.max_freq_mask = max_freq_mask
        self.max_time_mask = max_time_mask

    def forward(self, frames, lengths):
        """Masks the features; call it in training only.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Output of the shape of frames.
        torch.Tensor
            The lengths, as they were.
        """
        n_batch, n_frames, n_channels = frames.shape
        time = _spans(n_batch, n_frames, self.max_time_mask, frames.device)
        band = _spans(n_batch, n_channels, self.max_freq_mask, frames.device)
        masked = time.unsqueeze(2) | band.unsqueeze(1)
        return frames.masked_fill(masked, 0.0), lengths


def _spans(n_batch, size, max_width, device):
    """One span in each row, of shape (batch, size)."""
    widths = torch.randint(min(max_width, size), (n_batch, 1), device=device)
    starts = torch.rand(n_batch, 1, device=device) * (size - widths + 1)
    positions = torch.arange(size, device=device)
    starts = starts.long()
    return (positions >= starts) & (positions < starts + widths)
