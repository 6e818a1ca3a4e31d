"""The model of a command line."""

import sys


def load(source, device, revision, trust_source):
    """Loads SOURCE, without progress bars where nobody looks.

    Arguments
    ---------
    source : str
        As of `load_model`.
    device : str
        As of `load_model`.
    revision : str
        As of `load_model`.
    trust_source : bool
        As of `load_model`.

    Returns
    -------
    SpeakerRecognition
        The model.
    """
    from huggingface_hub.utils import disable_progress_bars
    from transformers.utils import logging

    from speechbrain_ext.inference import sources

    if not sys.stderr.isatty():
        disable_progress_bars()
        logging.disable_progress_bar()
    return sources.load_model(source, device, revision, trust_source=trust_source)
