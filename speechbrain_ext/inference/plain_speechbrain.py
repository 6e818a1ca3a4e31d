"""An exported model in SpeechBrain's own interface, with its own threshold."""

import torch
from speechbrain.inference import speaker

from speechbrain_ext.inference.model_scoring import Verification


class CalibratedSpeakerRecognition(speaker.SpeakerRecognition):
    """SpeechBrain's SpeakerRecognition, which decides as the model says.

    SpeechBrain decides at a cosine of 0.25 whatever the model. What an exported
    folder calls `custom_interface.py` names this class, for SpeechBrain's
    `foreign_class`.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's class.
    **kwargs : dict
        Handed on to SpeechBrain's class.
    """

    HPARAMS_NEEDED = ["scoring", "sample_rate"]

    def verify_batch(
        self, wavs1, wavs2, wav1_lens=None, wav2_lens=None, threshold=None
    ):
        """Scores pairs of waveforms.

        Arguments
        ---------
        wavs1 : torch.Tensor
            Waveforms, of shape (batch, time).
        wavs2 : torch.Tensor
            Waveforms, of shape (batch, time).
        wav1_lens : torch.Tensor
            Relative lengths, of shape (batch,).
        wav2_lens : torch.Tensor
            Relative lengths, of shape (batch,).
        threshold : float
            Threshold in place of the model's own.

        Returns
        -------
        Verification
            The pair of scores and decisions, each of shape (batch, 1).
        """
        sides = [(wavs1, wav1_lens), (wavs2, wav2_lens)]
        result = self.hparams.scoring.compare(
            *(self.encode_batch(*side)[:, 0] for side in sides),
            *(self._seconds(*side) for side in sides),
            threshold=threshold,
        )
        ratios = result.log_likelihood_ratio
        return Verification(
            result.score.unsqueeze(1),
            result.decision.unsqueeze(1),
            None if ratios is None else ratios.unsqueeze(1),
        )

    def _seconds(self, wavs, wav_lens):
        """Duration of each waveform."""
        n_batch = 1 if wavs.dim() == 1 else len(wavs)
        lengths = torch.ones(n_batch) if wav_lens is None else wav_lens.cpu()
        return (lengths * wavs.shape[-1] / self.hparams.sample_rate).tolist()
