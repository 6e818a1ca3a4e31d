"""A batch on each core of a processor.

A product of matrices of one utterance is too small to be shared well by the cores, and
what lies between the products is hardly shared at all. With a batch of its own each
core is busy, and a batch is rounded in the same way whatever their number.
"""

import copy
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch

from speechbrain_ext.nnet.derived import Derived

SECONDS_IN_CACHE = 10.0  # of speech, whose activations a core's share of a cache holds


def fitting_duration(module: torch.nn.Module, max_batch_duration: float) -> float:
    """Seconds of speech that a batch should have at the most.

    Arguments
    ---------
    module : torch.nn.Module
        What computes the batch.
    max_batch_duration : float
        Seconds that the user allows.

    Returns
    -------
    float
        Those; fewer on a processor, where a larger batch only takes longer.

    Example
    -------
    >>> fitting_duration(torch.nn.Linear(2, 2), 120.0)
    10.0
    """
    if not _is_on_processor(module):
        return max_batch_duration
    return min(max_batch_duration, SECONDS_IN_CACHE)


def on_each_core(
    compute: Callable[[torch.nn.Module, Any], Any],
    module: torch.nn.Module,
    batches: Iterable,
    n_batches: int,
) -> Iterator[tuple[Any, Any]]:
    """Computes batches, on a processor as many at once as PyTorch has threads.

    Fewer batches than threads come one by one, with all threads for each. Autocast and
    the recording of gradients are as where this is called.

    Arguments
    ---------
    compute : callable
        From the module, or a copy that has the same parameters and buffers, and a batch
        to the result.
    module : torch.nn.Module
        The module, in evaluation.
    batches : iterable
        The batches, read as they are needed.
    n_batches : int
        How many there are.

    Yields
    ------
    tuple
        A batch and its result, in the order of the batches.

    Example
    -------
    >>> double = lambda module, x: module(2 * x)
    >>> batches = torch.rand(5, 3)
    >>> results = on_each_core(double, torch.nn.ReLU(), batches, 5)
    >>> all(torch.equal(result, 2 * batch) for batch, result in results)
    True
    """
    n_threads = torch.get_num_threads()
    if not _is_on_processor(module) or n_threads == 1 or n_batches < n_threads:
        for batch in batches:
            yield batch, compute(module, batch)
        return
    idle = [module, *(_copy_with_tensors_of(module) for _ in range(n_threads - 1))]
    has_gradients, autocast = torch.is_grad_enabled(), torch.is_autocast_enabled("cpu")
    dtype, inference = (
        torch.get_autocast_dtype("cpu"),
        torch.is_inference_mode_enabled(),
    )

    def compute_alone(batch):
        own = idle.pop()
        try:
            with (
                torch.inference_mode(inference),
                torch.set_grad_enabled(has_gradients),
                torch.autocast("cpu", dtype, enabled=autocast),
            ):
                return compute(own, batch)
        finally:
            idle.append(own)

    pool = ThreadPoolExecutor(
        n_threads, initializer=torch.set_num_threads, initargs=(1,)
    )
    running = deque()
    try:
        for batch in batches:
            running.append((batch, pool.submit(compute_alone, batch)))
            # One more than there are threads waits, so that none of them does.
            if len(running) > n_threads:
                batch, result = running.popleft()
                yield batch, result.result()
        for batch, result in running:
            yield batch, result.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _is_on_processor(module):
    return all(parameter.device.type == "cpu" for parameter in module.parameters())


def _copy_with_tensors_of(module):
    """What a forward pass notes on modules must not be of another thread's pass.

    Tensors, what follows from them and what the outermost module keeps beside its
    parts, such as a gallery, are shared.
    """
    derived = [
        value
        for part in module.modules()
        for value in vars(part).values()
        if isinstance(value, Derived)
    ]
    shared = [*module.parameters(), *module.buffers(), *derived]
    memo = {id(value): value for value in shared}
    # Hooks that are methods of the module become those of its copy.
    own = memo[id(module)] = copy.copy(module)
    own._modules = copy.deepcopy(module._modules, memo)
    return own
