"""LAP: layer attentive pooling and a light back end (arXiv 2512.22148)."""

from speechbrain_ext.lobes.models.astp import ASTP
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.nnet.initialisation import draw_by_xavier
from speechbrain_ext.nnet.pooling import LayerAttentivePooling


class LAP(LayerAttentivePooling):
    """Layer attentive pooling of hidden states, for any back end.

    `LayerAttentivePooling` as arXiv 2512.22148 (section 3) has it: heads of the
    encoder's own channels, biases, and all weights drawn by Xavier's rule.

    Arguments
    ---------
    in_channels : int
        Channels of the SSL encoder, 768 (base) or 1,024 (large).
    n_layers : int
        Hidden states of the SSL encoder, 13 (base) or 25 (large).
    out_channels : int
        Channels after the pooling.
    n_heads : int
        Number of heads, 12 (base) or 16 (large).
    dropout : float
        Dropout probability of the layer weights.
    pool : str
        What is kept of the weighted layers: "max", "sum" or "mean".
    recompute : bool
        See `LayerAttentivePooling`.

    Example
    -------
    >>> import torch
    >>> pooling = LAP(in_channels=768, n_layers=13)
    >>> pooling(torch.rand(13, 2, 50, 768)).shape
    torch.Size([2, 50, 512])
    """

    def __init__(
        self,
        in_channels,
        n_layers,
        out_channels=512,
        n_heads=12,
        dropout=0.1,
        pool="max",
        recompute=False,
    ):
        super().__init__(
            in_channels,
            out_channels,
            n_layers,
            n_heads,
            dropout,
            projected_channels=in_channels,
            bias=True,
            pool=pool,
            recompute=recompute,
        )
        draw_by_xavier(self)


class LAP_ASTP(LayerPooled):
    """Speaker embeddings from all hidden states, without convolutions.

    Layer attentive pooling of each frame, attentive statistics over frames
    and a linear layer (arXiv 2512.22148, section 3). All weights are drawn by
    Xavier's rule and biases are zero, as in the authors' code.

    Arguments
    ---------
    in_channels : int
        Channels of the SSL encoder, 768 (base) or 1,024 (large).
    n_layers : int
        Hidden states of the SSL encoder, 13 (base) or 25 (large).
    pooled_channels : int
        Channels after the layer pooling.
    emb_dim : int
        Dimension of the embedding.
    n_heads : int
        Heads of the layer pooling, 12 (base) or 16 (large).
    dropout : float
        Dropout probability of layer weights and of frames.
    pool : str
        What is kept of the weighted layers: "max", "sum" or "mean".
    frame_pooling : FramePooling
        Pooling in place of attentive statistics, of pooled_channels; see `ASTP`.
    recompute : bool
        See `LayerAttentivePooling`.

    Raises
    ------
    ValueError
        If the heads do not divide the channels, or pool is unknown.
    InputError
        If frame_pooling takes another number of channels.

    Example
    -------
    >>> import torch
    >>> model = LAP_ASTP(in_channels=768, n_layers=13)
    >>> sum(p.numel() for p in model.parameters())
    1713780
    >>> hidden_states = torch.rand(13, 2, 50, 768)
    >>> model(hidden_states, lengths=torch.tensor([1.0, 0.6])).shape
    torch.Size([2, 1, 192])
    """

    def __init__(
        self,
        in_channels=768,
        n_layers=13,
        pooled_channels=512,
        emb_dim=192,
        n_heads=12,
        dropout=0.1,
        pool="max",
        frame_pooling=None,
        recompute=False,
    ):
        super().__init__(
            LAP(
                in_channels,
                n_layers,
                pooled_channels,
                n_heads,
                dropout,
                pool,
                recompute,
            ),
            ASTP(
                pooled_channels,
                emb_dim,
                dropout=dropout,
                drop_frames=True,
                unbiased=True,
                frame_pooling=frame_pooling,
            ),
        )
        draw_by_xavier(self)
