"""Front ends that are no SSL encoder."""

import torch
import torchaudio
from speechbrain.lobes.features import MFCC, Fbank
from speechbrain.processing.features import InputNormalization

from speechbrain_ext.nnet.masking import frame_counts


class NormalizedFbank(torch.nn.Module):
    """SpeechBrain's filter banks, normalised for each utterance.

    Called as an SSL encoder is, so that a recipe can take either.

    Arguments
    ---------
    n_mels : int
        Number of mel bands.
    sample_rate : int
        In Hz.
    preemphasis : float
        Of the waveform's last sample; 0 for none.
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
        self.fbank = Fbank(n_mels=n_mels, sample_rate=sample_rate)
        self.norm = InputNormalization(norm_type="sentence", std_norm=False)
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
            Of shape (batch, frame, n_mels), a frame every 10 ms.
        torch.Tensor
            Relative lengths in frames, of shape (batch,).
        """
        if wav_lens is None:
            wav_lens = torch.ones(len(wav), device=wav.device)
        if self.preemphasis:
            wav = torchaudio.functional.preemphasis(wav, self.preemphasis)
        frames = self.fbank(wav)
        counts = 1 + frame_counts(wav_lens, wav.shape[1]) // self.hop
        lengths = counts / frames.shape[1]
        if self.keep_spectrum:
            level = frames.mean(2, keepdim=True)
            return frames - (level - self.norm(level, lengths)), lengths
        return self.norm(frames, lengths), lengths


class NormalizedMFCC(NormalizedFbank):
    """SpeechBrain's MFCCs, mean-normalised for each utterance.

    The defaults are those of the x-vector of arXiv 2409.07770, whose
    ECAPA-TDNN takes 80 coefficients.

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
        In Hz.

    Example
    -------
    >>> frames, _ = NormalizedMFCC()(torch.rand(2, 16000), torch.ones(2))
    >>> frames.shape
    torch.Size([2, 101, 24])
    """

    def __init__(
        self, n_mfcc=24, n_mels=80, f_min=20, f_max=7600, sample_rate=16000
    ):
        super().__init__(n_mels, sample_rate)
        self.fbank = MFCC(
            deltas=False,
            context=False,
            sample_rate=sample_rate,
            f_min=f_min,
            f_max=f_max,
            n_mels=n_mels,
            n_mfcc=n_mfcc,
        )
        self.channels = n_mfcc
