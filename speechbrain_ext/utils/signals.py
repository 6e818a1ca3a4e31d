"""Signals that ask a training to stop, heeded when it can be resumed."""

import contextlib
import multiprocessing.util
import os
import signal
import threading
import time

HEEDED = (signal.SIGTERM, signal.SIGINT)
# Seconds within which signals are one request: Slurm signals all processes of a job,
# and torchrun hands on to its own what it gets.
ONE_REQUEST = 2.0
# Seconds that processes have to end when the main one does
ENDING = 1.0


class Stopped(Exception):
    """A signal has stopped the training, which has saved a checkpoint.

    Arguments
    ---------
    signum : int
        The signal's number.
    """

    def __init__(self, signum):
        super().__init__(signal.Signals(signum).name)
        self.exit_code = 128 + signum


class StopRequest:
    """Whether a signal has asked to stop.

    Attributes
    ----------
    signum : int
        The signal's number; 0 while there was none.
    """

    def __init__(self):
        self.signum = 0
        self._noted_at = 0.0

    def note(self, signum, frame):
        """Handles a signal: the first is noted, a later one ends the program."""
        del frame
        if self.signum:
            if time.monotonic() - self._noted_at < ONE_REQUEST:
                return
            raise SystemExit(128 + signum)
        self.signum, self._noted_at = signum, time.monotonic()
        name = signal.Signals(signum).name
        # A print could be what the signal has interrupted.
        os.write(2, f"\n{name}: stopping after this step\n".encode())


@contextlib.contextmanager
def stop_request():
    """Notes SIGTERM and SIGINT for a while instead of dying of them.

    Yields
    ------
    StopRequest
        Says whether there was a signal. Outside the main thread, which alone
        gets signals, there never is.

    Example
    -------
    >>> with stop_request() as stop:
    ...     signal.raise_signal(signal.SIGTERM)
    ...     stop.signum == signal.SIGTERM
    True
    """
    stop = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {signum: signal.signal(signum, stop.note) for signum in HEEDED}
    try:
        yield stop
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def outlive_first_signal(worker):
    """Lets a loader's process live on when all processes are asked to stop.

    Ctrl-C and Slurm signal a whole group, and the main process still needs
    its loaders to finish the step. A second SIGTERM ends it, and the end of the
    main process.

    Arguments
    ---------
    worker : int
        Its number, which PyTorch gives to every worker_init_fn.
    """
    del worker

    def restore(signum, frame):
        signal.signal(signum, signal.SIG_DFL)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, restore)


def _end_readers():
    """Ends the loaders' processes that an error has left behind.

    At its end Python sends one SIGTERM to processes that depend on the main one, and
    waits for ever for who outlives that.
    """
    left = [child for child in multiprocessing.active_children() if child.daemon]
    if not left:
        return
    # PyTorch's handler calls their end another error.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for process in left:
        process.terminate()
    deadline = time.monotonic() + ENDING
    for process in left:
        process.join(max(0.0, deadline - time.monotonic()))
        if process.is_alive():
            process.kill()


# Priority 0 is after pools, which end their processes themselves.
multiprocessing.util.Finalize(None, _end_readers, exitpriority=0)
