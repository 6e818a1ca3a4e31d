"""WavLM's overlapped speech and noise for masked prediction."""

import torch
from torch import nn


class UtteranceMixing(nn.Module):
    """Mixes a part of another utterance into some of the batch.

    The mixed part starts anywhere, lasts at most half of the utterance and is
    softer or louder by a ratio drawn in dB, so that the main speaker is the
    one who is heard longer (WavLM, arXiv 2110.13900, algorithm 1).

    Arguments
    ---------
    prob : float
        Share of the utterances that are mixed.
    snr_low : float
        Lowest ratio of main to other utterance, in dB.
    snr_high : float
        Highest ratio, in dB.

    Example
    -------
    >>> mixing = UtteranceMixing(prob=1.0)
    >>> wavs = torch.rand(4, 16000)
    >>> mixed = mixing(wavs)
    >>> mixed.shape, int((mixed != wavs).any(1).sum())
    (torch.Size([4, 16000]), 4)
    """

    def __init__(self, prob=0.2, snr_low=-5.0, snr_high=5.0):
        super().__init__()
        self.prob = prob
        self.snr_low, self.snr_high = snr_low, snr_high

    def forward(self, wavs):
        """Mixes utterances of the batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time), without padding.

        Returns
        -------
        torch.Tensor
            Output of the shape of wavs.
        """
        n_batch, n_samples = wavs.shape
        if n_batch < 2:
            return wavs
        mixed = wavs.clone()
        power = wavs.pow(2).mean(1)
        for main in torch.nonzero(torch.rand(n_batch) < self.prob).flatten():
            other = (main + torch.randint(1, n_batch, ())) % n_batch
            length = int(torch.randint(1, n_samples // 2 + 1, ()))
            source = int(torch.randint(0, n_samples - length + 1, ()))
            target = int(torch.randint(0, n_samples - length + 1, ()))
            snr = self.snr_low + torch.rand(()) * (self.snr_high - self.snr_low)
            gain = (power[main] / power[other].clamp(min=1e-10)).sqrt()
            gain = gain * 10 ** (-snr / 20)
            mixed[main, target : target + length] += (
                gain.to(wavs) * wavs[other, source : source + length]
            )
        return mixed
