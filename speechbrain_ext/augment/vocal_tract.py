"""Other voices from the same speech: the vocal tract's length changes."""

import random

import torch
from torch import nn


class VocalTractPerturb(nn.Module):
    """Shifts all formants by one factor and leaves pitch and timing.

    The spectral envelope, which is what a low-order cepstrum describes, is
    stretched along frequency; the fine structure stays. As SpeechBrain's
    `SpeedPerturb`, it draws one factor for each call.

    Arguments
    ---------
    low : float
        Lowest factor; below 1 formants fall, as of a longer vocal tract.
    high : float
        Highest factor.
    sample_rate : int
        Sample rate in Hz.
    quefrency : float
        Detail of the envelope, in seconds; shorter than the pitch period.

    Example
    -------
    >>> perturb = VocalTractPerturb(0.85, 1.15)
    >>> perturb(torch.rand(2, 16000)).shape
    torch.Size([2, 16000])
    """

    WINDOW, HOP = 0.032, 0.008  # seconds
    MAX_GAIN = 2.3  # 20 dB

    def __init__(self, low, high, sample_rate=16000, quefrency=0.002):
        super().__init__()
        self.low, self.high = low, high
        self.n_fft = round(self.WINDOW * sample_rate)
        self.hop = round(self.HOP * sample_rate)
        self.n_cepstrum = round(quefrency * sample_rate)
        self.register_buffer("window", torch.hann_window(self.n_fft), persistent=False)

    def forward(self, wavs):
        """Changes the voices of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of wavs.
        """
        factor = random.uniform(self.low, self.high)
        frame = {
            "n_fft": self.n_fft, "hop_length": self.hop, "window": self.window
        }  # fmt: skip
        spectrum = torch.stft(wavs, **frame, return_complex=True)
        log_magnitude = torch.log(spectrum.abs() + 1e-5)
        cepstrum = torch.fft.irfft(log_magnitude, n=self.n_fft, dim=1)
        cepstrum[:, self.n_cepstrum : -self.n_cepstrum + 1] = 0.0
        envelope = torch.fft.rfft(cepstrum, n=self.n_fft, dim=1).real
        gain = self._stretch(envelope, factor) - envelope
        gain = gain.clamp(-self.MAX_GAIN, self.MAX_GAIN).exp()
        return torch.istft(spectrum * gain, **frame, length=wavs.shape[1])

    def _stretch(self, envelope, factor):
        """Value at frequency f of what stood at f / factor."""
        n_bins = envelope.shape[1]
        position = torch.arange(n_bins, device=envelope.device) / factor
        position = position.clamp(max=n_bins - 1)
        below = position.floor().long()
        above = (below + 1).clamp(max=n_bins - 1)
        share = (position - below).view(1, -1, 1)
        return torch.lerp(envelope[:, below], envelope[:, above], share)
