"""Which floating-point precision pays on a device, by measurement.

A processor with AMX or AVX512-BF16 multiplies matrices faster in bfloat16 than
in float32. Others emulate bfloat16, and are tens of times slower in it.
"""

import contextlib
import functools
import time

import torch
from speechbrain.utils.logger import get_logger

from speechbrain_ext.utils.distributed import in_all_processes

logger = get_logger(__name__)

SIZE = 384
SECONDS = 0.04
# Those in which autocast computes, by SpeechBrain's names
HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# Casts take time too: a product must be so much faster for bfloat16 to pay.
GAIN = 1.5


def matrix_rate(dtype: torch.dtype, device: str | torch.device = "cpu") -> float:
    """Floating-point operations a second in a product of two small matrices.

    Arguments
    ---------
    dtype : torch.dtype
        Type of the matrices.
    device : str or torch.device
        Where to multiply.

    Returns
    -------
    float
        FLOP/s, the best of the products of 0.04 s, measured once in a process for
        each type, device and number of threads.

    Example
    -------
    >>> matrix_rate(torch.float32) > 0
    True
    """
    return _matrix_rate(dtype, str(device), torch.get_num_threads())


@functools.lru_cache(maxsize=None)
def _matrix_rate(dtype, device, n_threads):
    del n_threads  # for the cache alone
    matrix = torch.ones(SIZE, SIZE, dtype=dtype, device=device)
    is_cuda = torch.device(device).type == "cuda"
    best, spent = float("inf"), 0.0
    while spent < SECONDS:
        start = time.perf_counter()
        matrix @ matrix
        if is_cuda:
            torch.cuda.synchronize(device)
        elapsed = time.perf_counter() - start
        best, spent = min(best, elapsed), spent + elapsed
    return 2 * SIZE**3 / best


def bf16_pays(device: str | torch.device = "cpu") -> bool:
    """Whether bfloat16 is faster than float32 on a device.

    Arguments
    ---------
    device : str or torch.device
        A GPU is asked whether it has bfloat16, a processor is measured, and on
        other devices it is not known to pay.

    Returns
    -------
    bool
        Whether it is.

    Example
    -------
    >>> bf16_pays("meta")
    False
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if kind != "cpu":
        return False
    rates = [matrix_rate(dtype) for dtype in (torch.bfloat16, torch.float32)]
    return rates[0] >= GAIN * rates[1]


def choose_precision(
    asked: str, device: str | torch.device, key: str = "precision"
) -> str:
    """The precision to compute in, by SpeechBrain's name.

    Under torchrun all processes must ask; they get the same precision.

    Arguments
    ---------
    asked : str
        "fp32", "fp16", "bf16" or "auto": bfloat16 where it pays, else float32.
        Where "bf16" is asked for and slow, a warning says so.
    device : str or torch.device
        Where to compute.
    key : str
        Name of the setting, for the log.

    Returns
    -------
    str
        "fp32", "fp16" or "bf16".

    Example
    -------
    >>> choose_precision("fp32", "cpu")
    'fp32'
    >>> choose_precision("auto", "meta")
    'fp32'
    """
    on_cpu = torch.device(device).type == "cpu"
    if asked == "auto":
        chosen = "bf16" if in_all_processes(bf16_pays(device)) else "fp32"
        why = f": {_rates()}" if on_cpu else ""
        logger.info(f"{key} auto is {chosen} on {device}{why}")
        return chosen
    if asked == "bf16" and on_cpu and not bf16_pays(device):
        logger.warning(
            f"{key} bf16 is slow on this processor: {_rates()}; "
            f"give --{key} auto, or fp32"
        )
    return asked


def computing_in(
    precision: str, device: str | torch.device
) -> contextlib.AbstractContextManager:
    """A block that computes in a precision.

    Arguments
    ---------
    precision : str
        "fp16" or "bf16", by autocast; "fp32" leaves what is set.
    device : str or torch.device
        Where to compute.

    Returns
    -------
    context manager
        The block.

    Example
    -------
    >>> with computing_in("bf16", "cpu"):
    ...     torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype
    torch.bfloat16
    """
    if precision == "fp32":
        return contextlib.nullcontext()
    return torch.autocast(torch.device(device).type, HALVES[precision])


def _rates():
    bf16, fp32 = (matrix_rate(dtype) / 1e9 for dtype in (torch.bfloat16, torch.float32))
    return f"a matrix product runs at {bf16:.3g} GFLOP/s in bf16, {fp32:.3g} in fp32"
