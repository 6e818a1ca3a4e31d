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
    with torch.no_grad():
        embeddings = model.eval()(tensors["inputs"][0].permute(order)).squeeze(1)
    similarity = torch.cosine_similarity(embeddings, tensors["embedding_after"])
    assert similarity.min() > 0.9999


def test_ltdnn_trains_as_the_authors_code(reference):
    tensors = reference("ltdnn_training.safetensors")
    initial = group(tensors, "init.")
    classifier = SubCenterClassifier(12, 10, n_subcenters=1)
    classifier.weight.data = initial.pop(CLASSIFIER).clone()
    model = without_dropout(ltdnn_from_official(initial, n_heads=4, unbiased=True))
    order = (2, 0, 3, 1)  # to (layer, batch, time, channel)
    losses, rates, norms = train(
        model,
        classifier,
        LogSoftmaxWrapper(AdditiveAngularMargin(margin=0.2, scale=30)),
        tensors,
        order,
        torch.optim.Adam,
        # With its cycle of Adam's momentum
        functools.partial(
            torch.optim.lr_scheduler.OneCycleLR,
            max_lr=0.003, total_steps=8, pct_start=0.25,
        ),
        clip=5.0,
    )  # fmt: skip
    expected = tensors["losses"]
    torch.testing.assert_close(losses[:5], expected[:5], rtol=1e-5, atol=0)
    # Rounding tells from the sixth step on: so do one and two threads differ.
    torch.testing.assert_close(losses, expected, rtol=2e-4, atol=0)
    torch.testing.assert_close(rates, tensors["learning_rates"])
    torch.testing.assert_close(norms, tensors["grad_norms"], rtol=1e-3, atol=0)
    assert_close_to(model, classifier, tensors, official_ltdnn_name, order)


def test_lap_trains_as_the_authors_code(reference):
    tensors = reference("lap_training.safetensors")
    initial = group(tensors, "init.")
    classifier = SubCenterClassifier(10, 12, n_subcenters=3)
    classifier.weight.data = initial.pop(CLASSIFIER).clone()
    model = without_dropout(lap_astp_from_official(initial, n_heads=4))
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
    assert (losses - tensors["losses"]).abs().max() < 1e-5
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
