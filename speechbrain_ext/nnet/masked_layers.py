"""SpeechBrain's layers over time, with masks.

Each has the parameters of SpeechBrain's class, by the same names, and without
a mask it is that class.
"""

import torch
from speechbrain.nnet.CNN import Conv1d
from speechbrain.nnet.normalization import BatchNorm1d

from speechbrain_ext.nnet.masking import masked_batch_norm, reflect_padding


class MaskedConv1d(Conv1d):
    """SpeechBrain's convolution, which mirrors an utterance at its own end.

    SpeechBrain's "same" padding mirrors what stands at the end of the padded
    batch, and frames before it see the padding. Strides are not supported.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's Conv1d.
    **kwargs : dict
        Handed on to SpeechBrain's Conv1d.

    Example
    -------
    >>> conv = MaskedConv1d(in_channels=8, out_channels=4, kernel_size=5)
    >>> frames = torch.rand(2, 20, 8)
    >>> mask = torch.arange(20) < torch.tensor([[20], [12]])
    >>> alone = conv(frames[1:, :12])
    >>> torch.allclose(conv(frames, mask)[1:, :12], alone, atol=1e-6)
    True
    """

    def forward(self, x, mask=None):
        """Convolves over time.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, time, channel), or, with skip_transpose, (batch,
            channel, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the same layout; what stands in padded frames means nothing.
        """
        n_padded = self.dilation * (self.kernel_size - 1) // 2
        time = 2 if self.skip_transpose else 1
        if self.padding != "same" or n_padded == 0:
            return super().forward(x)
        if mask is None:
            if x.shape[time] > n_padded:
                return super().forward(x)
            # PyTorch refuses to mirror so few frames.
            mask = torch.ones(x.shape[0], x.shape[time], device=x.device).bool()
        if self.skip_transpose:
            return self.conv(reflect_padding(x, mask, n_padded))
        x = reflect_padding(x.transpose(1, 2), mask, n_padded)
        return self.conv(x).transpose(1, 2)


class MaskedBatchNorm1d(BatchNorm1d):
    """SpeechBrain's batch norm, whose training statistics count no padding.

    Arguments
    ---------
    *args : tuple
        Handed on to SpeechBrain's BatchNorm1d.
    **kwargs : dict
        Handed on to SpeechBrain's BatchNorm1d.

    Example
    -------
    >>> norm = MaskedBatchNorm1d(input_size=1)
    >>> frames = torch.tensor([[[1.0], [3.0], [50.0]]])
    >>> norm(frames, torch.tensor([[True, True, False]]))[0, :2, 0].tolist()
    [-0.9999949932098389, 0.9999949932098389]
    """

    def forward(self, x, mask=None):
        """Normalises each channel.

        Arguments
        ---------
        x : torch.Tensor
            Input, of shape (batch, time, channel), or, with skip_transpose, (batch,
            channel, time).
        mask : torch.Tensor or None
            Valid frames, of shape (batch, time).

        Returns
        -------
        torch.Tensor
            Output of the shape of x; what stands in padded frames means nothing.
        """
        if self.skip_transpose:
            return masked_batch_norm(self.norm, x, mask)
        return masked_batch_norm(self.norm, x.transpose(1, 2), mask).transpose(1, 2)


def change_classes(module, classes):
    """Gives modules another class that has the same parameters, in place.

    SpeechBrain's lobes build their blocks themselves; so these are built,
    initialised and loaded by SpeechBrain's code, and run by ours.

    Arguments
    ---------
    module : torch.nn.Module
        Module whose submodules, itself included, are changed.
    classes : dict
        From a class to the one that takes its place, a subclass in all but
        the constructor.

    Returns
    -------
    torch.nn.Module
        The same module.

    Example
    -------
    >>> conv = Conv1d(in_channels=8, out_channels=4, kernel_size=5)
    >>> type(change_classes(conv, {Conv1d: MaskedConv1d})).__name__
    'MaskedConv1d'
    """
    for part in module.modules():
        part.__class__ = classes.get(type(part), type(part))
    return module
