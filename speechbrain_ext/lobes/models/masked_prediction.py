"""Masked prediction of units, to pre-train an SSL encoder."""

import torch
from torch import nn
from torch.nn import functional as F
from transformers.models.wav2vec2.modeling_wav2vec2 import (
    _compute_mask_indices,
)

from speechbrain_ext.nnet.losses import UtteranceContrast


class MaskedPrediction(nn.Module):
    """A WavLM or HuBERT encoder with the heads of its pre-training.

    The units are predicted from the transformer's output by a softmax over
    cosines of projected frames with unit embeddings, and the losses of masked
    and of other frames are weighed (HuBERT, arXiv 2106.07447, section 2.2).
    The contrast of utterances works on the mean and standard deviation over
    time of a layer below.

    Arguments
    ---------
    encoder : transformers.PreTrainedModel
        WavLMModel, HubertModel or Wav2Vec2Model.
    n_units : int
        Units to predict.
    mask_prob : float
        Upper bound of the share of masked frames; spans overlap.
    mask_length : int
        Frames of a masked span.
    masked_weight : float
        Weight of the masked frames' loss, alpha in the paper; the other
        frames' is one minus that.
    contrast_layer : int
        Hidden state that tells utterances apart.
    contrast_dim : int
        Dimension of the contrast's projection.
    unit_dim : int
        Dimension of the unit embeddings.
    temperature : float
        Divides the cosines with the unit embeddings.

    Example
    -------
    >>> from speechbrain_ext.lobes.encoders.small_wavlm import small_wavlm
    >>> model = MaskedPrediction(small_wavlm(n_layers=2), n_units=10)
    >>> wavs, units = torch.rand(4, 16000), torch.randint(10, (4, 48))
    >>> losses = model(wavs, units)
    >>> sorted(losses)
    ['contrast', 'masked_accuracy', 'prediction']
    """

    def __init__(
        self,
        encoder,
        n_units,
        mask_prob=0.65,
        mask_length=10,
        masked_weight=0.5,
        contrast_layer=2,
        contrast_dim=128,
        unit_dim=128,
        temperature=0.1,
    ):
        super().__init__()
        channels = encoder.config.hidden_size
        self.encoder = encoder
        self.mask_prob, self.mask_length = mask_prob, mask_length
        self.masked_weight = masked_weight
        self.temperature = temperature
        self.contrast_layer = contrast_layer
        self.projection = nn.Linear(channels, unit_dim)
        self.unit_embeddings = nn.Parameter(torch.randn(n_units, unit_dim))
        self.contrast_projection = nn.Sequential(
            nn.BatchNorm1d(2 * channels),
            nn.Linear(2 * channels, channels),
            nn.BatchNorm1d(channels),
            nn.ReLU(),
            nn.Linear(channels, contrast_dim),
        )
        self.contrast = UtteranceContrast()

    def forward(self, wavs, units):
        """Computes the losses of a batch.

        Arguments
        ---------
        wavs : torch.Tensor
            Waveforms of shape (batch, time), of zero mean and unit variance;
            the second half of the batch holds other parts of the utterances
            of the first.
        units : torch.Tensor
            Unit of each frame, of shape (batch, frame).

        Returns
        -------
        dict
            prediction and contrast, the losses, and masked_accuracy,
            the share of masked frames whose unit is predicted.
        """
        mask = _compute_mask_indices(
            tuple(units.shape), self.mask_prob, self.mask_length, min_masks=1
        )
        mask = torch.from_numpy(mask).to(wavs.device)
        hidden_states = self.encoder(
            wavs, mask_time_indices=mask, output_hidden_states=True
        ).hidden_states
        cosines = F.linear(
            F.normalize(self.projection(hidden_states[-1]), dim=-1),
            F.normalize(self.unit_embeddings, dim=-1),
        )
        losses = F.cross_entropy(
            cosines.float().transpose(1, 2) / self.temperature,
            units,
            reduction="none",
        )
        middle = hidden_states[self.contrast_layer].float()
        statistics = torch.cat([middle.mean(1), middle.std(1)], dim=1)
        first, second = self.contrast_projection(statistics).chunk(2)
        return {
            "prediction": self.masked_weight * losses[mask].mean()
            + (1 - self.masked_weight) * losses[~mask].mean(),
            "contrast": self.contrast(first, second),
            "masked_accuracy": (
                (cosines.argmax(-1) == units)[mask].float().mean().detach()
            ),
        }
