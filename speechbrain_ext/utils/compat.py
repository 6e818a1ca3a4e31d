"""Checks of the installed PyTorch before SpeechBrain is imported."""

from importlib import metadata

REMEDY = 'pip install "torch==2.11.*" "torchaudio==2.11.*"'


def check_torch_and_torchaudio():
    """Imports torch and torchaudio and says in one line how to mend a clash.

    torch and torchaudio builds for different CUDA versions refuse each other
    at import with a long traceback that names neither the cause nor a remedy.

    Raises
    ------
    ImportError
        If the installed pair does not import.

    Example
    -------
    >>> check_torch_and_torchaudio()
    """
    try:
        import torch  # noqa: F401
        import torchaudio  # noqa: F401
    except Exception as error:
        raise ImportError(
            f"torch {_version('torch')} and torchaudio {_version('torchaudio')} "
            f"do not work together ({_first_line(error)}); run: {REMEDY}"
        ) from None


def _version(package):
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def _first_line(error):
    return str(error).strip().split("\n")[0] or type(error).__name__
