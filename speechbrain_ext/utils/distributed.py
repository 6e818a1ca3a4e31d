"""Several processes that go on together or stop together."""

import contextlib
import datetime
import functools

import torch
from speechbrain.utils.distributed import (
    MainProcessContext,
    ddp_prevent_block,
    if_main_process,
    infer_device,
    is_distributed_initialized,
)

from speechbrain_ext.utils.errors import InputError

# For a process that prepares a corpus, encodes it or waits for another training; the
# exchanges of a training step give up after minutes.
PATIENCE = datetime.timedelta(days=7)


@functools.lru_cache(maxsize=1)
def _patient_group(world):
    """A second group of all processes, which waits as long as the work takes.

    By gloo, which notices at once where a process has ended.
    """
    return torch.distributed.new_group(backend="gloo", timeout=PATIENCE)


def _gathered(own):
    """An object of each process, for the slowest of which the others wait."""
    group = _patient_group(torch.distributed.group.WORLD)
    objects = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(objects, own, group=group)
    return objects


@contextlib.contextmanager
def together():
    """A block after which all processes go on or, if it fails in one, none.

    Without it, the processes in which it did not fail wait for the others at
    the next exchange, for hours or for ever. A process that has done its part waits
    for the others as long as theirs takes. The block itself must not exchange anything.

    Raises
    ------
    InputError, OSError or RuntimeError
        In the processes where the block succeeded, if it failed in another
        one; an error that is neither of the first two becomes the third.

    Example
    -------
    >>> with together():
    ...     number = 1
    """
    error = None
    if not ddp_prevent_block():
        # Now that no process waits for another one's work
        _patient_group(torch.distributed.group.WORLD)
    try:
        yield
    except Exception as raised:
        error = raised
    failures = []
    if not ddp_prevent_block():
        kinds = [k for k in (InputError, OSError) if isinstance(error, k)]
        failure = None if error is None else ([*kinds, RuntimeError][0], str(error))
        failures = _gathered(failure)
    if error is not None:
        raise error
    for failure in filter(None, failures):
        kind, message = failure
        raise kind(message)


def on_main_process(function, *args, **kwargs):
    """Calls a function in the main process, for which the others wait.

    As `speechbrain.utils.distributed.run_on_main`, but an error stops all
    processes.

    Arguments
    ---------
    function : callable
        What to call.
    *args
        For the function.
    **kwargs
        Keyword arguments of the function.

    Raises
    ------
    InputError, OSError or RuntimeError
        In the other processes, as of `together`.

    Example
    -------
    >>> on_main_process(print, "once")
    once
    """
    with together():
        if if_main_process():
            with MainProcessContext():
                function(*args, **kwargs)


def in_all_processes(condition):
    """Whether a condition holds in every process, which all of them learn.

    Arguments
    ---------
    condition : bool
        Whether it holds in this one.

    Returns
    -------
    bool
        Whether it does.

    Example
    -------
    >>> in_all_processes(True)
    True
    """
    if ddp_prevent_block():
        return bool(condition)
    device = "cuda" if torch.distributed.get_backend() == "nccl" else "cpu"
    everywhere = torch.tensor(int(condition), device=device)
    torch.distributed.all_reduce(everywhere, torch.distributed.ReduceOp.MIN)
    return bool(everywhere)


def rank_and_processes():
    """The number of this process and how many train together.

    Returns
    -------
    rank : int
        Number of the process, from 0.
    n_processes : int
        1 without torchrun.

    Example
    -------
    >>> rank_and_processes()
    (0, 1)
    """
    if not is_distributed_initialized():
        return 0, 1
    return torch.distributed.get_rank(), torch.distributed.get_world_size()


def union_of_processes(own):
    """What all processes have found, in each of them.

    Arguments
    ---------
    own : dict
        What this process has found.

    Returns
    -------
    dict
        That of all together.

    Example
    -------
    >>> union_of_processes({"anna/1.wav": 0.5})
    {'anna/1.wav': 0.5}
    """
    if ddp_prevent_block():
        return own
    return {name: found for part in _gathered(own) for name, found in part.items()}


def without_wrapper(module):
    """The module that `DistributedDataParallel` or `DataParallel` wraps.

    Arguments
    ---------
    module : torch.nn.Module
        Wrapped or not.

    Returns
    -------
    torch.nn.Module
        The module itself, with its own attributes.

    Example
    -------
    >>> layer = torch.nn.Linear(1, 1)
    >>> without_wrapper(torch.nn.DataParallel(layer)) is layer
    True
    """
    wrappers = (torch.nn.parallel.DistributedDataParallel, torch.nn.DataParallel)
    return module.module if isinstance(module, wrappers) else module


def check_device(device):
    """Refuses a device that PyTorch cannot use here.

    Arguments
    ---------
    device : str or torch.device
        The device.

    Raises
    ------
    InputError
        If there is no such device.

    Example
    -------
    >>> check_device("cpu")
    >>> check_device("cuda:99")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: device: PyTorch has no cuda:99 here; ...
    """
    try:
        asked = torch.device(device)
        if asked.type == "cuda":  # without a tensor, which takes memory of the GPU
            there = (asked.index or 0) < torch.cuda.device_count()
        else:
            there = torch.empty(1, device=asked) is not None
    except (RuntimeError, AssertionError, NotImplementedError):
        there = False
    if not there:
        raise InputError(
            f"device: PyTorch has no {device} here; give another --device, such as cpu "
            "(speechbrain-ext doctor names what there is)"
        )


def device_of(run_opts):
    """Device of SpeechBrain's options.

    Arguments
    ---------
    run_opts : dict or speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options; None for none.

    Returns
    -------
    str or torch.device
        The device; where none is given, the one that SpeechBrain finds.

    Raises
    ------
    InputError
        If there is no such device.

    Example
    -------
    >>> device_of({"device": "cpu"})
    'cpu'
    """
    given = run_opts or {}
    device = given.get("device") if isinstance(given, dict) else given.device
    device = device or infer_device()
    check_device(device)
    return device
