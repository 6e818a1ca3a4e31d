"""SpeechBrain's ECAPA-TDNN with any pooling over frames."""

from speechbrain.lobes.models import ECAPA_TDNN as speechbrain_ecapa
from torch import nn


class ECAPA_TDNN(speechbrain_ecapa.ECAPA_TDNN):
    """SpeechBrain's lobe, whose attentive statistics can be replaced.

    Arguments
    ---------
    *args
        As of SpeechBrain's ECAPA_TDNN.
    frame_pooling : FramePooling
        From (batch, time, channel) and relative lengths to (batch, 1,
        out_channels), such as `MultiHeadAttnPooling`; SpeechBrain's own if
        None.
    **kwargs
        As of SpeechBrain's ECAPA_TDNN.

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.nnet.pooling import MultiHeadAttnPooling
    >>> model = ECAPA_TDNN(
    ...     80, channels=[64] * 4 + [192], lin_neurons=192,
    ...     frame_pooling=MultiHeadAttnPooling(192, n_heads=8),
    ... )
    >>> model(torch.rand(2, 100, 80), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 192])
    """

    def __init__(self, *args, frame_pooling=None, **kwargs):
        super().__init__(*args, **kwargs)
        if frame_pooling is not None:
            channels = frame_pooling.out_channels
            self.asp = _ChannelsFirst(frame_pooling)
            self.asp_bn = speechbrain_ecapa.BatchNorm1d(input_size=channels)
            self.fc = speechbrain_ecapa.Conv1d(
                in_channels=channels,
                out_channels=self.fc.conv.out_channels,
                kernel_size=1,
            )


class _ChannelsFirst(nn.Module):
    def __init__(self, frame_pooling):
        super().__init__()
        self.frame_pooling = frame_pooling

    def forward(self, x, lengths=None):
        return self.frame_pooling(x.transpose(1, 2), lengths).transpose(1, 2)
