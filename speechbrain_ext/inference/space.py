"""What makes a model folder a Hugging Face Space, which shows the page of the model."""

import importlib.metadata
import json

import speechbrain_ext
from speechbrain_ext.inference.model_folder import APP
from speechbrain_ext.utils.errors import InputError

APP_TEXT = '''\
"""The page of speechbrain_ext with the model of this folder."""

from pathlib import Path

from speechbrain_ext.inference.sources import load_model
from speechbrain_ext.web.page import serve

# A Space says by its environment where to listen.
serve(load_model(Path(__file__).parent), server_name=None)
'''


def space_requirements():
    """Writes requirements.txt of a Space.

    Returns
    -------
    str
        This version of the package: from the repository that it was installed from
        with pip, else from PyPI.

    Example
    -------
    >>> space_requirements().startswith("speechbrain_ext[web]")
    True
    """
    name = "speechbrain_ext[web]"
    origin = _origin()
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        return f"{name} @ {vcs['vcs']}+{origin['url']}@{vcs['commit_id']}\n"
    return f"{name}=={speechbrain_ext.__version__}\n"


def space_header(title):
    """Gives the entries that a Space needs in the header of its README.md.

    Arguments
    ---------
    title : str
        Title of the Space.

    Returns
    -------
    dict
        With the version of Gradio that is installed here.

    Raises
    ------
    InputError
        If Gradio is not installed.
    """
    try:
        version = importlib.metadata.version("gradio")
    except importlib.metadata.PackageNotFoundError:
        raise InputError(
            "space: a Space names the version of Gradio; "
            "pip install 'speechbrain_ext[web]'"
        ) from None
    return {
        "title": title,
        "sdk": "gradio",
        "sdk_version": version,
        "app_file": APP,
    }


def _origin():
    """Where pip installed the package from, as PEP 610 has it; {} if from an index."""
    try:
        text = importlib.metadata.distribution("speechbrain_ext").read_text(
            "direct_url.json"
        )
    except importlib.metadata.PackageNotFoundError:
        return {}
    return json.loads(text or "{}")
