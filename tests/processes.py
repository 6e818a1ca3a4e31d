"""Python programs in processes of their own that need not import PyTorch.

Importing PyTorch, SpeechBrain and transformers takes longer than most trainings
of the tests. `run_python` forks a process that has imported them already, and
nothing of speechbrain_ext. But for that, the program starts as from a shell.
"""

import atexit
import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

# By which the process to fork from finds `preloaded`
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
)
forked = multiprocessing.get_context("forkserver")
forked.set_forkserver_preload(["preloaded"])


def join_two(rank, port):
    """Makes this process one of two that talk by gloo, with one thread.

    Arguments
    ---------
    rank : int
        Number of the process.
    port : int
        By which they find each other.
    """
    import torch

    os.environ.update(
        RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE="2",
        MASTER_ADDR="localhost", MASTER_PORT=str(port),
    )  # fmt: skip
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo")


def run_python(arguments, cwd=None, env=None, timeout=600):
    """Runs what follows `python` on a command line.

    Arguments
    ---------
    arguments : list
        A script and its arguments, or `-m`, a module and its arguments.
    cwd : str or Path
        Where to run it; the current folder if None.
    env : dict
        Environment; that of this process if None.
    timeout : float
        Seconds after which it is killed.

    Returns
    -------
    subprocess.CompletedProcess
        With returncode, stdout and stderr, as text.
    """
    arguments = [str(argument) for argument in arguments]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("stdout", "stderr")]
        process = forked.Process(
            target=_program,
            args=(
                arguments,
                os.path.abspath(cwd or "."),
                env or dict(os.environ),
                files,
            ),
        )
        process.start()
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            process.join()
            raise subprocess.TimeoutExpired(arguments, timeout)
        return subprocess.CompletedProcess(
            arguments, process.exitcode, *(file.read_text() for file in files)
        )


def _program(arguments, cwd, env, files):
    """In the new process: what Python does between its start and its end."""
    for number, path in enumerate(files, start=1):
        with open(path, "wb") as file:
            os.dup2(file.fileno(), number)
    multiprocessing.set_start_method(None, force=True)  # the platform's
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    try:
        if arguments[0] == "-m":
            sys.argv = arguments[1:]
            runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
        else:
            sys.argv = arguments
            sys.path.insert(0, os.path.dirname(os.path.abspath(arguments[0])))
            runpy.run_path(arguments[0], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # multiprocessing leaves them out
