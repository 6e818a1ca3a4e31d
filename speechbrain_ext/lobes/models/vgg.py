"""VGG on mel spectrograms, before any pooling over frames (arXiv 1906.09890)."""

import torch
from torch import nn
from torch.nn import functional as F

from speechbrain_ext.nnet.masking import frame_counts, is_traced
from speechbrain_ext.nnet.pooling import check_pooling


class VGGEncoder(nn.Module):
    """Blocks of two 3x3 convolutions, each block halving time and frequency.

    ReLU after each convolution, 2x2 max pooling in ceil mode after each block
    (arXiv 1906.09890, section 3.1). Padded frames change no valid one.

    Arguments
    ---------
    n_mels : int
        Mel bands of the input.
    channels : list of int
        Channels of each block.

    Attributes
    ----------
    out_channels : int
        Channels of the last block times its bands.

    Example
    -------
    >>> encoder = VGGEncoder(n_mels=80)
    >>> frames, lengths = encoder(torch.rand(2, 350, 80), torch.tensor([1.0, 0.5]))
    >>> frames.shape, (44 * lengths).tolist()
    (torch.Size([2, 44, 5120]), [44.0, 22.0])
    """

    def __init__(self, n_mels=80, channels=(128, 256, 512)):
        super().__init__()
        self.blocks = nn.ModuleList()
        in_channels, bands = 1, n_mels
        for out_channels in channels:
            self.blocks.append(
                nn.ModuleList(
                    [
                        nn.Conv2d(in_channels, out_channels, 3, padding=1),
                        nn.Conv2d(out_channels, out_channels, 3, padding=1),
                    ]
                )
            )
            in_channels, bands = out_channels, -(-bands // 2)
        self.pool = nn.MaxPool2d(2, ceil_mode=True)
        self.out_channels = in_channels * bands

    def forward(self, frames, lengths=None):
        """Encodes a batch of spectrograms.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, n_mels).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Frames, of shape (batch, time / 2 ** blocks rounded up, out_channels),
            channel by channel.
        torch.Tensor
            Relative lengths of these frames, of shape (batch,).
        """
        if lengths is None:
            lengths = torch.ones(len(frames), device=frames.device)
        counts = frame_counts(lengths, frames.shape[1])
        x = frames.unsqueeze(1)
        for block in self.blocks:
            for convolution in block:
                x = torch.relu(convolution(_without_padding(x, counts)))
            x = self._halved(_without_padding(x, counts))
            counts = (counts + 1) // 2
        lengths = counts / x.shape[2]
        return x.transpose(1, 2).flatten(2), lengths

    def _halved(self, x):
        if not is_traced():
            return self.pool(x)
        # PyTorch would record pooling for odd, or for even, numbers of frames only.
        # No value is negative, so that a zero more is what ceil mode adds.
        n_frames, n_bands = ((size + 1) // 2 for size in x.shape[2:])
        x = F.pad(x, (0, 2 * n_bands - x.shape[3], 0, 2 * n_frames - x.shape[2]))
        pairs = x.unflatten(3, (n_bands, 2)).unflatten(2, (n_frames, 2))
        return pairs.amax((3, 5))


def _without_padding(x, counts):
    """Zeroes what is beyond the counts of (batch, channel, time, band)."""
    valid = torch.arange(x.shape[2], device=x.device) < counts.unsqueeze(1)
    return x * valid[:, None, :, None]


class VGGEmbedding(nn.Module):
    """Speaker embeddings from a VGG and any pooling over its frames.

    Pooling, a linear layer with ReLU, another one with ReLU and batch norm,
    whose output is the embedding (arXiv 1906.09890, section 3.1).

    Arguments
    ---------
    pooling : torch.nn.Module
        Pooling from frames (batch, time, channel) and lengths to (batch, 1, dim):
        `MultiHeadAttnPooling`, `MaskedStatisticsPooling` and so on.
    pooled_channels : int
        Dimension after the pooling.
    n_mels : int
        Mel bands.
    channels : list of int
        Channels of the VGG's blocks.
    emb_dim : int
        Dimension of the embedding.

    Raises
    ------
    InputError
        If the pooling takes another number of channels.

    Example
    -------
    >>> from speechbrain_ext.nnet.pooling import MultiHeadAttnPooling
    >>> model = VGGEmbedding(MultiHeadAttnPooling(5120, 32), 5120)
    >>> sum(p.numel() for p in model.parameters())
    6788800
    >>> model(torch.rand(2, 350, 80), torch.tensor([1.0, 0.5])).shape
    torch.Size([2, 1, 400])
    """

    def __init__(
        self,
        pooling,
        pooled_channels,
        n_mels=80,
        channels=(128, 256, 512),
        emb_dim=400,
    ):
        super().__init__()
        self.encoder = VGGEncoder(n_mels, channels)
        check_pooling(pooling, self.encoder.out_channels)
        self.pooling = pooling
        self.fc1 = nn.Linear(pooled_channels, emb_dim)
        self.fc2 = nn.Linear(emb_dim, emb_dim)
        self.emb_norm = nn.BatchNorm1d(emb_dim)

    def forward(self, frames, lengths=None):
        """Embeds a batch of spectrograms.

        Arguments
        ---------
        frames : torch.Tensor
            Frames, of shape (batch, time, n_mels).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, emb_dim).
        """
        pooled = self.pooling(*self.encoder(frames, lengths)).squeeze(1)
        hidden = torch.relu(self.fc2(torch.relu(self.fc1(pooled))))
        return self.emb_norm(hidden).unsqueeze(1)


class ProjectedClassifier(nn.Module):
    """A last linear layer and a classifier of the speakers, as the authors have them.

    Before a softmax the layer has a ReLU and batch norm, and the speakers' layer is
    linear with a bias (arXiv 1906.09890); before a loss of cosines there is the
    layer alone (arXiv 2007.13199).

    Arguments
    ---------
    input_size : int
        Dimension of the embeddings.
    out_neurons : int
        Speakers.
    loss : str
        "softmax" takes linear logits; any other loss cosines.
    dropout : float
        Probability with which a channel is left out before the speakers' layer,
        in training.

    Example
    -------
    >>> classifier = ProjectedClassifier(400, 1211, loss="am-softmax")
    >>> classifier(torch.rand(4, 1, 400)).abs().max() <= 1
    tensor(True)
    """

    def __init__(self, input_size, out_neurons, loss="softmax", dropout=0.0):
        super().__init__()
        self.fc = nn.Linear(input_size, input_size)
        self.dropout = nn.Dropout(dropout)
        self.takes_cosines = loss != "softmax"
        if not self.takes_cosines:
            self.norm = nn.BatchNorm1d(input_size)
        self.speakers = nn.Linear(input_size, out_neurons, bias=not self.takes_cosines)
        if self.takes_cosines:
            nn.init.xavier_normal_(self.speakers.weight)

    def forward(self, embeddings):
        """Computes logits or cosines.

        Arguments
        ---------
        embeddings : torch.Tensor
            Embeddings, of shape (batch, 1, dim).

        Returns
        -------
        torch.Tensor
            Logits or cosines, of shape (batch, 1, speaker).
        """
        x = self.fc(embeddings.squeeze(1))
        if not self.takes_cosines:
            x = self.speakers(self.dropout(self.norm(torch.relu(x))))
        else:
            x = F.normalize(self.dropout(x), dim=1)
            x = F.linear(x, F.normalize(self.speakers.weight, dim=1))
        return x.unsqueeze(1)
