"""The mean of an SSL encoder's last layer as the embedding."""

from torch import nn

from speechbrain_ext.nnet.masking import frame_mask, masked_mean


class LastLayerMean(nn.Module):
    """Temporal mean of the last hidden state, for fine-tuned encoders.

    A baseline of arXiv 2409.07770; it has no parameters of its own.

    Example
    -------
    >>> import torch
    >>> LastLayerMean()(torch.rand(13, 2, 50, 768), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 768])
    """

    def forward(self, hidden_states, lengths=None):
        """Averages the valid frames.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, channel).
        """
        frames = hidden_states[-1].transpose(1, 2)
        mask = frame_mask(lengths, frames.shape[2])
        return masked_mean(frames, mask, (2,)).transpose(1, 2)
