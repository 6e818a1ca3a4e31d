"""Activations that are computed again in the backward pass, in place of kept ones."""

import contextlib

import torch
from torch.utils.checkpoint import checkpoint

from speechbrain_ext.nnet.masking import is_traced


def with_recomputation(module, function, *inputs):
    """Calls a function; with recomputation, only its inputs are kept for training.

    The backward pass calls it once more, up to the last thing that it needs.
    Gradients are the same, dropout draws the same, and running statistics of batch
    norms move once.

    Arguments
    ---------
    module : torch.nn.Module
        The module that the function belongs to, whose attribute `recompute` says
        whether anything is computed again.
    function : callable
        What to call.
    *inputs
        Its arguments.

    Returns
    -------
    torch.Tensor
        What the function returns.

    Example
    -------
    >>> norm = torch.nn.BatchNorm1d(3)
    >>> norm.recompute = True
    >>> with_recomputation(norm, norm, torch.rand(4, 3)).sum().backward()
    >>> norm.num_batches_tracked
    tensor(1)
    """
    if not module.recompute or not torch.is_grad_enabled() or is_traced():
        return function(*inputs)

    def contexts():
        return contextlib.nullcontext(), _keep_buffers(module)

    return checkpoint(function, *inputs, use_reentrant=False, context_fn=contexts)


@contextlib.contextmanager
def _keep_buffers(module):
    """Leaves buffers as they are, such as running statistics: copies move."""
    buffers = [
        (owner, name, buffer)
        for owner in module.modules()
        for name, buffer in owner.named_buffers(recurse=False)
    ]
    for owner, name, buffer in buffers:
        setattr(owner, name, buffer.clone())
    try:
        yield
    finally:
        for owner, name, buffer in buffers:
            setattr(owner, name, buffer)
