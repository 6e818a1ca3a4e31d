"""SpeechBrain's ECAPA-TDNN, which sees no padding, with any pooling over frames.

The blocks are SpeechBrain's, with its parameters, and take a mask of the valid
frames, of shape (batch, time), or None where all are.
"""

import torch
from speechbrain.lobes.models import ECAPA_TDNN as speechbrain_ecapa
from torch import nn

from speechbrain_ext._moved import renamed
from speechbrain_ext.nnet.masked_layers import (
    MaskedBatchNorm1d,
    MaskedConv1d,
    change_classes,
)
from speechbrain_ext.nnet.masking import expand_mask, frame_mask, masked_mean
from speechbrain_ext.nnet.pooling import check_pooling


class MaskedTDNNBlock(speechbrain_ecapa.TDNNBlock):
    """Convolution, activation, batch norm and dropout over valid frames.

    Arguments are those of SpeechBrain's TDNNBlock.
    """

    def forward(self, x, mask=None):
        """From (batch, in_channels, time) to (batch, out_channels, time)."""
        x = self.activation(self.conv(x, mask))
        return self.dropout(self.norm(x, mask))


class MaskedRes2NetBlock(speechbrain_ecapa.Res2NetBlock):
    """Groups of channels convolved in sequence, over valid frames.

    Arguments are those of SpeechBrain's Res2NetBlock.
    """

    def forward(self, x, mask=None):
        """From (batch, in_channels, time) to (batch, out_channels, time)."""
        first, *groups = x.chunk(self.scale, dim=1)
        outputs = [first]
        for i, (block, group) in enumerate(zip(self.blocks, groups)):
            outputs.append(block(group + outputs[-1] if i else group, mask))
        return torch.cat(outputs, dim=1)


class MaskedSEBlock(speechbrain_ecapa.SEBlock):
    """Channel gates from the mean over valid frames.

    Arguments are those of SpeechBrain's SEBlock.
    """

    def forward(self, x, mask=None):
        """Scales the channels of (batch, channel, time)."""
        mean = masked_mean(x, mask, (2,))
        return x * self.sigmoid(self.conv2(self.relu(self.conv1(mean))))


class MaskedSERes2NetBlock(speechbrain_ecapa.SERes2NetBlock):
    """TDNN, Res2Net, TDNN, squeeze-excitation and a shortcut, over valid frames.

    Arguments are those of SpeechBrain's SERes2NetBlock.
    """

    def forward(self, x, mask=None):
        """From (batch, in_channels, time) to (batch, out_channels, time)."""
        residual = self.shortcut(x) if self.shortcut else x
        x = self.res2net_block(self.tdnn1(x, mask), mask)
        return self.se_block(self.tdnn2(x, mask), mask) + residual


class MaskedAttentiveStatistics(speechbrain_ecapa.AttentiveStatisticsPooling):
    """SpeechBrain's attentive statistics pooling over the valid frames alone.

    SpeechBrain's class cuts relative lengths by comparing floats, which takes
    one padded frame for valid at some lengths.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's AttentiveStatisticsPooling.
    **kwargs : dict
        Handed on to SpeechBrain's AttentiveStatisticsPooling.

    Example
    -------
    >>> pooling = MaskedAttentiveStatistics(64)
    >>> pooling(torch.rand(2, 64, 120), torch.tensor([1.0, 0.7])).shape
    torch.Size([2, 128, 1])
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        change_classes(self, LAYERS)

    def forward(self, x, lengths=None):
        """Pools the valid frames.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, channel, time).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Weighted mean and standard deviation, of shape
            (batch, 2 * channel, 1).
        """
        mask = frame_mask(lengths, x.shape[2])
        scores = x
        if self.global_context:
            mean = masked_mean(x, mask, (2,))
            std = self._std(masked_mean((x - mean) ** 2, mask, (2,)))
            scores = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
        scores = self.conv(self.tanh(self.tdnn(scores, mask)))
        if mask is not None:
            scores = scores.masked_fill(~expand_mask(mask, 3), float("-inf"))
        weights = torch.softmax(scores, dim=2)
        mean = (weights * x).sum(2, keepdim=True)
        variance = (weights * (x - mean) ** 2).sum(2, keepdim=True)
        return torch.cat([mean, self._std(variance)], dim=1)

    def _std(self, variance):
        return variance.clamp(min=self.eps).sqrt()


LAYERS = {
    speechbrain_ecapa.Conv1d: MaskedConv1d,
    speechbrain_ecapa.BatchNorm1d: MaskedBatchNorm1d,
    speechbrain_ecapa.TDNNBlock: MaskedTDNNBlock,
    speechbrain_ecapa.Res2NetBlock: MaskedRes2NetBlock,
    speechbrain_ecapa.SEBlock: MaskedSEBlock,
    speechbrain_ecapa.SERes2NetBlock: MaskedSERes2NetBlock,
    speechbrain_ecapa.AttentiveStatisticsPooling: MaskedAttentiveStatistics,
}


class MaskedECAPA(speechbrain_ecapa.ECAPA_TDNN):
    """SpeechBrain's ECAPA-TDNN, the same in any batch.

    SpeechBrain's class (arXiv 2005.07143) leaves padded frames out of
    squeeze-excitation and pooling, but lets them into the convolutions. Its
    weights load unchanged. The attentive statistics can be replaced.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's ECAPA_TDNN.
    frame_pooling : FramePooling
        Pooling from (batch, time, channel) and relative lengths to (batch, 1,
        out_channels), such as `MultiHeadAttnPooling`; SpeechBrain's own if None.
    **kwargs : dict
        Handed on to SpeechBrain's ECAPA_TDNN.

    Raises
    ------
    InputError
        If the pooling takes another number of channels.

    Example
    -------
    >>> from speechbrain_ext.nnet.pooling import MultiHeadAttnPooling
    >>> model = MaskedECAPA(
    ...     80, channels=[64] * 4 + [192], lin_neurons=192,
    ...     frame_pooling=MultiHeadAttnPooling(192, n_heads=8),
    ... ).eval()
    >>> frames = torch.rand(2, 100, 80)
    >>> embeddings = model(frames, torch.tensor([1.0, 0.5]))
    >>> embeddings.shape
    torch.Size([2, 1, 192])
    >>> torch.allclose(embeddings[1:], model(frames[1:, :50]), atol=1e-5)
    True
    """

    def __init__(self, *args, frame_pooling=None, **kwargs):
        super().__init__(*args, **kwargs)
        if frame_pooling is not None:
            check_pooling(frame_pooling, self.channels[-1])
            channels = frame_pooling.out_channels
            self.asp = _ChannelsFirst(frame_pooling)
            self.asp_bn = speechbrain_ecapa.BatchNorm1d(input_size=channels)
            self.fc = speechbrain_ecapa.Conv1d(
                in_channels=channels,
                out_channels=self.fc.conv.out_channels,
                kernel_size=1,
            )
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
            Embeddings, of shape (batch, 1, lin_neurons).
        """
        mask = frame_mask(lengths, x.shape[1])
        x = x.transpose(1, 2)
        outputs = []
        for block in self.blocks:
            x = block(x, mask)
            outputs.append(x)
        x = self.mfa(torch.cat(outputs[1:], dim=1), mask)
        return self.fc(self.asp_bn(self.asp(x, lengths))).transpose(1, 2)


class _ChannelsFirst(nn.Module):
    def __init__(self, frame_pooling):
        super().__init__()
        self.frame_pooling = frame_pooling

    def forward(self, x, lengths=None):
        return self.frame_pooling(x.transpose(1, 2), lengths).transpose(1, 2)


def __getattr__(name):
    return renamed(__name__, name)
