"""Loads models that were trained with the papers' own implementations."""

import re

from speechbrain_ext.lobes.models.ltdnn import LTDNN

# This project's parameter names and the published implementation's.
LTDNN_NAMES = (
    (r"^convolutions\.norm\.", "net.in_conv.0."),
    (r"^convolutions\.conv_in\.norm\.", "net.in_conv.1.bn."),
    (r"^convolutions\.conv_in\.", "net.in_conv.1."),
    (r"^convolutions\.fusion\.", "net.fusion.0."),
    (r"^convolutions\.blocks\.0\.", "net.block1.se_res2block."),
    (r"^convolutions\.blocks\.1\.", "net.block2.se_res2block."),
    (r"^convolutions\.blocks\.2\.", "net.block3.se_res2block."),
    (r"(?<=block)\.conv_in\.", ".0."),
    (r"(?<=block)\.res2conv\.", ".1."),
    (r"(?<=block)\.conv_out\.", ".2."),
    (r"(?<=block)\.squeeze_excitation\.squeeze\.", ".3.se_attention.1."),
    (r"(?<=block)\.squeeze_excitation\.excite\.", ".3.se_attention.3."),
    (r"(?<=\d)\.norm\.", ".bn."),
    (r"^layer_pooling\.in_norm\.", "l_pool.in_projection.0."),
    (r"^layer_pooling\.in_proj\.", "l_pool.in_projection.1."),
    (r"^layer_pooling\.squeeze_weight", "l_pool.W1"),
    (r"^layer_pooling\.squeeze_bias", "l_pool.b1"),
    (r"^layer_pooling\.excite_weight", "l_pool.W2"),
    (r"^layer_pooling\.excite_bias", "l_pool.b2"),
    (r"^layer_pooling\.out_proj\.", "l_pool.out_projection.0."),
    (r"^layer_pooling\.out_norm\.", "l_pool.out_projection.1."),
    (r"^frame_pooling\.bottleneck\.", "t_pool.attention.0."),
    (r"^frame_pooling\.norm\.", "t_pool.attention.2."),
    (r"^frame_pooling\.scores\.", "t_pool.attention.3."),
    (r"^stats_norm\.", "t_pool.attn_norm."),
    (r"^fc\.", "t_pool.out_proj."),
    (r"^emb_norm\.", "t_pool.out_norm."),
)


def official_ltdnn_name(name):
    """The published implementation's name of an LTDNN parameter.

    Arguments
    ---------
    name : str
        Name in `LTDNN.state_dict()`.

    Returns
    -------
    str
        Name as `net.*`, `l_pool.*` or `t_pool.*`.

    Example
    -------
    >>> official_ltdnn_name("convolutions.blocks.0.res2conv.convs.3.norm.weight")
    'net.block1.se_res2block.1.convs.3.bn.weight'
    """
    for pattern, replacement in LTDNN_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def ltdnn_from_official(state_dict, n_heads):
    """Builds an LTDNN from a checkpoint of the paper's implementation.

    Arguments
    ---------
    state_dict : dict
        Parameters named `net.*`, `l_pool.*` and `t_pool.*`, with or without
        the prefix `encoder.`. Sizes are read off them.
    n_heads : int
        Heads of the layer aggregation, 8 in the paper.

    Returns
    -------
    LTDNN
        In eval mode and with `mask="pooling"`, the published behaviour. Set
        `model.mask = "full"` for embeddings that do not depend on the batch.

    Raises
    ------
    ValueError
        If parameters are missing, unknown or of another number of heads.

    Example
    -------
    >>> model = LTDNN(24, 5, conv_channels=16, pooled_channels=24, n_heads=4)
    >>> official = {
    ...     official_ltdnn_name(name): value
    ...     for name, value in model.state_dict().items()
    ... }
    >>> "l_pool.W1" in official
    True
    >>> ltdnn_from_official(official, n_heads=4).layer_pooling.n_heads
    4
    """
    official = {
        name.removeprefix("encoder."): value
        for name, value in state_dict.items()
    }
    try:
        conv_in = official["net.in_conv.1.conv.weight"]
        res2conv = official["net.block1.se_res2block.1.convs.0.conv.weight"]
        se = official["net.block1.se_res2block.3.se_attention.1.weight"]
        squeeze = official["l_pool.W1"]
        fc = official["t_pool.out_proj.weight"]
    except KeyError as error:
        raise ValueError(
            f"not an L-TDNN of the official implementation: it lacks {error}"
        ) from None
    if squeeze.shape[0] != n_heads:
        raise ValueError(
            f"n_heads={n_heads}, but the checkpoint has "
            f"{squeeze.shape[0]} heads (l_pool.W1)"
        )
    model = LTDNN(
        in_channels=conv_in.shape[1],
        n_layers=squeeze.shape[1],
        conv_channels=conv_in.shape[0],
        pooled_channels=fc.shape[1] // 2,
        emb_dim=fc.shape[0],
        n_heads=n_heads,
        scale=conv_in.shape[0] // res2conv.shape[0],
        se_channels=se.shape[0],
        mask="pooling",
    )
    names = {official_ltdnn_name(name): name for name in model.state_dict()}
    unknown = sorted(set(official) - set(names))
    missing = sorted(
        name
        for name in set(names) - set(official)
        if not name.endswith("num_batches_tracked")
    )
    if missing or unknown:
        raise ValueError(
            "not an L-TDNN of the official implementation: "
            f"missing {missing}, unknown {unknown}"
        )
    model.load_state_dict(
        {names[name]: value for name, value in official.items()}, strict=False
    )
    return model.eval()
