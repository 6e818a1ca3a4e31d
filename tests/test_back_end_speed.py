"""What makes the back ends fast and small changes nothing of what they compute."""

import copy

import pytest
import torch
from torch import nn

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
