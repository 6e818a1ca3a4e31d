"""Plain implementations that the benchmarks compare with, module by module.

They run the parameters of our models through transformers' own encoder and through
PyTorch's layers one after the other, without masks, as research code that evaluates
one utterance at a time does. What comes out is the same.
"""

import copy

import torch
from torch import nn
from transformers import WavLMConfig, WavLMModel

from speechbrain_ext.lobes import LAP_ASTP, LTDNN, load_encoder

LARGE = {
    "hidden_size": 1024,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "intermediate_size": 4096,
    "conv_bias": False,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
}
TINY = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "conv_dim": [16] * 7,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
}
SIZES = {"base": {}, "large": LARGE, "tiny": TINY}


def build_encoder(size, freeze=True):
    """Our encoder of a size in `SIZES`, the two public ones and a tiny one."""
    torch.manual_seed(1986)
    config = WavLMConfig(**SIZES[size])
    preprocessor = {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": 16000,
        "padding_value": 0.0,
        "do_normalize": config.feat_extract_norm == "layer",
        "return_attention_mask": config.feat_extract_norm == "layer",
    }
    source = {"config": config.to_dict(), "preprocessor": preprocessor}
    return load_encoder(source, freeze=freeze)


def build_back_end(name, encoder, tiny=False):
    """L-TDNN or LAP + ASTP for an encoder; the running statistics are drawn too."""
    sizes = {"in_channels": encoder.channels, "n_layers": encoder.n_layers}
    if name == "L-TDNN":
        small = {"conv_channels": 16, "pooled_channels": 16, "n_heads": 2}
        model = LTDNN(**sizes, **(small if tiny else {}))
    else:
        small = {"pooled_channels": 16, "n_heads": 2}
        large = {"n_heads": encoder.config.num_attention_heads}
        model = LAP_ASTP(**sizes, **(small if tiny else large))
    generator = torch.Generator().manual_seed(1986)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.normal_(0, 0.1, generator=generator)
            module.running_var.uniform_(0.5, 1.5, generator=generator)
    return model


class PlainEncoder(nn.Module):
    """transformers' WavLM with the weights of our encoder."""

    def __init__(self, encoder):
        super().__init__()
        self.model = WavLMModel(copy.deepcopy(encoder.config))
        self.model.load_state_dict(encoder.model.state_dict())
        self.normalize_wav = encoder.normalize_wav
        self.requires_grad_(not encoder.freeze)
        self.eval()

    def forward(self, wav):
        """Hidden states (layer, batch, time, channel) of waveforms (batch, time)."""
        if self.normalize_wav:
            wav = (wav - wav.mean(1, keepdim=True)) / wav.std(1, keepdim=True)
        return torch.stack(self.model(wav, output_hidden_states=True).hidden_states)


class PlainBackEnd(nn.Module):
    """L-TDNN or LAP + ASTP, the layers of ours called one after the other."""

    def __init__(self, back_end):
        super().__init__()
        self.parts = copy.deepcopy(back_end)

    def forward(self, hidden_states):
        """Embeddings (batch, 1, dim) of hidden states (layer, batch, time, channel)."""
        parts = self.parts
        x = hidden_states.permute(1, 3, 0, 2)
        if isinstance(parts, LTDNN):
            x = layer_aware_convolutions(parts.convolutions, x)
            x = layer_attentive_pooling(parts.layer_pooling, x)
            return attentive_statistics(parts.astp, x)
        x = layer_attentive_pooling(parts.layer_pooling, x)
        return attentive_statistics(parts.embedding_model, x)


def conv_relu_norm(block, x):
    """Convolution, ReLU, batch norm."""
    return block.norm(torch.relu(block.conv(x)))


def layer_aware_convolutions(convolutions, x):
    """The convolutions of L-TDNN."""
    x = conv_relu_norm(convolutions.conv_in, convolutions.norm(x))
    outputs = []
    for block in convolutions.blocks:
        residual = x
        x = conv_relu_norm(block.conv_in, x)
        groups = torch.chunk(x, block.res2conv.scale, dim=1)
        done = []
        for i, conv in enumerate(block.res2conv.convs):
            done.append(conv_relu_norm(conv, groups[i] + done[-1] if i else groups[i]))
        x = conv_relu_norm(block.conv_out, torch.cat([*done, groups[-1]], dim=1))
        gates = block.squeeze_excitation
        mean = x.mean((2, 3), keepdim=True)
        x = x * torch.sigmoid(gates.excite(torch.relu(gates.squeeze(mean)))) + residual
        outputs.append(x)
    return torch.relu(convolutions.fusion(torch.cat(outputs, dim=1)))


def layer_attentive_pooling(pooling, x):
    """Layer attentive pooling of a map (batch, channel, layer, time)."""
    n_batch, _, n_layers, n_frames = x.shape
    x = pooling.in_proj(pooling.in_norm(x))
    x = x.reshape(n_batch, pooling.n_heads, -1, n_layers, n_frames)
    weights = 0.0
    for profile in (x.mean(dim=2), x.max(dim=2).values):
        squeezed = profile.transpose(2, 3) @ pooling.squeeze_weight
        squeezed = torch.relu(squeezed + pooling.squeeze_bias)
        weights = weights + squeezed @ pooling.excite_weight + pooling.excite_bias
    weights = pooling.dropout(torch.sigmoid(weights)).transpose(2, 3).unsqueeze(2)
    x = (x * weights).max(dim=3).values.flatten(1, 2)
    return pooling.out_norm(pooling.out_proj(x))


def attentive_statistics(astp, x):
    """Attentive statistics of frames (batch, channel, time), and the embedding."""
    pooling = astp.frame_pooling
    mean = x.mean(dim=2, keepdim=True)
    std = x.var(dim=2, keepdim=True, correction=int(pooling.unbiased))
    std = std.clamp(min=pooling.MIN_VARIANCE).sqrt()
    context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
    scores = pooling.scores(pooling.norm(torch.relu(pooling.bottleneck(context))))
    if astp.training and pooling.drop_frames:
        dropped = torch.rand(len(x), 1, x.shape[2], device=x.device)
        scores = scores.masked_fill(dropped < pooling.dropout.p, -1e4)
    weights = torch.softmax(scores, dim=2)
    if not pooling.drop_frames:
        weights = pooling.dropout(weights)
    mean = (weights * x).sum(dim=2)
    variance = (weights * x**2).sum(dim=2) - mean**2
    std = variance.clamp(min=pooling.MIN_VARIANCE).sqrt()
    pooled = astp.stats_norm(torch.cat([mean, std], dim=1))
    return astp.emb_norm(astp.fc(pooled)).unsqueeze(1)
