"""Layer adapters and multi-layer feature aggregation (arXiv 2510.04213)."""

import torch
from torch import nn

from speechbrain_ext.lobes.models.ecapa import MaskedAttentiveStatistics


class LayerAdapterMFA(nn.Module):
    """Speaker embeddings from all hidden states, an adapter for each.

    Each hidden state goes through an adapter of its own (linear, layer norm,
    ReLU, linear), all of them together through SpeechBrain's attentive
    statistics pooling, without global context, and a linear layer: the back
    end of w2v-BERT 2.0 in arXiv 2510.04213.

    Arguments
    ---------
    in_channels : int
        Channels of the SSL encoder.
    n_layers : int
        Hidden states of the SSL encoder.
    adapter_channels : int
        Channels of an adapter's output, and of the attention's bottleneck.
    emb_dim : int
        Dimension of the embedding.

    Example
    -------
    >>> model = LayerAdapterMFA(in_channels=1024, n_layers=25)
    >>> sum(p.numel() for p in model.parameters())
    6160640
    >>> hidden_states = torch.rand(25, 2, 50, 1024)
    >>> model(hidden_states, lengths=torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 256])
    """

    def __init__(
        self, in_channels=1024, n_layers=25, adapter_channels=128, emb_dim=256
    ):
        super().__init__()
        self.adapters = nn.ModuleList(
            nn.Sequential(
                nn.Linear(in_channels, adapter_channels),
                nn.LayerNorm(adapter_channels),
                nn.ReLU(),
                nn.Linear(adapter_channels, adapter_channels),
            )
            for _ in range(n_layers)
        )
        channels = n_layers * adapter_channels
        self.frame_pooling = MaskedAttentiveStatistics(
            channels, adapter_channels, global_context=False
        )
        self.fc = nn.Linear(2 * channels, emb_dim)

    def forward(self, hidden_states, lengths=None):
        """Embeds a batch of utterances.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, emb_dim).
        """
        frames = torch.cat(
            [adapter(layer) for adapter, layer in zip(self.adapters, hidden_states)],
            dim=-1,
        )
        statistics = self.frame_pooling(frames.transpose(1, 2), lengths)
        return self.fc(statistics.transpose(1, 2))
