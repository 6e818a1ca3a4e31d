"""Front ends that are no SSL encoder."""

import torch
import torchaudio
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.processing.features import spectral_magnitude
from speechbrain.utils.autocast import fwd_default_precision

from speechbrain_ext.nnet.masking import (
    frame_counts,
    frame_mask,
    hold_last_frame,
    masked_mean,
)


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
        frames, mask, _ = self._valid_frames(wav, wav_lens)
        return self.normalize(frames, mask), mask.sum(1) / frames.shape[1]

    def _valid_frames(self, wav, wav_lens):
        """Features, which of them are valid, and the filtered waveform."""
        if wav_lens is None:
            wav_lens = torch.ones(len(wav), device=wav.device)
        if self.preemphasis:
            wav = torchaudio.functional.preemphasis(wav, self.preemphasis)
        frames = self.fbank(wav, wav_lens)
        counts = self.fbank.frame_counts(wav, wav_lens)
        mask = torch.arange(frames.shape[1], device=wav.device) < counts.unsqueeze(1)
        return frames, mask, wav

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
    has_deltas = False

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
            deltas=self.has_deltas,
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


class SpeechMFCC(NormalizedMFCC):
    """MFCCs with first and second differences, of the frames of speech alone.

    The front end of i-vectors. A frame is of speech where its energy is within
    `vad_range` of that of the utterance's loudest frame, which does not depend
    on the gain. Differences are taken before the other frames are left out, and
    what remains is normalised.

    Arguments
    ---------
    n_mfcc : int
        Number of coefficients; there are three times as many channels.
    vad_range : float
        In dB.
    **kwargs : dict
        Handed on to `NormalizedMFCC`.

    Example
    -------
    >>> wav = torch.cat([torch.randn(2, 8000), 0.001 * torch.randn(2, 8000)], dim=1)
    >>> frames, lengths = SpeechMFCC()(wav, torch.ones(2))
    >>> frames.shape, lengths
    (torch.Size([2, 52, 60]), tensor([1., 1.]))
    """

    has_deltas = True
    MIN_ENERGY = 1e-10

    def __init__(self, n_mfcc=20, vad_range=30.0, **kwargs):
        super().__init__(n_mfcc=n_mfcc, **kwargs)
        self.vad_range = vad_range
        self.channels = 3 * n_mfcc

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
            Features, of shape (batch, frame of speech, 3 * n_mfcc).
        torch.Tensor
            Relative lengths in frames of speech, of shape (batch,).
        """
        frames, mask, wav = self._valid_frames(wav, wav_lens)
        valid = frame_mask(wav_lens, wav.shape[1])
        if valid is not None:
            wav = wav.masked_fill(~valid, 0.0)
        is_speech = self.is_speech(wav, mask)
        # What is of speech goes to the front, in its order.
        counts = is_speech.sum(1)
        longest = int(counts.max())
        order = torch.argsort(~is_speech, dim=1, stable=True)[:, :longest]
        mask = torch.gather(is_speech, 1, order)
        order = order.unsqueeze(2).expand(-1, -1, frames.shape[2])
        return self.normalize(torch.gather(frames, 1, order), mask), counts / longest

    def is_speech(self, wav, mask):
        """Tells frames of speech by their energy.

        Arguments
        ---------
        wav : torch.Tensor
            Waveforms, of shape (batch, time), with zeros for padding.
        mask : torch.Tensor
            Valid frames, of shape (batch, frame).

        Returns
        -------
        torch.Tensor
            True for valid frames of speech, at least one in each utterance; of
            shape (batch, frame).
        """
        window = self.fbank.compute_STFT.win_length
        power = torch.nn.functional.pad(wav**2, (window // 2, window // 2))
        power = torch.nn.functional.avg_pool1d(power.unsqueeze(1), window, self.hop)
        energy = 10 * power.squeeze(1).clamp(min=self.MIN_ENERGY).log10()
        energy = energy[:, : mask.shape[1]].masked_fill(~mask, float("-inf"))
        loudest = energy.amax(dim=1, keepdim=True)
        return mask & (energy >= loudest - self.vad_range)


def _mean(frames, mask, averaged):
    """The mean of valid frames, of dimensions of (batch, channel, frame)."""
    return masked_mean(frames.transpose(1, 2), mask, averaged).transpose(1, 2)
