"""The error of bad input, and how recipes report it."""

import contextlib
import sys


class InputError(ValueError):
    """Bad input; the message names the file, line or key and the remedy.

    Example
    -------
    >>> raise InputError("trials.txt, line 3: label '2'; use 0 or 1")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: trials.txt, line 3: label '2'; use 0 or 1
    """


@contextlib.contextmanager
def one_line_errors():
    """Ends the program with one line, not a traceback, on bad input.

    Example
    -------
    >>> with one_line_errors():
    ...     raise InputError("data_folder 'x' does not exist")
    Traceback (most recent call last):
        ...
    SystemExit: error: data_folder 'x' does not exist
    """
    try:
        yield
    except (InputError, OSError) as error:
        sys.excepthook = sys.__excepthook__
        raise SystemExit(f"error: {error}") from error
