"""Loads models that were trained with the papers' own implementations."""

import contextlib
import re

from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.lobes.models.vgg import VGGEmbedding
from speechbrain_ext.nnet.pooling import (
    DoubleMultiHeadAttnPooling,
    MultiHeadAttnPooling,
)

# This project's parameter names and the published implementation's.
LTDNN_NAMES = (
    (r"^convolutions\.norm\.", "net.in_conv.0."),
    (r"^convolutions\.conv_in\.norm\.", "net.in_conv.1.bn."),
    (r"^convolutions\.conv_in\.", "net.in_conv.1."),
    (r"^convolutions\.fusion\.", "net.fusion.0."),
    (
        r"^convolutions\.blocks\.(\d)\.",
        lambda match: f"net.block{int(match[1]) + 1}.se_res2block.",
    ),
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
    (r"^astp\.frame_pooling\.bottleneck\.", "t_pool.attention.0."),
    (r"^astp\.frame_pooling\.norm\.", "t_pool.attention.2."),
    (r"^astp\.frame_pooling\.scores\.", "t_pool.attention.3."),
    (r"^astp\.stats_norm\.", "t_pool.attn_norm."),
    (r"^astp\.fc\.", "t_pool.out_proj."),
    (r"^astp\.emb_norm\.", "t_pool.out_norm."),
)
LAP_ASTP_NAMES = (
    (r"^layer_pooling\.in_norm\.", "lap.in_norm."),
    (r"^layer_pooling\.in_proj\.", "lap.in_weight."),
    (r"^layer_pooling\.squeeze_", "lap.sq_"),
    (r"^layer_pooling\.excite_", "lap.ex_"),
    (r"^layer_pooling\.out_proj\.", "lap.out_weight."),
    (r"^layer_pooling\.out_norm\.", "lap.out_norm."),
    (r"^embedding_model\.frame_pooling\.bottleneck\.", "astp.t_pool.attention.0."),
    (r"^embedding_model\.frame_pooling\.norm\.", "astp.t_pool.attention.2."),
    (r"^embedding_model\.frame_pooling\.scores\.", "astp.t_pool.attention.3."),
    (r"^embedding_model\.stats_norm\.", "astp.t_pool.norm."),
    (r"^embedding_model\.fc\.", "astp.emb_weight."),
    (r"^embedding_model\.emb_norm\.", "astp.emb_norm."),
)

# Of the published VGG: layers after the embedding, and one that is not used.
BEYOND_MHA_VGG_EMBEDDING = ("b1.", "b3.", "preLayer.", "predictionLayer.")


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
    return _renamed(name, LTDNN_NAMES)


def ltdnn_from_official(state_dict, n_heads, unbiased=False):
    """Builds an LTDNN from a checkpoint of the paper's implementation.

    Arguments
    ---------
    state_dict : dict
        Parameters named `net.*`, `l_pool.*` and `t_pool.*`, with or without
        the prefix `encoder.`. Sizes are read off them.
    n_heads : int
        Heads of the layer aggregation, 8 in the paper.
    unbiased : bool
        True to be equal to the published code called without lengths, False to be equal
        to it called with lengths; see `LTDNN`.

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
        name.removeprefix("encoder."): value for name, value in state_dict.items()
    }
    with _needs_parameters_of("an L-TDNN"):
        conv_in = official["net.in_conv.1.conv.weight"]
        res2conv = official["net.block1.se_res2block.1.convs.0.conv.weight"]
        se = official["net.block1.se_res2block.3.se_attention.1.weight"]
        projected = official["l_pool.in_projection.1.weight"]
        squeeze = official["l_pool.W1"]
        fc = official["t_pool.out_proj.weight"]
    _check_heads(n_heads, squeeze, "l_pool.W1")
    n_blocks = len({name.split(".")[1] for name in official if "net.block" in name})
    model = LTDNN(
        in_channels=conv_in.shape[1],
        n_layers=squeeze.shape[1],
        conv_channels=conv_in.shape[0],
        pooled_channels=fc.shape[1] // 2,
        emb_dim=fc.shape[0],
        n_heads=n_heads,
        dilations=range(2, 2 + n_blocks),
        projected_channels=projected.shape[0],
        unbiased=unbiased,
        scale=conv_in.shape[0] // res2conv.shape[0],
        se_channels=se.shape[0],
        mask="pooling",
    )
    return _load_official(model, official, official_ltdnn_name)


def lap_astp_from_official(state_dict, n_heads):
    """Builds a LAP_ASTP from a checkpoint of the paper's implementation.

    Arguments
    ---------
    state_dict : dict
        Parameters named `lap.*` and `astp.*`. Sizes are read off them.
    n_heads : int
        Heads of the layer pooling, 12 for base and 16 for large encoders.

    Returns
    -------
    LAP_ASTP
        The model, in eval mode.

    Raises
    ------
    ValueError
        If parameters are missing, unknown or of another number of heads.

    Example
    -------
    >>> model = LAP_ASTP(24, 5, pooled_channels=16, emb_dim=8, n_heads=4)
    >>> official = {
    ...     official_lap_astp_name(name): value
    ...     for name, value in model.state_dict().items()
    ... }
    >>> "lap.sq_weight" in official
    True
    >>> lap_astp_from_official(official, n_heads=4).layer_pooling.n_heads
    4
    """
    with _needs_parameters_of("a LAP"):
        pooled = state_dict["lap.out_weight.weight"]
        squeeze = state_dict["lap.sq_weight"]
        fc = state_dict["astp.emb_weight.weight"]
    _check_heads(n_heads, squeeze, "lap.sq_weight")
    model = LAP_ASTP(
        in_channels=pooled.shape[1],
        n_layers=squeeze.shape[1],
        pooled_channels=pooled.shape[0],
        emb_dim=fc.shape[0],
        n_heads=n_heads,
    )
    return _load_official(model, state_dict, official_lap_astp_name)


def official_lap_astp_name(name):
    """The published implementation's name of a LAP_ASTP parameter.

    Arguments
    ---------
    name : str
        Name in `LAP_ASTP.state_dict()`.

    Returns
    -------
    str
        Name as `lap.*` or `astp.*`.

    Example
    -------
    >>> official_lap_astp_name("embedding_model.fc.weight")
    'astp.emb_weight.weight'
    """
    return _renamed(name, LAP_ASTP_NAMES)


def mha_vgg_from_official(state_dict, n_heads):
    """Builds the VGG with (double) multi-head attention of the authors' code.

    That code has the paper's VGG (arXiv 1906.09890); its dot products are
    divided by the square root of the number of heads.

    Arguments
    ---------
    state_dict : dict
        Parameters named `front_end.*`, `poolingLayer.*`, `fc1.*`, `fc2.*` and
        `b2.*`. Sizes, and whether the attention is double, are read off them;
        what comes after the embedding is left out.
    n_heads : int
        Heads of the pooling.

    Returns
    -------
    VGGEmbedding
        The model, in eval mode.

    Raises
    ------
    ValueError
        If parameters are missing, unknown or of another number of heads.

    Example
    -------
    >>> pooling = MultiHeadAttnPooling(16, n_heads=4)
    >>> model = VGGEmbedding(pooling, 16, 16, (4, 4, 8), emb_dim=6)
    >>> official = {
    ...     official_mha_vgg_name(name): value
    ...     for name, value in model.state_dict().items()
    ... }
    >>> query = official.pop("pooling.query").squeeze(1).T
    >>> official["poolingLayer.query"] = query
    >>> mha_vgg_from_official(official, n_heads=4).pooling.n_heads
    4
    """
    official = {
        name: value
        for name, value in state_dict.items()
        if not name.startswith(BEYOND_MHA_VGG_EMBEDDING)
    }
    double = "poolingLayer.headsAttention.att" in official
    query_name = "poolingLayer.query"
    if double:
        query_name = "poolingLayer.utteranceAttention.query"
    with _needs_parameters_of("a VGG"):
        query = official.pop(query_name)
        emb_dim, pooled_channels = official["fc1.weight"].shape
        channels = [
            official[f"front_end.conv{block}2.bias"].numel()
            for block in range(1, 5)
            if block < 4 or "front_end.conv42.bias" in official
        ]
    query = query.T.unsqueeze(1)
    _check_heads(n_heads, query, query_name)
    encoded_channels = query.numel()
    if double:
        pooling_class = DoubleMultiHeadAttnPooling
        heads_query = official.pop("poolingLayer.headsAttention.att")
        queries = {
            "of_frames.query": query,
            "of_heads.query": heads_query.T.unsqueeze(1),
        }
    else:
        pooling_class = MultiHeadAttnPooling
        queries = {"query": query}
    model = VGGEmbedding(
        pooling_class(encoded_channels, n_heads, scale=n_heads**-0.5),
        pooled_channels,
        # The bands that are left, doubled by each block.
        encoded_channels // channels[-1] * 2 ** len(channels),
        channels,
        emb_dim,
    )
    official.update({f"pooling.{name}": value for name, value in queries.items()})
    return _load_official(model, official, official_mha_vgg_name)


def official_mha_vgg_name(name):
    """The authors' name of a VGGEmbedding parameter.

    Arguments
    ---------
    name : str
        Name in `VGGEmbedding.state_dict()`.

    Returns
    -------
    str
        Name as `front_end.*`, `fc1.*`, `fc2.*` or `b2.*`; that of the pooling,
        whose parameters are laid out otherwise, as it is.

    Example
    -------
    >>> official_mha_vgg_name("encoder.blocks.1.0.weight")
    'front_end.conv21.weight'
    """
    block = re.match(r"encoder\.blocks\.(\d)\.(\d)\.", name)
    if block:
        number = f"{int(block[1]) + 1}{int(block[2]) + 1}"
        return f"front_end.conv{number}.{name[block.end() :]}"
    return name.replace("emb_norm.", "b2.")


def _renamed(name, rules):
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name


@contextlib.contextmanager
def _needs_parameters_of(architecture):
    try:
        yield
    except KeyError as error:
        raise ValueError(
            f"not {architecture} of the official implementation: it lacks {error}"
        ) from None


def _check_heads(n_heads, weight, name):
    if weight.shape[0] != n_heads:
        raise ValueError(
            f"n_heads={n_heads}, but the checkpoint has {weight.shape[0]} "
            f"heads ({name})"
        )


def _load_official(model, official, official_name):
    """Loads parameters under the published names into a model."""
    names = {official_name(name): name for name in model.state_dict()}
    unknown = sorted(set(official) - set(names))
    missing = sorted(
        name
        for name in set(names) - set(official)
        if not name.endswith("num_batches_tracked")
    )
    if missing or unknown:
        raise ValueError(
            f"not {type(model).__name__} of the official implementation: "
            f"missing {missing}, unknown {unknown}"
        )
    model.load_state_dict(
        {names[name]: value for name, value in official.items()}, strict=False
    )
    return model.eval()
