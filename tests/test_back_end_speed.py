"""What makes the back ends fast and small changes nothing of what they compute."""

import copy

import pytest
import torch
from torch import nn

from speechbrain_ext.lobes import LAP_ASTP, LTDNN
from speechbrain_ext.nnet.masking import masked_batch_norm, zero_padding
from speechbrain_ext.nnet.normalised_convolution import convolve_normalised


def one_after_the_other(norm, conv, x, mask):
    return conv(zero_padding(masked_batch_norm(norm, x, mask), mask))


def layers(kernel_size, bias=True):
    torch.manual_seed(0)
    padding = tuple((size - 1) // 2 for size in kernel_size)
    norm = nn.BatchNorm2d(6)
    for value in (norm.weight, norm.bias, norm.running_mean):
        nn.init.uniform_(value, -1, 1)
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return nn.ModuleList(
        [norm, nn.Conv2d(6, 4, kernel_size, bias=bias, padding=padding)]
    )


MASKS = {
    "unpadded": None,
    "padded": torch.arange(11) < torch.tensor([[11], [5], [1]]),
}


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("mask", MASKS.values(), ids=MASKS.keys())
@pytest.mark.parametrize(
    "kernel_size, bias", [((5, 3), True), ((1, 1), True), ((1, 1), False)]
)
def test_convolution_of_a_batch_norm_is_that_of_the_plain_layers(
    kernel_size, bias, mask, training
):
    plain = layers(kernel_size, bias).double().train(training)
    spared = copy.deepcopy(plain)
    x = 3 * torch.randn(3, 6, 5, 11, dtype=torch.float64) + 5
    expected = one_after_the_other(*plain, x, mask)
    output = convolve_normalised(*spared, x, mask)
    valid = torch.ones_like(output)
    if mask is not None:
        valid = valid * mask[:, None, None]
    torch.testing.assert_close(output * valid, expected * valid)
    weights = torch.randn_like(output) * valid
    (output * weights).sum().backward()
    (expected * weights).sum().backward()
    for (name, theirs), ours in zip(plain.named_parameters(), spared.parameters()):
        assert theirs.grad.abs().max() > 0
        torch.testing.assert_close(ours.grad, theirs.grad, msg=name)
    for (name, theirs), ours in zip(plain.named_buffers(), spared.buffers()):
        torch.testing.assert_close(ours, theirs, msg=name)


@pytest.mark.parametrize("trained", ["input", "parameters", "nothing"])
def test_no_gradient_of_a_map_that_needs_none(trained):
    norm, conv = layers((5, 3))
    x = torch.randn(3, 6, 5, 11, requires_grad=trained == "input")
    with torch.set_grad_enabled(trained != "nothing"):
        y = convolve_normalised(norm, conv, x)
    computed = []
    functions = [y.grad_fn]
    while functions:
        function = functions.pop()
        if function is not None:
            computed.append(function.name())
            functions += [below for below, _ in function.next_functions]
    of_norm = any("BatchNorm" in name for name in computed)
    assert of_norm == (trained == "input")
    assert bool(computed) == (trained != "nothing")
    if trained == "input":
        theirs = x.detach().clone().requires_grad_()
        other_norm, other_conv = layers((5, 3))
        one_after_the_other(
            other_norm, other_conv, theirs, None
        ).square().sum().backward()
        y.square().sum().backward()
        torch.testing.assert_close(x.grad, theirs.grad)


def back_end(kind, recompute):
    torch.manual_seed(0)
    sizes = {"in_channels": 24, "n_layers": 5, "pooled_channels": 24, "n_heads": 4}
    if kind is LTDNN:
        sizes["conv_channels"] = 16
    return kind(**sizes, recompute=recompute).train()


@pytest.mark.parametrize("needs_gradient", [False, True], ids=["frozen", "joint"])
@pytest.mark.parametrize("lengths", [[1.0, 1.0, 1.0], [1.0, 0.5, 0.2]])
@pytest.mark.parametrize("kind", [LTDNN, LAP_ASTP])
def test_recomputation_changes_neither_gradients_nor_statistics(
    kind, lengths, needs_gradient
):
    """Dropout draws the same, and running statistics move once, in two steps."""
    results = []
    for recompute in (False, True):
        model = back_end(kind, recompute)
        torch.manual_seed(1)
        x = torch.randn(5, 3, 20, 24, requires_grad=needs_gradient)
        for _ in range(2):
            model(x, torch.tensor(lengths)).square().sum().backward()
        results.append(
            {
                **{name: p.grad for name, p in model.named_parameters()},
                **dict(model.named_buffers()),
                **({"input": x.grad} if needs_gradient else {}),
            }
        )
    kept, recomputed = results
    assert kept.keys() == recomputed.keys()
    for name, value in kept.items():
        torch.testing.assert_close(recomputed[name], value, rtol=1e-6, atol=0, msg=name)
    assert kept["layer_pooling.in_norm.num_batches_tracked"] == 2


@pytest.mark.parametrize("kind, share", [(LTDNN, 0.5), (LAP_ASTP, 0.85)])
def test_recomputation_keeps_less(kind, share):
    """Of what autograd keeps between the passes, parameters left out."""
    kept = []
    for recompute in (False, True):
        model = back_end(kind, recompute)
        x = torch.randn(5, 3, 60, 24)
        own = {t.data_ptr() for t in [x, *model.parameters(), *model.buffers()]}
        storages = {}

        def note(tensor, own=own, storages=storages):
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                storages[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            output = model(x)
        kept.append(sum(storages.values()))
        del output
    assert kept[1] < share * kept[0]


@pytest.mark.parametrize("kind", [LTDNN, LAP_ASTP])
def test_training_and_evaluation_take_the_same_maximum(kind):
    """With a gradient only the winning layer is gathered; without, all are weighed."""
    model = back_end(kind, recompute=False).eval()
    x = torch.randn(5, 3, 20, 24)
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(model(x).detach(), expected)
