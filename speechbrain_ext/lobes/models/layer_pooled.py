"""Any aggregation of layers before any embedding model on frames."""

from speechbrain_ext.nnet.pooling import LayerAttention


class LayerPooled(LayerAttention):
    """Layer pooling, then an embedding model of SpeechBrain's kind.

    Makes SUPERB's weighted sum or layer attentive pooling the front of an
    x-vector, of ECAPA-TDNN or of ASTP (arXiv 2512.22148, section 3).

    Arguments
    ---------
    layer_pooling : LayerPooling
        `WeightedLayerSum` or `LayerAttentivePooling`.
    embedding_model : torch.nn.Module
        Module from (batch, time, channel) and relative lengths to (batch, 1, dim).

    Example
    -------
    >>> import torch
    >>> from speechbrain_ext.lobes.models.xvector import MaskedXvector
    >>> from speechbrain_ext.nnet.pooling import WeightedLayerSum
    >>> model = LayerPooled(
    ...     WeightedLayerSum(n_layers=13), MaskedXvector(in_channels=768)
    ... )
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> embeddings, weights = model(hidden_states, return_weights=True)
    >>> embeddings.shape, weights.shape
    (torch.Size([2, 1, 512]), torch.Size([2, 1, 50, 13]))
    """

    def __init__(self, layer_pooling, embedding_model):
        super().__init__()
        self.layer_pooling = layer_pooling
        self.embedding_model = embedding_model

    def forward(self, hidden_states, lengths=None, return_weights=False):
        """Embeds a batch of utterances.

        Arguments
        ---------
        hidden_states : torch.Tensor
            Hidden states, of shape (layer, batch, time, channel).
        lengths : torch.Tensor
            Relative lengths, of shape (batch,).
        return_weights : bool
            Whether to return the layer weights too.

        Returns
        -------
        torch.Tensor
            Embeddings, of shape (batch, 1, dim).
        torch.Tensor
            With return_weights, the layer weights, of shape
            (batch, head, time, layer).
        """
        frames, weights = self.layer_pooling(
            hidden_states, lengths, return_weights=True
        )
        embeddings = self.embedding_model(frames, lengths)
        return (embeddings, weights) if return_weights else embeddings
