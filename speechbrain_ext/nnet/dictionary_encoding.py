"""Learnable dictionary encoding of frames."""

import torch
from torch import nn

from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.nnet.pooling import FramePooling


class LearnableDictionaryEncoding(FramePooling):
    """Means of the frames' residuals to learned components (arXiv 1804.05160).

    Each frame belongs to each component by a softmax over negative scaled
    squared distances (equation 2 of the paper); the residuals, so weighted, are
    averaged over the frames.

    Arguments
    ---------
    channels : int
        Channels of the frames.
    n_components : int
        Components of the dictionary.

    Example
    -------
    >>> pooling = LearnableDictionaryEncoding(128, n_components=32)
    >>> pooling(torch.rand(2, 50, 128), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 4096])
    """

    def __init__(self, channels, n_components):
        super().__init__()
        self.in_channels = channels
        self.out_channels = channels * n_components
        self.components = nn.Parameter(
            torch.randn(n_components, channels) / channels**0.5
        )
        self.smoothing = nn.Parameter(torch.ones(n_components))

    def forward(self, frames, lengths=None):
        """Pools the valid frames.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Pooled vectors, of shape (batch, 1, n_components * channel).
        """
        mask = frame_mask(lengths, frames.shape[1])
        # By the binomial formula, without all residuals in memory.
        distances = (
            (frames**2).sum(2, keepdim=True)
            - 2 * frames @ self.components.T
            + (self.components**2).sum(1)
        )
        weights = torch.softmax(-self.smoothing * distances, dim=2)
        if mask is not None:
            weights = weights * mask.unsqueeze(2)
            counts = mask.sum(1).view(-1, 1, 1)
        else:
            counts = frames.shape[1]
        residuals = weights.transpose(1, 2) @ frames
        residuals = residuals - weights.sum(1).unsqueeze(2) * self.components
        return (residuals / counts).flatten(1).unsqueeze(1)


class LDEEmbedding(nn.Module):
    """Frames through a bottleneck, dictionary encoding and a linear layer.

    Arguments
    ---------
    in_channels : int
        Channels of the frames.
    bottleneck_channels : int
        Channels that are encoded.
    n_components : int
        Components of the dictionary.
    emb_dim : int
        Dimension of the embedding.

    Example
    -------
    >>> model = LDEEmbedding(3548, 128, n_components=32, emb_dim=512)
    >>> model(torch.rand(2, 50, 3548), torch.ones(2)).shape
    torch.Size([2, 1, 512])
    """

    def __init__(self, in_channels, bottleneck_channels, n_components, emb_dim):
        super().__init__()
        self.bottleneck = nn.Linear(in_channels, bottleneck_channels)
        self.pooling = LearnableDictionaryEncoding(bottleneck_channels, n_components)
        self.norm = nn.BatchNorm1d(self.pooling.out_channels)
        self.fc = nn.Linear(self.pooling.out_channels, emb_dim)

    def forward(self, frames, lengths=None):
        """Embeds a batch.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, emb_dim).
        """
        pooled = self.pooling(self.bottleneck(frames), lengths)
        return self.fc(self.norm(pooled.squeeze(1))).unsqueeze(1)
