"""Every trained parameter of an encoder gets a gradient, or DDP would stop."""

import pytest
import torch

from speechbrain_ext.lobes.encoders.cls_encoder import CLSEncoder
from speechbrain_ext.lobes.encoders.small_wavlm import save_small_wavlm
from speechbrain_ext.lobes.encoders.ssl_encoder import SSLEncoder


@pytest.mark.parametrize(
    "kind, settings",
    [
        (SSLEncoder, {}),
        (SSLEncoder, {"freeze_feature_extractor": False}),
        (SSLEncoder, {"gradient_checkpointing": True}),
        (SSLEncoder, {"layers": [1, 2]}),
        (SSLEncoder, {"layers": [0]}),
        (CLSEncoder, {}),
    ],
)
def test_every_trained_parameter_gets_a_gradient(tmp_path, kind, settings):
    folder = save_small_wavlm(tmp_path / "wavlm", n_layers=3, channels=32, n_bands=8)
    encoder = kind(folder, freeze=False, **settings).train()
    hidden_states, _ = encoder(torch.randn(2, 8000), torch.tensor([1.0, 0.7]))
    hidden_states.square().sum().backward()
    without = [
        name
        for name, p in encoder.named_parameters()
        if p.requires_grad and p.grad is None
    ]
    assert without == []
