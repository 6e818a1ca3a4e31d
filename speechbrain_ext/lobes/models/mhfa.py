"""MHFA and CA-MHFA: multi-head factorised attentive pooling."""

import torch
from torch import nn

from speechbrain_ext.nnet.masking import frame_mask
from speechbrain_ext.nnet.pooling import LayerAttention


class MHFA(LayerAttention):
    """Speaker embeddings from two aggregations of the layers.

    One aggregation, the keys, says which frames each head attends to; the
    other, the values, is what it sums (arXiv 2210.01273, section 3.2). In the
    paper both are SUPERB's weighted sums. With `context`, a head sees the keys
    around a frame too: context-aware MHFA (arXiv 2409.15234, equation 2).

    Arguments
    ---------
    key_pooling : LayerPooling
        `WeightedLayerSum` or `LayerAttentivePooling`, for the keys.
    value_pooling : LayerPooling
        Another one, for the values.
    in_channels : int
        Channels after the layer poolings.
    compressed_channels : int
        Channels of keys and values.
    n_heads : int
        Heads of the attention over frames.
    emb_dim : int
        Dimension of the embedding.
    context : int
        Frames to either side that a head's query covers; 0 for plain MHFA.

    Example
    -------
    >>> from speechbrain_ext.nnet.pooling import WeightedLayerSum
    >>> model = MHFA(WeightedLayerSum(13), WeightedLayerSum(13), 768)
    >>> sum(p.numel() for p in model.parameters())
    2302554
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> model(hidden_states, lengths=torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 256])
    """

    def __init__(
        self,
        key_pooling,
        value_pooling,
        in_channels=768,
        compressed_channels=128,
        n_heads=64,
        emb_dim=256,
        context=0,
    ):
        super().__init__()
        self.key_pooling = key_pooling
        self.value_pooling = value_pooling
        self.key_proj = nn.Linear(in_channels, compressed_channels)
        self.value_proj = nn.Linear(in_channels, compressed_channels)
        self.queries = nn.Conv1d(
            compressed_channels, n_heads, 2 * context + 1, padding=context
        )
        self.fc = nn.Linear(n_heads * compressed_channels, emb_dim)

    def forward(self, hidden_states, lengths=None, return_weights=False):
        """Embeds a batch of utterances.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the values' layer weights too.

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, emb_dim).
        torch.Tensor
            With return_weights, the layer weights, of shape
            (batch, head, time, layer).
        """
        keys = self.key_proj(self.key_pooling(hidden_states, lengths))
        mask = frame_mask(lengths, keys.shape[1])
        values, weights = self.value_pooling(
            hidden_states, lengths, return_weights=True
        )
        if mask is not None:
            # Padding is no context, like what is beyond the utterance.
            keys = keys.masked_fill(~mask.unsqueeze(2), 0.0)
        scores = self.queries(keys.transpose(1, 2)) / self.queries.kernel_size[0]
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(1), float("-inf"))
        attention = torch.softmax(scores, dim=2)
        heads = torch.einsum("bht,btc->bhc", attention, self.value_proj(values))
        embeddings = self.fc(heads.flatten(1)).unsqueeze(1)
        return (embeddings, weights) if return_weights else embeddings
