"""What libraries say to programmers, and progress that nobody looks at, left out."""

import contextlib
import logging
import os
import sys
import warnings


@contextlib.contextmanager
def quiet_libraries():
    """Leaves out advice of libraries and, in pipes and files, their progress bars.

    Each logger of SpeechBrain has a level of its own, so that errors alone come
    through where the messages of all of them arrive.
    """
    library, errors = logging.getLogger("speechbrain"), logging.StreamHandler()
    errors.setLevel(logging.ERROR)
    before = library.propagate
    library.addHandler(errors)
    library.propagate = False
    if not sys.stderr.isatty():
        _switch_progress_bars_off()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        library.propagate = before
        library.removeHandler(errors)


def _switch_progress_bars_off():
    """Those of huggingface_hub and transformers, imported already or not yet."""
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    if "huggingface_hub" in sys.modules:
        from huggingface_hub.utils import disable_progress_bars

        disable_progress_bars()
    if "transformers" in sys.modules:
        from transformers.utils import logging as transformers_logging

        transformers_logging.disable_progress_bar()
