"""SpeechBrain's x-vector, which sees no padding."""

from speechbrain.lobes.models.Xvector import Xvector
from speechbrain.nnet.CNN import Conv1d
from speechbrain.nnet.normalization import BatchNorm1d
from speechbrain.nnet.pooling import StatisticsPooling

from speechbrain_ext.nnet.masked_layers import (
    MaskedBatchNorm1d,
    MaskedConv1d,
    change_classes,
)
from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.nnet.pooling import MaskedStatisticsPooling

LAYERS = {
    Conv1d: MaskedConv1d,
    BatchNorm1d: MaskedBatchNorm1d,
    StatisticsPooling: MaskedStatisticsPooling,
}


class MaskedXvector(Xvector):
    """SpeechBrain's x-vector, the same in any batch and at each call.

    SpeechBrain's class lets padded frames into the convolutions, and adds
    noise to the pooled means. Its weights load unchanged.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's Xvector.
    **kwargs : dict
        Handed on to SpeechBrain's Xvector.

    Example
    -------
    >>> import torch
    >>> model = MaskedXvector(in_channels=24, lin_neurons=192).eval()
    >>> frames = torch.rand(2, 100, 24)
    >>> embeddings = model(frames, torch.tensor([1.0, 0.5]))
    >>> embeddings.shape
    torch.Size([2, 1, 192])
    >>> torch.allclose(embeddings[1:], model(frames[1:, :50]), atol=1e-5)
    True
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        change_classes(self, LAYERS)

    def forward(self, x, lengths=None):
        """Embeds a batch of utterances.

        Arguments
        ---------
        x : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            X-vectors, of shape (batch, 1, lin_neurons).
        """
        mask = frame_mask(lengths, x.shape[1])
        for layer in self.blocks:
            if isinstance(layer, (MaskedConv1d, MaskedBatchNorm1d)):
                x = layer(x, mask)
            elif isinstance(layer, MaskedStatisticsPooling):
                x = layer(x, lengths)
            else:
                x = layer(x)
        return x
