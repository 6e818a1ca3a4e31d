"""How weights are drawn before a training, where PyTorch's way is not the papers'."""

from torch import nn


def draw_by_xavier(module):
    """Draws weights uniformly by Xavier's rule and sets biases to zero.

    Fans are counted over a whole tensor, also where one tensor holds the
    matrices of several heads. Scales of norms, which have one dimension, stay.

    Arguments
    ---------
    module : torch.nn.Module
        Whose parameters are drawn anew; those named bias, or with a name that
        ends in _bias, are biases.

    Example
    -------
    >>> import torch
    >>> layer = nn.Linear(4, 2)
    >>> draw_by_xavier(layer)
    >>> layer.bias.tolist(), bool((layer.weight.abs() <= 1).all())
    ([0.0, 0.0], True)
    """
    for name, parameter in module.named_parameters():
        if name.split(".")[-1].endswith("bias"):
            nn.init.zeros_(parameter)
        elif parameter.dim() > 1:
            nn.init.xavier_uniform_(parameter)
