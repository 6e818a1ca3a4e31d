"""First steps of a training against the authors' code, and how weights are drawn."""

import functools
import math

import pytest
import torch
from speechbrain.nnet.losses import AdditiveAngularMargin, LogSoftmaxWrapper

from speechbrain_ext.lobes.models.lap import LAP_ASTP
from speechbrain_ext.lobes.models.ltdnn import LTDNN
from speechbrain_ext.lobes.official_checkpoints import (
    lap_astp_from_official,
    ltdnn_from_official,
    official_lap_astp_name,
    official_ltdnn_name,
)
from speechbrain_ext.nnet.losses import InterTopKAAM, SubCenterClassifier
from speechbrain_ext.nnet.pooling import MultiHeadAttnPooling

LTDNN_SIZES = {
    "in_channels": 24, "n_layers": 5, "conv_channels": 16, "pooled_channels": 24,
    "emb_dim": 12, "n_heads": 4,
}  # fmt: skip
LAP_SIZES = {
    "in_channels": 24, "n_layers": 6, "pooled_channels": 20, "emb_dim": 10,
    "n_heads": 4,
}  # fmt: skip
CLASSIFIER = "aam_softmax.weight"
LAYERS_FIRST = (2, 0, 3, 1)  # from (batch, channel, layer, time)


def group(tensors, prefix):
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix)
    }


def without_dropout(model):
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model.train()


def train(model, classifier, loss, tensors, order, optimizer, schedule, clip):
    """Losses, learning rates and gradient norms of one step for each batch."""
    parameters = [*model.parameters(), *classifier.parameters()]
    optimizer = optimizer(parameters)
    schedule = schedule(optimizer)
    steps = []
    for inputs, labels in zip(tensors["inputs"], tensors["labels"]):
        value = loss(classifier(model(inputs.permute(order))), labels.unsqueeze(1))
        optimizer.zero_grad()
        value.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, clip)
        steps.append((value.item(), optimizer.param_groups[0]["lr"], norm.item()))
        optimizer.step()
        schedule.step()
    return torch.tensor(steps, dtype=torch.float64).unbind(1)


def assert_close_to(model, classifier, tensors, official_name, order):
    final = group(tensors, "final.")
    parameters = {
        official_name(name): value
        for name, value in model.named_parameters()
        # Of biases before a batch norm Adam follows the rounding
        if not name.endswith("bias")
    }
    parameters[CLASSIFIER] = classifier.weight
    for name, value in parameters.items():
        torch.testing.assert_close(value, final[name], atol=2e-3, rtol=0)
        assert (value - final[name]).abs().mean() < 2e-4, name
    if tensors["inputs"].dtype == torch.float32:
        return
    # Not in float32: there Adam follows the rounding of biases before a batch norm, to
    # which the running means answer with a delay. Another order of summation moves
    # embeddings by 2e-4; in float64 those gradients are too small for Adam.
    with torch.no_grad():
        embeddings = model.eval()(tensors["inputs"][0].permute(order)).squeeze(1)
    similarity = torch.cosine_similarity(embeddings, tensors["embedding_after"])
    assert similarity.min() > 0.9999


def train_ltdnn(tensors, hook=None):
    """Model and classifier after the fixture's eight steps, and what they gave."""
    dtype = tensors["inputs"].dtype
    initial = group(tensors, "init.")
    classifier = SubCenterClassifier(12, 10, n_subcenters=1).to(dtype)
    classifier.weight.data = initial.pop(CLASSIFIER).clone()
    model = ltdnn_from_official(initial, n_heads=4, unbiased=True).to(dtype)
    model = without_dropout(model)
    if hook is not None:
        model.convolutions.fusion.register_forward_hook(hook)
    steps = train(
        model,
        classifier,
        LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30)),
        tensors,
        LAYERS_FIRST,
        torch.optim.Adam,
        # With its cycle of Adam's momentum
        functools.partial(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=0.003, total_steps=8, pct_start=0.25,
        ),
        clip=5.0,
    )  # fmt: skip
    return model, classifier, *steps


def in_double(tensors):
    return {
        name: value.double() if value.is_floating_point() else value
        for name, value in tensors.items()
    }


def test_ltdnn_trains_as_the_authors_code(reference):
    tensors = reference("ltdnn_training.safetensors")
    model, classifier, losses, rates, _ = train_ltdnn(tensors)
    expected = tensors["losses"]
    torch.testing.assert_close(losses[:5], expected[:5], rtol=1e-5, atol=0)
    # From here on it tells on which side of zero float32 leaves an input of a ReLU:
    # so do one and two threads differ, and see the next test.
    torch.testing.assert_close(losses, expected, rtol=2e-4, atol=0)
    torch.testing.assert_close(rates, tensors["learning_rates"])
    assert_close_to(model, classifier, tensors, official_ltdnn_name, LAYERS_FIRST)


def test_ltdnn_trains_as_the_authors_code_but_for_the_side_of_a_relu(reference):
    """In float64 one input decides between 3e-5 and 2e-6 of the authors' losses."""
    tensors = in_double(reference("ltdnn_training.safetensors"))
    expected, expected_norms = tensors["losses"], tensors["grad_norms"]
    model, classifier, losses, _, norms = train_ltdnn(tensors)
    assert_close_to(model, classifier, tensors, official_ltdnn_name, LAYERS_FIRST)
    torch.testing.assert_close(losses[:5], expected[:5], rtol=3e-6, atol=0)
    torch.testing.assert_close(losses, expected, rtol=4e-5, atol=0)
    torch.testing.assert_close(norms, expected_norms, rtol=5e-4, atol=0)

    calls = []

    def other_side_in_the_fifth_step(module, inputs, output):
        calls.append(output.shape)
        if len(calls) != 5:
            return output
        nearest = output.abs().flatten().argmin()
        change = torch.zeros_like(output)
        change.view(-1)[nearest] = -2 * output.flatten()[nearest]
        # What float32 cannot tell from zero among values about one
        assert 0 < change.abs().max() < 3e-7 < 1e-6 * output.abs().mean()
        return output + change.detach()

    _, _, losses, _, norms = train_ltdnn(tensors, other_side_in_the_fifth_step)
    assert len(calls) == 8
    torch.testing.assert_close(losses, expected, rtol=3e-6, atol=0)
    torch.testing.assert_close(norms, expected_norms, rtol=2e-4, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lap_trains_as_the_authors_code(reference, dtype):
    tensors = reference("lap_training.safetensors")
    if dtype == torch.float64:
        tensors = in_double(tensors)
    initial = group(tensors, "init.")
    classifier = SubCenterClassifier(10, 12, n_subcenters=3).to(dtype)
    classifier.weight.data = initial.pop(CLASSIFIER).clone()
    model = without_dropout(lap_astp_from_official(initial, n_heads=4).to(dtype))
    order = (3, 0, 2, 1)
    losses, _, _ = train(
        model,
        classifier,
        InterTopKAAM(margin=0.3, top_k=5, penalty=0.06),
        tensors,
        order,
        functools.partial(torch.optim.Adam, lr=0.001, weight_decay=5e-5),
        functools.partial(torch.optim.lr_scheduler.ConstantLR, factor=1.0),
        clip=float("inf"),
    )
    torch.testing.assert_close(losses, tensors["losses"], rtol=1e-6, atol=0)
    assert_close_to(model, classifier, tensors, official_lap_astp_name, order)


@pytest.mark.parametrize(
    "file, model_class, sizes, official_name",
    [
        ("ltdnn_training.safetensors", LTDNN, LTDNN_SIZES, official_ltdnn_name),
        ("lap_training.safetensors", LAP_ASTP, LAP_SIZES, official_lap_astp_name),
    ],
    ids=["L-TDNN", "LAP"],
)
def test_weights_are_drawn_as_by_the_authors_code(
    reference, file, model_class, sizes, official_name
):
    """Uniform draws of the same width: a tensor's maximum and deviation tell it."""
    drawn_by_authors = group(reference(file), "init.")
    torch.manual_seed(0)
    models = [model_class(**sizes) for _ in range(5)]
    for name, ours in models[0].named_parameters():
        theirs = drawn_by_authors[official_name(name)]
        ours = torch.stack([dict(model.named_parameters())[name] for model in models])
        if theirs.std() == 0:
            assert torch.equal(ours, theirs.expand_as(ours)), name
            continue
        n = theirs.numel()
        # What n draws reach of their width: 1 - 1 / n, give or take as much
        width = ours.abs().max()
        assert theirs.abs().max() <= 1.02 * width, name
        assert theirs.abs().max() >= (1 - 6 / n) * width, name
        # Five deviations of a uniform sample's variance
        tolerance = 5 * math.sqrt(0.8 / n)
        assert abs(theirs.var() / ours.var() - 1) < tolerance, name


@pytest.mark.parametrize("n_classes", [10, 1211])
def test_classifiers_are_drawn_as_by_the_authors_code(reference, n_classes):
    drawn = SubCenterClassifier(12, n_classes, n_subcenters=1).weight
    width = math.sqrt(6 / (12 * n_classes + n_classes))
    assert 0.97 * width < drawn.abs().max() <= width
    if n_classes == 10:
        theirs = reference("ltdnn_training.safetensors")["init." + CLASSIFIER]
        assert theirs.shape == drawn.shape
        assert 0.97 * width < theirs.abs().max() <= width


def test_queries_of_heads_are_drawn_as_one_matrix():
    torch.manual_seed(0)
    query = MultiHeadAttnPooling(2048, n_heads=32, n_queries=2).query
    expected = math.sqrt(2 / (64 + 32))
    assert query.std().item() == pytest.approx(expected, rel=0.05)
