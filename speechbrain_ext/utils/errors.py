"""The error of bad input, and how recipes report it."""

import contextlib
import logging
import sys
import traceback

# In the first line of an error that PyTorch raises again for one of its readers
OF_READER = " in DataLoader worker process "


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
def one_line_errors(debug=None):
    """Ends the program with one line, not a traceback, on an error.

    The line says what to do. For errors that nobody foresaw, that is to look at
    the traceback, which the log.txt of a training has and `--debug` shows.

    Arguments
    ---------
    debug : bool
        Whether to show the traceback; if None, where the command line of the
        program has `--debug`.

    Example
    -------
    >>> with one_line_errors():
    ...     raise InputError("data_folder 'x' does not exist")
    Traceback (most recent call last):
        ...
    SystemExit: error: data_folder 'x' does not exist
    """
    if debug is None:
        debug = "--debug" in sys.argv[1:]
    try:
        yield
    except Exception as error:
        if debug:
            traceback.print_exc()
        # SpeechBrain logs what ends a training by another hook.
        sys.excepthook = sys.__excepthook__
        raise SystemExit(f"error: {_line(error)}") from error


def add_debug_option(parser):
    """Adds `--debug`, which `one_line_errors` heeds, to a command line.

    Arguments
    ---------
    parser : argparse.ArgumentParser
        Parser of a script or of a sub-command.
    """
    parser.add_argument(
        "--debug", action="store_true", help="show the traceback of an error"
    )


def _line(error):
    # Names may have line breaks, and what no terminal can show.
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in _message(error))


def _message(error):
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}': {error.strerror}"
    if isinstance(error, (InputError, OSError)):
        return _text(error)
    files = _log_traceback(error)
    where = "".join(f"'{file}' has the traceback, and " for file in files)
    message = " ".join(_text(error).split()) or "no message"
    return (
        f"{type(error).__name__}: {message}; {where}--debug shows "
        f"{'it' if files else 'the traceback'}"
    )


def _text(error):
    """Its message, without the traceback that PyTorch adds to that of a reader."""
    text = str(error)
    if OF_READER in text.partition("\n")[0]:
        name = type(error).__qualname__
        return text.rpartition(f"{name}: ")[2].strip()
    return text


def _log_traceback(error):
    """Writes the traceback to the log files, and names them."""
    files = []
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            record = logging.LogRecord(
                __name__, logging.ERROR, __file__, 0, "Unforeseen error", None,
                (type(error), error, error.__traceback__),
            )  # fmt: skip
            handler.handle(record)
            files.append(handler.baseFilename)
    return files
