"""What all benchmarks share: alternated timings, floors, and how results are written.

A benchmark runs its jobs in turn, so that other work on the machine meets all of them,
and reports ratios of neighbouring runs. With one thread on a processor the clock is
the time of the processor, which other work changes little; otherwise it is that of
the wall. The floors (`Floors`) are measured in the same run.
"""

import argparse
import ctypes
import dataclasses
import datetime
import itertools
import json
import platform
import resource
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count
from tqdm import tqdm

ROOT = Path(__file__).resolve().parents[1]
MATRIX_SIZE = 1024
COPY_BYTES = 2**28
FLOOR_REPEATS = 5
SECONDS_WITHOUT_BAR = 10


def read_options(description: str, repeats: int, **defaults) -> argparse.Namespace:
    """The command line of a benchmark: its own settings, and those of all.

    Arguments
    ---------
    description : str
        What the benchmark does; its first line is shown.
    repeats : int
        How often each job is run where the user does not say.
    **defaults
        The benchmark's own settings, options of the types of their defaults; False is
        a switch.

    Returns
    -------
    argparse.Namespace
        Those settings, `repeats`, `threads`, `json` and `tiny`, for which the benchmark
        chooses its sizes. The number of threads is set.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name, default in defaults.items():
        if default is False:
            parser.add_argument(f"--{name}", action="store_true")
        else:
            parser.add_argument(f"--{name}", type=type(default), default=default)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", help="file to write the results to")
    parser.add_argument(
        "--tiny", action="store_true", help="smallest sizes: a test of the benchmark"
    )
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options


@dataclasses.dataclass
class Times:
    """Seconds of the repeated runs of a job, and what it returned.

    Arguments
    ---------
    wall : list of float
        By the wall clock.
    cpu : list of float
        Of the processor, all threads and the programs that it runs together.
    result : object
        Of the last run.
    """

    wall: list
    cpu: list
    result: object = None

    def clock(self, device: str = "cpu") -> list:
        """The seconds that count: of the processor if it is one thread of one."""
        return self.cpu if _one_thread(device) else self.wall

    def times(self, factor: float) -> "Times":
        """Of a job so many times as large, of which this was a part."""
        wall, cpu = ([factor * s for s in part] for part in (self.wall, self.cpu))
        return Times(wall, cpu, self.result)

    def seconds(self, device: str = "cpu") -> float:
        """Median of the seconds that count."""
        return statistics.median(self.clock(device))


def alternate(
    jobs: dict[str, Callable[[], object]], repeats: int, device: str = "cpu"
) -> dict[str, Times]:
    """Runs jobs in turn, over and over, after one round that does not count.

    Arguments
    ---------
    jobs : dict
        Functions by name.
    repeats : int
        Rounds that count. With one round none is left out.
    device : str
        Waited for before a clock is read, where it is a GPU.

    Returns
    -------
    dict
        `Times` of each job.
    """
    times = {name: Times([], []) for name in jobs}
    rounds = repeats + (repeats > 1)
    with tqdm(total=rounds * len(jobs), delay=SECONDS_WITHOUT_BAR) as bar:
        for round_ in range(rounds):
            for name, job in jobs.items():
                bar.set_description(name, refresh=False)
                start = _read_clocks(device)
                result = job()
                end = _read_clocks(device)
                bar.update()
                if round_ or repeats == 1:
                    times[name].wall.append(end[0] - start[0])
                    times[name].cpu.append(end[1] - start[1])
                    times[name].result = result
    return times


def _read_clocks(device: str) -> tuple[float, float]:
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
    # Of programs that have ended, such as ffmpeg, too
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    of_children = children.ru_utime + children.ru_stime
    return time.perf_counter(), time.process_time() + of_children


def now(device: str = "cpu") -> float:
    """Reading of the clock that counts, after what runs on a GPU has ended."""
    wall, cpu = _read_clocks(device)
    return cpu if _one_thread(device) else wall


def _one_thread(device: str) -> bool:
    return device == "cpu" and torch.get_num_threads() == 1


class PartClock:
    """Seconds that the forward passes of a module take together.

    Arguments
    ---------
    module : torch.nn.Module
        The part of a job.
    device : str
        Where it runs.
    """

    def __init__(self, module: torch.nn.Module, device: str = "cpu") -> None:
        self.seconds = 0.0
        self.device = device
        module.register_forward_pre_hook(self._start)
        module.register_forward_hook(self._stop)

    def _start(self, *_):
        self._started = now(self.device)

    def _stop(self, *_):
        self.seconds += now(self.device) - self._started


def ratio(rival: Times, ours: Times, device: str = "cpu") -> dict[str, float]:
    """How many times as long the rival takes, pair by pair of neighbouring runs.

    Arguments
    ---------
    rival : Times
        Of the rival.
    ours : Times
        Of the job that is to be faster.
    device : str
        Where both ran.

    Returns
    -------
    dict
        "median", "low" and "high" of the pairs.
    """
    pairs = [a / b for a, b in zip(rival.clock(device), ours.clock(device))]
    return {"median": statistics.median(pairs), "low": min(pairs), "high": max(pairs)}


@dataclasses.dataclass
class Floors:
    """What the machine can do at best, measured in this run.

    Arguments
    ---------
    matrix_rate : float
        FLOP/s of a product of two matrices of 1,024 (8,192 on a GPU) rows.
    copy_rate : float
        Bytes/s that a copy of 256 MiB (1 GiB on a GPU) reads and writes.
    """

    matrix_rate: float
    copy_rate: float

    def seconds(self, flop: float = 0, moved_bytes: float = 0) -> float:
        """The least time for so many operations and bytes, whichever takes longer."""
        return max(flop / self.matrix_rate, moved_bytes / self.copy_rate)


def measure_floors(
    device: str = "cpu", dtype: torch.dtype = torch.float32, tiny: bool = False
) -> Floors:
    """Times a matrix product and a copy with the threads of the benchmark.

    Arguments
    ---------
    device : str
        Where.
    dtype : torch.dtype
        Of the matrices.
    tiny : bool
        Whether small ones will do, in a test.

    Returns
    -------
    Floors
        The best of five each, by the clock that counts.
    """
    scale = 8 if device.startswith("cuda") else 1
    size = 64 if tiny else MATRIX_SIZE * scale
    n_bytes = 2**16 if tiny else COPY_BYTES * min(scale, 4)
    matrix = torch.ones(size, size, dtype=dtype, device=device)
    source = torch.ones(n_bytes, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    times = alternate(
        {"product": lambda: matrix @ matrix, "copy": lambda: target.copy_(source)},
        FLOOR_REPEATS,
        device,
    )
    product, copy = (min(times[name].clock(device)) for name in ("product", "copy"))
    return Floors(2 * size**3 / product, 2 * n_bytes / copy)


def count_flop(job: Callable[[], object]) -> int:
    """Floating-point operations of matrix products, convolutions and attention.

    Arguments
    ---------
    job : callable
        Run once.

    Returns
    -------
    int
        Two for each multiplication and addition, backward passes included.
    """

    def of_attention(query, key, value, *arguments, out_shape=None, **others):
        return sdpa_flop_count(query, key, value)

    attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    counter = FlopCounterMode(display=False, custom_mapping={attention: of_attention})
    with counter:
        job()
    return counter.get_total_flops()


def count_bytes(job: Callable[[], object]) -> int:
    """Bytes that the operations of a job read and write, each tensor once for each.

    Arguments
    ---------
    job : callable
        Run once.

    Returns
    -------
    int
        Of inputs and outputs of all operations but views, backward passes included;
        what an operation reads again is not counted.
    """
    counter = _ByteCounter()
    with counter:
        job()
    return counter.total


class _ByteCounter(TorchDispatchMode):
    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        aliases = [value.alias_info for value in function._schema.returns]
        is_view = any(alias and not alias.is_write for alias in aliases)
        if not is_view and "empty" not in function.__name__:
            self.total += sum(
                # An expanded tensor is as large as its storage
                min(leaf.nbytes, leaf.untyped_storage().nbytes())
                for leaf in tree_leaves((args, kwargs, result))
                if isinstance(leaf, torch.Tensor)
            )
        return result


def peak_bytes(job: Callable[[], object], device: str = "cpu") -> int | None:
    """Memory that a job needs at its peak, beyond what is in use before it.

    Arguments
    ---------
    job : callable
        Run once; run it before too, so that nothing is set up in it.
    device : str
        Whose memory.

    Returns
    -------
    int
        Bytes; None for a processor whose system does not say (not Linux).
    """
    if device.startswith("cuda"):
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        job()
        torch.cuda.synchronize(device)
        return torch.cuda.max_memory_allocated(device) - before
    peak_reset = Path("/proc/self/clear_refs")
    if not peak_reset.exists():
        return None
    ctypes.CDLL(None).malloc_trim(0)
    peak_reset.write_text("5")
    before = status_bytes("VmRSS")
    job()
    return status_bytes("VmHWM") - before


def peak_tensor_bytes(job: Callable[[], object], device: str = "cpu") -> int:
    """Memory of tensors at the peak of a job, beyond what is in use before it.

    Arguments
    ---------
    job : callable
        Run once; run it before too.
    device : str
        Whose memory.

    Returns
    -------
    int
        Bytes that PyTorch's allocator has given out: on a processor without the
        scratch of libraries and the holes in the heap, which `peak_bytes` has.
    """
    if device.startswith("cuda"):
        return peak_bytes(job, device)
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(
        activities=activities, profile_memory=True, acc_events=True
    ) as profile:
        job()
    changes = sorted(
        (event.start_ns(), event.nbytes())
        for event in profile.profiler.kineto_results.events()
        if event.name() == "[memory]"
    )
    return max(itertools.accumulate(change for _, change in changes))


def status_bytes(field: str) -> int:
    """What Linux says of the memory of this process, such as VmRSS."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def machine(device: str = "cpu") -> dict[str, object]:
    """What a number needs to be understood: machine, versions, threads, commit."""
    return {
        "processor": _processor(),
        "card": torch.cuda.get_device_name(device)
        if device.startswith("cuda")
        else None,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
    }


def _processor() -> str:
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _commit() -> str | None:
    """Of this checkout, with a + if files differ from it; None outside of one."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--abbrev"]
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def report(
    name: str,
    rows: list[dict],
    options: argparse.Namespace,
    floors: Floors | None = None,
    device: str = "cpu",
    **facts,
) -> dict:
    """Prints a Markdown table, and writes JSON where --json asks for it.

    Arguments
    ---------
    name : str
        Name of the benchmark.
    rows : list of dict
        Rows of the table; columns are the keys in the order in which they come. Keys
        that start with "of_" are shares, shown in per cent; those that end with
        "_bytes" are shown in MiB; a value of `ratio` is shown with its spread.
    options : argparse.Namespace
        As of `read_options`.
    floors : Floors
        Of this run.
    device : str
        Where the jobs ran.
    **facts
        What else is to be said: data, sizes, reasons.

    Returns
    -------
    dict
        What the JSON has.
    """
    results = {
        "benchmark": name,
        "machine": machine(device),
        "clock": "processor" if _one_thread(device) else "wall",
        "repeats": options.repeats,
        **facts,
        "floors": floors and dataclasses.asdict(floors),
        "rows": rows,
    }
    print(markdown(results), flush=True)
    if options.json:
        text = json.dumps(results, indent=2) + "\n"
        Path(options.json).write_text(text, encoding="utf-8")
    return results


def markdown(results: dict) -> str:
    """The heading, the facts and the table of results."""
    where = results["machine"]
    facts = [
        where["card"] or where["processor"],
        f"torch {where['torch']}",
        f"{where['threads']} threads",
        f"commit {where['commit']}",
        f"{results['clock']} clock, median of {results['repeats']}",
    ]
    if results["floors"]:
        facts.append(
            f"matrix product {results['floors']['matrix_rate'] / 1e9:.4g} GFLOP/s, "
            f"copy {results['floors']['copy_rate'] / 1e9:.3g} GB/s"
        )
    known = ("benchmark", "machine", "clock", "repeats", "floors", "rows")
    facts += [
        f"{key.replace('_', ' ')} {_cell(key, value)}"
        for key, value in results.items()
        if key not in known
    ]
    keys = list(dict.fromkeys(key for row in results["rows"] for key in row))
    lines = [
        f"## {results['benchmark']}\n",
        ", ".join(facts) + ".\n",
        "| " + " | ".join(map(_heading, keys)) + " |",
        "|" + "---|" * len(keys),
    ]
    for row in results["rows"]:
        cells = (_cell(key, row.get(key)) for key in keys)
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _heading(key: str) -> str:
    if key.endswith("_bytes"):
        return key.removesuffix("_bytes").replace("_", " ") + " (MiB)"
    return key.replace("_", " ")


def _cell(key: str, value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, dict):
        low, high = _number(value["low"]), _number(value["high"])
        return f"{_number(value['median'])} ({low} to {high})"
    if key.startswith("of_"):
        return f"{100 * value:.3g} %"
    if key.endswith("_bytes"):
        return f"{value / 2**20:,.0f}"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    return _number(value)


def _number(value: float) -> str:
    if isinstance(value, int) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
