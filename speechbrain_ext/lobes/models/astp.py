"""The light back end: attentive statistics pooling and a linear embedding."""

from torch import nn

from speechbrain_ext.nnet.pooling import (
    ChannelAttentiveStatisticsPooling,
    check_pooling,
)


class ASTP(nn.Module):
    """Speaker embeddings from frames without further convolutions.

    Attentive statistics, batch norm, a linear layer, batch norm: the end of
    L-TDNN (arXiv 2409.07770) and, after layer attentive pooling, the whole
    back end of LAP (arXiv 2512.22148).

    Arguments
    ---------
    in_channels : int
        Channels of the frames.
    emb_dim : int
        Dimension of the embedding.
    reduction : float
        Bottleneck of the attention, as a share of in_channels.
    dropout : float
        See `ChannelAttentiveStatisticsPooling`.
    drop_frames : bool
        See `ChannelAttentiveStatisticsPooling`.
    unbiased : bool
        See `ChannelAttentiveStatisticsPooling`.
    frame_pooling : FramePooling
        Another pooling, with out_channels, in its place, such as
        `MultiHeadAttnPooling(in_channels, n_heads)`.

    Raises
    ------
    InputError
        If frame_pooling takes another number of channels.

    Example
    -------
    >>> import torch
    >>> back_end = ASTP(512, 192)
    >>> back_end(torch.rand(2, 50, 512), torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 192])
    """

    def __init__(
        self,
        in_channels,
        emb_dim,
        reduction=0.5,
        dropout=0.1,
        drop_frames=False,
        unbiased=False,
        frame_pooling=None,
    ):
        super().__init__()
        self.frame_pooling = frame_pooling or ChannelAttentiveStatisticsPooling(
            in_channels,
            int(reduction * in_channels),
            dropout,
            drop_frames,
            unbiased,
        )
        check_pooling(self.frame_pooling, in_channels)
        self.stats_norm = nn.BatchNorm1d(self.frame_pooling.out_channels)
        self.fc = nn.Linear(self.frame_pooling.out_channels, emb_dim)
        self.emb_norm = nn.BatchNorm1d(emb_dim)

    def forward(self, frames, lengths=None):
        """Embeds a batch of utterances.

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
        x = self.frame_pooling(frames, lengths).squeeze(1)
        return self.emb_norm(self.fc(self.stats_norm(x))).unsqueeze(1)
