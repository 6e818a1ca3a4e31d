"""Front ends that are no SSL encoder."""

import torch
import torchaudio
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.processing.features import spectral_magnitude
from speechbrain.utils.autocast import fwd_default_precision

from speechbrain_ext.nnet.masking import frame_counts, hold_last_frame, masked_mean


class _LengthAware:
    """What `MaskedFbank` and `MaskedMFCC` share."""

    def frame_counts(self, wav, lengths):
        """Frames of each utterance alone, of shape (batch,)."""
        hop = self.compute_STFT.hop_length
        return 1 + frame_counts(lengths, wav.shape[1]) // hop

    def _features(self, wav, lengths):
        if lengths is None:
            lengths = torch.ones(len(wav), device=wav.device)
        samples = torch.arange(wav.shape[1], device=wav.device)
        valid = samples < frame_counts(lengths, wav.shape[1]).unsqueeze(1)
        power = spectral_magnitude(self.compute_STFT(wav.masked_fill(~valid, 0.0)))
        frames = torch.arange(power.shape[1], device=wav.device)
        valid = frames < self.frame_counts(wav, lengths).unsqueeze(1)
        # Frames that the utterance has not got alone would still see its end,
        # and count for the maximum below which `top_db` cuts.
        x = self.compute_fbanks(power * valid.unsqueeze(2))
        if isinstance(self, MFCC):
            x = self.compute_dct(x)
        if self.deltas:
            first = self.compute_deltas(hold_last_frame(x, valid))
            second = self.compute_deltas(hold_last_frame(first, valid))
            x = torch.cat([x, first, second], dim=2)
        if self.context:
            x = self.context_window(x * valid.unsqueeze(2))
        return x


class MaskedFbank(_LengthAware, Fbank):
    """SpeechBrain's filter banks, the same in any batch.

    No padding is seen by the window of the last frame, by the maximum that
    `top_db` counts from, by deltas or by context windows.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's Fbank.
    **kwargs : dict
        Handed on to SpeechBrain's Fbank.

    Example
    -------
    >>> fbank = MaskedFbank(deltas=True, context=True)
    >>> wav = torch.rand(2, 16000)
    >>> frames = fbank(wav, torch.tensor([1.0, 0.5]))
    >>> frames.shape
    torch.Size([2, 101, 1320])
    >>> torch.allclose(frames[1:, :51], fbank(wav[1:, :8000]), atol=1e-4)
    True
    """

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wav, lengths=None):
        """Computes the features.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, of shape (batch, time).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, channel); what stands beyond an
            utterance's `frame_counts` means nothing.
        """
        return self._features(wav, lengths)


class MaskedMFCC(_LengthAware, MFCC):
    """SpeechBrain's MFCCs, the same in any batch.

    As `MaskedFbank` in all else.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's MFCC.
    **kwargs : dict
        Handed on to SpeechBrain's MFCC.

    Example
    -------
    >>> mfcc = MaskedMFCC()
    >>> wav = torch.rand(2, 16000)
    >>> frames = mfcc(wav, torch.tensor([1.0, 0.5]))
    >>> frames.shape
    torch.Size([2, 101, 660])
    >>> torch.allclose(frames[1:, :51], mfcc(wav[1:, :8000]), atol=1e-4)
    True
    """

    @fwd_default_precision(cast_inputs=torch.float32)
    def forward(self, wav, lengths=None):
        """Computes the features.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, of shape (batch, time).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, channel); what stands beyond an
            utterance's `frame_counts` means nothing.
        """
        return self._features(wav, lengths)


class NormalizedFbank(torch.nn.Module):
    """SpeechBrain's filter banks, normalised for each utterance.

    Called as an SSL encoder is, so that a recipe can take either.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    sample_rate : int
        Sample rate in Hz.
    preemphasis : float
        Share of the sample before that is subtracted from each sample; 0 for none.
    keep_spectrum : bool
        Whether the mean of all bands is subtracted from each, which removes
        the gain only, in place of each band's own mean.

    Example
    -------
    >>> features = NormalizedFbank(n_mels=80)
    >>> frames, lengths = features(torch.rand(2, 16000), torch.tensor([1.0, 0.5]))
    >>> frames.shape, (lengths * 101).round()
    (torch.Size([2, 101, 80]), tensor([101.,  51.]))
    """

    def __init__(
        self, n_mels=80, sample_rate=16000, preemphasis=0.0, keep_spectrum=False
    ):
        super().__init__()
        self.keep_spectrum = keep_spectrum
        self.preemphasis = preemphasis
        self.fbank = MaskedFbank(n_mels=n_mels, sample_rate=sample_rate)
        self.hop = sample_rate // 100
        self.channels = n_mels

    def forward(self, wav, wav_lens=None):
        """Computes the features.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, of shape (batch, time).
        wav_lens : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Features, of shape (batch, frame, n_mels), a frame every 10 ms.
        torch.Tensor
            Relative lengths in frames, of shape (batch,).
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wav), device=wav.device)
        if self.preemphasis:
            wav = torchaudio.functional.preemphasis(wav, self.preemphasis)
        frames = self.fbank(wav, wav_lens)
        counts = self.fbank.frame_counts(wav, wav_lens)
        mask = torch.arange(frames.shape[1], device=wav.device) < counts.unsqueeze(1)
        return self.normalize(frames, mask), counts / frames.shape[1]

    def normalize(self, frames, mask):
        """Normalises features.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, frame, channel).
        mask : torch.Tensor
            Valid frames, of shape (batch, frame).

        Returns
        -------
        torch.Tensor
            Output of the shape of frames.
        """
        averaged = (1, 2) if self.keep_spectrum else (2,)
        return frames - _mean(frames, mask, averaged)


class NormalizedMFCC(NormalizedFbank):
    """SpeechBrain's MFCCs, normalised.

    The defaults are those of the x-vector of arXiv 2409.07770, whose
    ECAPA-TDNN takes 80 coefficients and "frame-length".

    Arguments
    ---------
    n_mfcc : int
        Number of coefficients.
    n_mels : int
        Number of mel bands.
    f_min : float
        Lowest frequency of the bands, in Hz.
    f_max : float
        Highest frequency of the bands, in Hz.
    sample_rate : int
        Sample rate in Hz.
    n_fft : int
        Points of the Fourier transform.
    preemphasis : float
        Share of the sample before that is subtracted from each sample; 0 for none.
    normalization : str
        "mean" or "mean-variance" of each coefficient over the utterance, or
        "frame-length", which divides each frame by its Euclidean length.

    Raises
    ------
    ValueError
        If the normalization is unknown.

    Example
    -------
    >>> frames, _ = NormalizedMFCC()(torch.rand(2, 16000), torch.ones(2))
    >>> frames.shape, torch.allclose(frames.mean(1), torch.zeros(24), atol=1e-4)
    (torch.Size([2, 101, 24]), True)
    """

    NORMALIZATIONS = ("mean", "mean-variance", "frame-length")
    EPS = 1e-8

    def __init__(
        self,
        n_mfcc=24,
        n_mels=80,
        f_min=20,
        f_max=7600,
        sample_rate=16000,
        n_fft=512,
        preemphasis=0.97,
        normalization="mean-variance",
    ):
        super().__init__(n_mels, sample_rate, preemphasis)
        if normalization not in self.NORMALIZATIONS:
            raise ValueError(
                f'normalization="{normalization}": use '
                + ", ".join(self.NORMALIZATIONS)
            )
        self.normalization = normalization
        self.fbank = MaskedMFCC(
            deltas=False,
            context=False,
            sample_rate=sample_rate,
            f_min=f_min,
            f_max=f_max,
            n_mels=n_mels,
            n_mfcc=n_mfcc,
            n_fft=n_fft,
        )
        self.channels = n_mfcc

    def normalize(self, frames, mask):
        """Normalises features.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, frame, channel).
        mask : torch.Tensor
            Valid frames, of shape (batch, frame).

        Returns
        -------
        torch.Tensor
            Output of the shape of frames.
        """
        if self.normalization == "frame-length":
            return torch.nn.functional.normalize(frames, dim=2)
        centred = super().normalize(frames, mask)
        if self.normalization == "mean":
            return centred
        std = _mean(centred**2, mask, (2,)).sqrt()
        return centred / std.clamp(min=self.EPS)


def _mean(frames, mask, averaged):
    """The mean of valid frames, of dimensions of (batch, channel, frame)."""
    return masked_mean(frames.transpose(1, 2), mask, averaged).transpose(1, 2)
