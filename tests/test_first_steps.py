"""First training steps of MHA and the baselines against their equations.

For each system there is a plain reference: functions of the initial weights, by
their names, with one line for each layer, that share no code with the models.
"""

import functools
import math

import pytest
import torch
from speechbrain.lobes.models.Xvector import Classifier as XvectorClassifier
from torch.nn import functional as F

from speechbrain_ext.lobes.models.ecapa import MaskedECAPA
from speechbrain_ext.lobes.models.layer_pooled import LayerPooled
from speechbrain_ext.lobes.models.vgg import ProjectedClassifier, VGGEmbedding
from speechbrain_ext.lobes.models.xvector import MaskedXvector
from speechbrain_ext.nnet.losses import SubCenterClassifier, speaker_loss
from speechbrain_ext.nnet.pooling import (
    DoubleMultiHeadAttnPooling,
    MultiHeadAttnPooling,
    WeightedLayerSum,
)

N_STEPS, N_SPEAKERS, BATCH, N_FRAMES, CHANNELS, EMB_DIM = 4, 5, 6, 30, 8, 6


def train(forward, parameters, loss, batches, lr=0.001):
    """Loss of each step of Adam, and the parameters after the last."""
    optimizer = torch.optim.Adam(parameters, lr=lr)
    losses = []
    for inputs, labels in batches:
        value = loss(forward(inputs), labels)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return torch.tensor(losses)


def assert_same_steps(model, classifier, loss, reference, reference_loss, layers=()):
    """Trains both from the same weights on the same batches.

    In float64: in float32 Adam makes whole steps of gradients that are zero but for
    rounding, and the losses part by 3e-5 after some steps.
    """
    batches = [
        (
            torch.randn(*layers, BATCH, N_FRAMES, CHANNELS).double(),
            torch.randint(N_SPEAKERS, (BATCH,)),
        )
        for _ in range(N_STEPS)
    ]
    whole = torch.nn.ModuleDict({"model": model, "classifier": classifier}).double()
    weights = {
        name: value.detach().clone().requires_grad_()
        for name, value in whole.named_parameters()
    }
    losses = train(
        lambda x: classifier(model(x)),
        list(whole.train().parameters()),
        lambda output, labels: loss(output, labels.unsqueeze(1)),
        batches,
    )
    expected = train(
        functools.partial(reference, weights),
        list(weights.values()),
        reference_loss,
        batches,
    )
    torch.testing.assert_close(losses, expected, rtol=1e-5, atol=0)
    for name, value in whole.named_parameters():
        torch.testing.assert_close(value, weights[name], atol=1e-5, rtol=0, msg=name)


def linear(w, name, x):
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(w, name, x):
    """Batch norm of (batch, channel, ...) by the batch's own statistics."""
    axes = [i for i in range(x.dim()) if i != 1]
    mean, variance = x.mean(axes, True), x.var(axes, correction=0, keepdim=True)
    shape = [1, -1] + [1] * (x.dim() - 2)
    x = (x - mean) / (variance + 1e-5).sqrt()
    return x * w[f"{name}.weight"].view(shape) + w[f"{name}.bias"].view(shape)


def conv(w, name, x, dilation=1):
    """Convolution over time that keeps the length, mirroring the ends."""
    kernel = w[f"{name}.weight"]
    ends = dilation * (kernel.shape[2] - 1) // 2
    x = F.pad(x, (ends, ends), mode="reflect") if ends else x
    return F.conv1d(x, kernel, w[f"{name}.bias"], dilation=dilation)


# x-vector (arXiv 2409.07770 has it with Kaldi's layers), plain cross-entropy


def xvector(w, frames, prefix="model"):
    x = frames.transpose(1, 2)
    for layer, dilation in zip((0, 3, 6, 9, 12), (1, 2, 3, 1, 1)):
        x = F.leaky_relu(conv(w, f"{prefix}.blocks.{layer}.conv", x, dilation))
        x = norm(w, f"{prefix}.blocks.{layer + 2}.norm", x)
    pooled = torch.cat([x.mean(2), x.std(2) + 1e-5], dim=1)
    return linear(w, f"{prefix}.blocks.16.w", pooled)


def xvector_logits(w, frames, embed=xvector):
    x = norm(w, "classifier.norm.norm", torch.relu(embed(w, frames)))
    x = torch.relu(linear(w, "classifier.DNN.block_0.linear.w", x))
    x = norm(w, "classifier.DNN.block_0.norm.norm", x)
    return linear(w, "classifier.out.w", x)


def small_xvector():
    return MaskedXvector(
        in_channels=CHANNELS,
        tdnn_channels=[8, 8, 8, 8, 12],
        lin_neurons=EMB_DIM,
    )


def xvector_classifier():
    return XvectorClassifier(
        [None, None, EMB_DIM],
        activation=torch.nn.ReLU,
        lin_blocks=1,
        lin_neurons=EMB_DIM,
        out_neurons=N_SPEAKERS,
    )


# ECAPA-TDNN (arXiv 2005.07143), AAM-softmax


def tdnn(w, name, x, dilation=1):
    return norm(
        w, f"{name}.norm.norm", torch.relu(conv(w, f"{name}.conv.conv", x, dilation))
    )


def ecapa(w, frames, prefix="model"):
    x = tdnn(w, f"{prefix}.blocks.0", frames.transpose(1, 2))
    outputs = []
    for i, dilation in ((1, 2), (2, 3), (3, 4)):
        block = f"{prefix}.blocks.{i}"
        groups = list(tdnn(w, f"{block}.tdnn1", x).split(4, dim=1))
        for j in range(1, len(groups)):
            before = groups[j - 1] if j > 1 else 0
            name = f"{block}.res2net_block.blocks.{j - 1}"
            groups[j] = tdnn(w, name, groups[j] + before, dilation)
        y = tdnn(w, f"{block}.tdnn2", torch.cat(groups, dim=1))
        squeezed = y.mean(2, keepdim=True)
        squeezed = torch.relu(conv(w, f"{block}.se_block.conv1.conv", squeezed))
        x = x + y * torch.sigmoid(conv(w, f"{block}.se_block.conv2.conv", squeezed))
        outputs.append(x)
    x = tdnn(w, f"{prefix}.mfa", torch.cat(outputs, dim=1))
    mean, std = x.mean(2, keepdim=True), x.std(2, correction=0, keepdim=True)
    context = torch.cat([x, mean.expand_as(x), std.expand_as(x)], dim=1)
    hidden = torch.tanh(tdnn(w, f"{prefix}.asp.tdnn", context))
    weights = torch.softmax(conv(w, f"{prefix}.asp.conv.conv", hidden), dim=2)
    mean = (weights * x).sum(2)
    std = ((weights * x**2).sum(2) - mean**2).clamp(min=1e-12).sqrt()
    pooled = norm(w, f"{prefix}.asp_bn.norm", torch.cat([mean, std], dim=1))
    return conv(w, f"{prefix}.fc.conv", pooled.unsqueeze(2)).squeeze(2)


def cosines(x, centers):
    """Of vectors (batch, dim) with speakers (dim, speaker)."""
    return (x / x.norm(dim=1, keepdim=True)) @ (centers / centers.norm(dim=0))


def ecapa_cosines(w, frames, embed=ecapa):
    return cosines(embed(w, frames), w["classifier.weight"][0])


def aam_softmax(cosine, labels, margin=0.2, scale=30):
    target = F.one_hot(labels, N_SPEAKERS).bool()
    with_margin = torch.cos(torch.acos(cosine) + margin)
    assert (cosine[target] > -math.cos(margin)).all()  # the margin's usual branch
    return F.cross_entropy(scale * torch.where(target, with_margin, cosine), labels)


def small_ecapa():
    return MaskedECAPA(
        CHANNELS,
        channels=[16, 16, 16, 16, 48],
        attention_channels=8,
        res2net_scale=4,
        se_channels=8,
        lin_neurons=EMB_DIM,
    )


# SUPERB (arXiv 2105.01051): a softmax weight for each layer, before either


def superb(w, hidden_states, embed):
    weights = torch.softmax(w["model.layer_pooling.weights"], dim=0)
    frames = torch.einsum("l,lbtc->btc", weights, hidden_states)
    return embed(w, frames, "model.embedding_model")


@pytest.mark.parametrize("with_layers", [False, True], ids=["frames", "SUPERB"])
@pytest.mark.parametrize("system", ["x-vector", "ECAPA-TDNN"])
def test_baselines_train_as_their_equations(system, with_layers):
    torch.manual_seed(0)
    if system == "x-vector":
        model, classifier, loss = small_xvector(), xvector_classifier(), "softmax"
        reference, embed, reference_loss = xvector_logits, xvector, F.cross_entropy
    else:
        classifier = SubCenterClassifier(EMB_DIM, N_SPEAKERS, n_subcenters=1)
        model, loss = small_ecapa(), "aam-softmax"
        reference, embed, reference_loss = ecapa_cosines, ecapa, aam_softmax
    layers = ()
    if with_layers:
        layers = (3,)
        model = LayerPooled(WeightedLayerSum(*layers), model)
        with torch.no_grad():
            model.layer_pooling.weights.copy_(torch.randn(layers))
        embed = functools.partial(superb, embed=embed)
    assert_same_steps(
        model,
        classifier,
        speaker_loss(loss),
        functools.partial(reference, embed=embed),
        reference_loss,
        layers,
    )


# VGG with self multi-head attention (arXiv 1906.09890), softmax; with double
# attention (arXiv 2007.13199), AM-softmax


def vgg(w, frames):
    x = frames.unsqueeze(1)
    for block in range(3):
        for layer in range(2):
            name = f"model.encoder.blocks.{block}.{layer}"
            kernel, bias = w[f"{name}.weight"], w[f"{name}.bias"]
            x = torch.relu(F.conv2d(x, kernel, bias, padding=1))
        x = F.max_pool2d(x, 2, ceil_mode=True)
    return x.transpose(1, 2).flatten(2)


def multi_head(query, frames):
    """Equations 1 to 3, head by head; query (head, 1, channel of a head)."""
    pooled = []
    for u, h in zip(query, frames.chunk(len(query), dim=2)):
        scores = torch.exp(h @ u[0])
        weights = scores / scores.sum(1, keepdim=True)
        pooled.append((weights.unsqueeze(2) * h).sum(1))
    return torch.stack(pooled, dim=1)


def embed_vgg(w, pooled):
    x = torch.relu(linear(w, "model.fc1", pooled))
    return norm(w, "model.emb_norm", torch.relu(linear(w, "model.fc2", x)))


def mha_logits(w, frames):
    pooled = multi_head(w["model.pooling.query"], vgg(w, frames)).flatten(1)
    x = torch.relu(linear(w, "classifier.fc", embed_vgg(w, pooled)))
    return linear(w, "classifier.speakers", norm(w, "classifier.norm", x))


def double_mha_cosines(w, frames):
    heads = multi_head(w["model.pooling.of_frames.query"], vgg(w, frames))
    pooled = multi_head(w["model.pooling.of_heads.query"], heads).flatten(1)
    x = linear(w, "classifier.fc", embed_vgg(w, pooled))
    return cosines(x, w["classifier.speakers.weight"].T)


def am_softmax(cosine, labels, margin=0.4, scale=30):
    return F.cross_entropy(
        scale * (cosine - margin * F.one_hot(labels, N_SPEAKERS)), labels
    )


@pytest.mark.parametrize("double", [False, True], ids=["MHA", "double MHA"])
def test_mha_trains_as_its_equations(double):
    torch.manual_seed(0)
    pooling_class = DoubleMultiHeadAttnPooling if double else MultiHeadAttnPooling
    pooling = pooling_class(16, n_heads=4)
    model = VGGEmbedding(pooling, pooling.out_channels, CHANNELS, (4, 8, 16), EMB_DIM)
    loss = "am-softmax" if double else "softmax"
    assert_same_steps(
        model,
        ProjectedClassifier(EMB_DIM, N_SPEAKERS, loss),
        speaker_loss(loss, margin=0.4),
        double_mha_cosines if double else mha_logits,
        am_softmax if double else F.cross_entropy,
    )


@pytest.mark.parametrize("loss", ["softmax", "am-softmax"])
def test_mha_weights_are_drawn_as_by_the_authors_code(loss):
    """Widths of their draws: PyTorch's own, Xavier's normal for queries and centers."""
    torch.manual_seed(0)
    pooling = MultiHeadAttnPooling(640, n_heads=8)
    model = VGGEmbedding(pooling, 640, 40, (32, 64, 128), emb_dim=200)
    classifier = ProjectedClassifier(200, 300, loss)
    uniform = {
        model.encoder.blocks[1][0].weight: (32 * 9) ** -0.5,
        model.fc1.weight: 640**-0.5,
        model.fc2.bias: 200**-0.5,
        classifier.fc.weight: 200**-0.5,
    }
    normal = {pooling.query: math.sqrt(2 / (80 + 8))}
    if loss == "softmax":
        uniform[classifier.speakers.weight] = 200**-0.5
        uniform[classifier.speakers.bias] = 200**-0.5
    else:
        normal[classifier.speakers.weight] = math.sqrt(2 / (200 + 300))
        assert classifier.speakers.bias is None
    for weight, width in uniform.items():
        assert 0.95 * width < weight.abs().max() <= width
        assert weight.std().item() == pytest.approx(width / math.sqrt(3), rel=0.1)
    for weight, deviation in normal.items():
        assert weight.std().item() == pytest.approx(deviation, rel=0.1)
        assert weight.abs().max() > 2.5 * deviation
