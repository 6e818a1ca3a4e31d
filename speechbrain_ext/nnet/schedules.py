"""Schedules of the learning rate, as torch.optim takes them."""

from torch.optim.lr_scheduler import (
    ConstantLR,
    ExponentialLR,
    LinearLR,
    SequentialLR,
)


def tri_stage(
    optimizer, max_lr, n_steps, start_lr=5e-6, final_lr=5e-6, warmup=0.1, hold=0.4
):
    """A rate that rises linearly, stays, and falls exponentially.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Gets the rates.
    max_lr : float
        The rate that stays.
    n_steps : int
        Optimiser steps.
    start_lr : float
        Rate of the first step.
    final_lr : float
        Rate of the last step.
    warmup : float
        Share of the steps in which it rises.
    hold : float
        Share of the steps in which it stays.

    Returns
    -------
    torch.optim.lr_scheduler.SequentialLR
        The scheduler, to be called after each step.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    >>> schedule = tri_stage(optimizer, 1.0, 10, start_lr=0.5, final_lr=0.01)
    >>> rates = []
    >>> for _ in range(11):
    ...     rates.append(round(optimizer.param_groups[0]["lr"], 2))
    ...     optimizer.step(), schedule.step()
    (...)
    >>> rates
    [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.4, 0.16, 0.06, 0.03, 0.01]
    """
    for group in optimizer.param_groups:
        group["lr"] = max_lr
    rise, stay = max(1, round(warmup * n_steps)), round(hold * n_steps)
    fall = max(1, n_steps - rise - stay)
    return SequentialLR(
        optimizer,
        [
            LinearLR(optimizer, start_lr / max_lr, total_iters=rise),
            ConstantLR(optimizer, 1.0),
            ExponentialLR(optimizer, (final_lr / max_lr) ** (1 / fall)),
        ],
        milestones=[rise, rise + stay],
    )


def constant(optimizer, lr):
    """A rate that stays.

    Arguments
    ---------
    optimizer : torch.optim.Optimizer
        Gets the rate.
    lr : float
        The rate.

    Returns
    -------
    torch.optim.lr_scheduler.ConstantLR
        The scheduler, to be called after each step.

    Example
    -------
    >>> import torch
    >>> optimizer = torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
    >>> schedule = constant(optimizer, 0.5)
    >>> optimizer.step(), schedule.step()
    (None, None)
    >>> optimizer.param_groups[0]["lr"]
    0.5
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    return ConstantLR(optimizer, 1.0)
