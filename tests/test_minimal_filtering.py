"""Minimal filtering gives what the batch norm and the convolution do."""

import pytest
import torch
from torch import nn

from speechbrain_ext.lobes import LTDNN
from speechbrain_ext.nnet.masking import zero_padding
from speechbrain_ext.nnet.minimal_filtering import filter_normalised, filter_taps


def random_norm(n_channels):
    """A batch norm in evaluation that has been trained on something."""
    norm = nn.BatchNorm2d(n_channels).eval()
    for tensor in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    return norm


@pytest.mark.parametrize("n_frames", [1, 3, 4, 5, 96, 97, 150])
@pytest.mark.parametrize(("n_layers", "rows", "bias"), [(13, 5, True), (2, 1, False)])
@torch.no_grad()
def test_is_the_convolution_for_any_length(n_frames, n_layers, rows, bias):
    norm = random_norm(8)
    conv = nn.Conv2d(8, 16, (rows, 3), padding=(rows // 2, 1), bias=bias)
    x = torch.randn(3, 8, n_layers, n_frames)
    counts = torch.tensor([[n_frames], [max(1, n_frames // 2)], [1]])
    mask = torch.arange(n_frames) < counts
    expected = conv.double()(zero_padding(norm.double()(x.double()), mask))
    norm, conv = norm.float(), conv.float()
    y = filter_normalised(norm, conv, filter_taps(conv.weight), x, mask)
    y, expected = (zero_padding(map_, mask) for map_ in (y.double(), expected))
    assert torch.allclose(y, expected, atol=2e-5)


def test_ltdnn_embeds_as_with_gradients_after_each_step():
    torch.manual_seed(0)
    model = LTDNN(16, 3, conv_channels=256, pooled_channels=16, n_heads=2)
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    hidden_states, lengths = torch.randn(3, 4, 30, 16), torch.tensor([1, 0.9, 0.5, 0.1])
    for _ in range(2):
        model.train()(hidden_states, lengths).square().sum().backward()
        optimizer.step()
        model.eval()
        expected = model(hidden_states, lengths).detach()
        with torch.no_grad():
            embeddings = model(hidden_states, lengths)
            alone = model(hidden_states[:, 2:3, :15])
        assert model.convolutions.taps_in.value is not None
        assert torch.allclose(embeddings, expected, atol=1e-5)
        assert torch.allclose(embeddings[2:3], alone, atol=1e-5)


@torch.no_grad()
def test_what_stands_in_padded_frames_changes_nothing():
    model = LTDNN(16, 3, conv_channels=256, pooled_channels=16, n_heads=2).eval()
    hidden_states, lengths = torch.randn(3, 2, 30, 16), torch.tensor([1, 0.5])
    expected = model(hidden_states, lengths)
    hidden_states[:, 1, 15:] = torch.nan
    assert torch.equal(model(hidden_states, lengths), expected)
