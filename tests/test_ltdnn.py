"""L-TDNN against the published implementation, and its masks."""

import pytest
import torch

from speechbrain_ext.lobes import (
    LTDNN,
    ChannelAttentiveStatisticsPooling,
    LayerAttentivePooling,
    WeightedLayerSum,
)
from speechbrain_ext.lobes.official_checkpoints import ltdnn_from_official

TOLERANCE = 1e-5


def small_ltdnn(**changes):
    torch.manual_seed(0)
    sizes = dict(
        in_channels=24,
        n_layers=5,
        conv_channels=16,
        pooled_channels=24,
        emb_dim=12,
        n_heads=4,
    )
    return LTDNN(**{**sizes, **changes})


def n_parameters(model):
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize(
    "channels, n_layers, expected", [(768, 13, 5717272), (1024, 25, 6704520)]
)
def test_parameter_count(channels, n_layers, expected):
    assert n_parameters(LTDNN(channels, n_layers)) == expected


@pytest.mark.parametrize("prefix", ["", "encoder."])
def test_every_stage_matches_the_published_implementation(reference, prefix):
    tensors = reference("ltdnn.safetensors")
    official = {
        prefix + name.removeprefix("param."): value
        for name, value in tensors.items()
        if name.startswith("param.")
    }
    model = ltdnn_from_official(official, n_heads=4)
    hidden_states = tensors["input"].permute(2, 0, 3, 1)
    lengths = tensors["lengths"] / hidden_states.shape[2]
    with torch.no_grad():
        layer_frame_map = model.convolutions(tensors["input"])
        layer_pooled = model.layer_pooling(layer_frame_map.permute(2, 0, 3, 1))
        embedding = model(hidden_states)
        masked = model(hidden_states, lengths)
    for ours, name in (
        (layer_frame_map, "layer_frame_map"),
        (layer_pooled.transpose(1, 2), "layer_pooled"),
        (embedding.squeeze(1), "embedding"),
        (masked.squeeze(1), "embedding_pool_masked"),
    ):
        assert (ours - tensors[name]).abs().max() <= TOLERANCE, name


def test_official_checkpoint_errors(reference):
    tensors = reference("ltdnn.safetensors")
    official = {
        name.removeprefix("param."): value
        for name, value in tensors.items()
        if name.startswith("param.")
    }
    with pytest.raises(ValueError, match="the checkpoint has 4 heads"):
        ltdnn_from_official(official, n_heads=8)
    with pytest.raises(ValueError, match="unknown .*classifier"):
        ltdnn_from_official({**official, "classifier": torch.ones(1)}, 4)
    del official["net.fusion.0.bias"]
    with pytest.raises(ValueError, match="missing .*net.fusion.0.bias"):
        ltdnn_from_official(official, n_heads=4)
    with pytest.raises(ValueError, match="it lacks"):
        ltdnn_from_official({}, n_heads=4)


def randomize_norms(model):
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.bias, -1, 1)
            torch.nn.init.uniform_(module.running_mean, -1, 1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)


def test_full_mask_makes_embeddings_independent_of_the_batch():
    model = small_ltdnn().eval()
    randomize_norms(model)
    counts = [31, 20, 7, 1]
    hidden_states = torch.randn(5, 4, 31, 24)
    lengths = torch.tensor(counts) / 31
    with torch.no_grad():
        together = model(hidden_states, lengths)
        for i, count in enumerate(counts):
            alone = model(hidden_states[:, i : i + 1, :count])
            torch.testing.assert_close(together[i : i + 1], alone, atol=1e-5, rtol=1e-5)
        model.mask = "pooling"
        published = model(hidden_states, lengths)
    assert (published[1] - together[1]).abs().max() > 1e-4


def test_full_mask_keeps_padding_out_of_training_statistics():
    padded, unpadded = (small_ltdnn(dropout=0.0).train() for _ in range(2))
    hidden_states = torch.randn(5, 1, 20, 24)
    filled = torch.cat([hidden_states, torch.full((5, 1, 9, 24), 50.0)], dim=2)
    both = torch.cat([filled, filled], dim=1)
    # Two copies: batch norm over embeddings needs more than one.
    padded(both, torch.tensor([20 / 29, 20 / 29]))
    unpadded(torch.cat([hidden_states, hidden_states], dim=1))
    for (name, ours), theirs in zip(padded.named_buffers(), unpadded.buffers()):
        if "running" in name:
            torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


def test_padding_gets_no_gradient():
    model = small_ltdnn().train()
    hidden_states = torch.randn(5, 3, 20, 24, requires_grad=True)
    model(hidden_states, torch.tensor([1.0, 0.5, 0.75])).pow(2).sum().backward()
    assert hidden_states.grad[:, 1, 10:].abs().max() == 0
    assert hidden_states.grad[:, 1, :10].abs().max() > 0


def test_layer_weights_on_request():
    model = small_ltdnn().eval()
    embedding, weights = model(torch.randn(5, 2, 9, 24), return_weights=True)
    assert embedding.shape == (2, 1, 12)
    assert weights.shape == (2, 4, 9, 5)
    assert ((weights > 0) & (weights < 1)).all()


def test_runs_in_bfloat16_autocast():
    model = small_ltdnn().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(5, 3, 20, 24), torch.tensor([1.0, 0.5, 0.7]))
    out.float().sum().backward()
    assert torch.isfinite(out).all()


def test_wrong_arguments():
    with pytest.raises(ValueError, match='use "full" or "pooling"'):
        small_ltdnn(mask="half")
    with pytest.raises(ValueError, match="n_heads=5 does not divide"):
        small_ltdnn(n_heads=5)
    with pytest.raises(ValueError, match="n_layers=5 and got 6 layers"):
        small_ltdnn()(torch.randn(6, 2, 9, 24))


def test_attentive_statistics_of_constant_frames():
    pooling = ChannelAttentiveStatisticsPooling(4, attention_channels=2).eval()
    frames = torch.tensor([1.0, -2.0, 0.5, 3.0]).expand(1, 6, 4)
    pooled, weights = pooling(frames, return_weights=True)
    torch.testing.assert_close(pooled[0, 0, :4], frames[0, 0])
    torch.testing.assert_close(pooled[0, 0, 4:], torch.full((4,), 0.01))
    torch.testing.assert_close(weights.sum(1), torch.ones(1, 4))


def test_attentive_statistics_ignore_padding():
    pooling = ChannelAttentiveStatisticsPooling(4, attention_channels=2).eval()
    frames = torch.randn(2, 10, 4)
    pooled, weights = pooling(frames, torch.tensor([1.0, 0.3]), return_weights=True)
    torch.testing.assert_close(pooled[1:], pooling(frames[1:, :3]))
    assert weights[1, 3:].abs().max() == 0


def test_layer_pooling_takes_the_maximum_over_weighted_layers():
    pooling = LayerAttentivePooling(4, 4, n_layers=3, n_heads=2).eval()
    torch.nn.init.eye_(pooling.in_proj.weight.data.view(4, 4))
    torch.nn.init.eye_(pooling.out_proj.weight.data.view(4, 4))
    hidden_states = torch.randn(3, 2, 5, 4)
    frames, weights = pooling(hidden_states, return_weights=True)
    # (layer, batch, time, channel), two channels a head
    spread = weights.permute(3, 0, 2, 1).repeat_interleave(2, dim=3)
    expected = (hidden_states * spread).amax(dim=0)
    torch.testing.assert_close(frames, expected, atol=1e-4, rtol=1e-4)


def test_weighted_layer_sum():
    weighted_sum = WeightedLayerSum(3)
    weighted_sum.weights.data = torch.tensor([0.0, 0.0, 1.0]) * 50
    hidden_states = torch.randn(3, 2, 5, 4)
    torch.testing.assert_close(weighted_sum(hidden_states), hidden_states[2])
