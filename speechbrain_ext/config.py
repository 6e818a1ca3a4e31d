"""Parts of resolved hyperparameter files."""

import io

from ruamel.yaml import YAML

from speechbrain_ext.utils.errors import InputError


def select_keys(content, keys, hparams_file):
    """Keeps some keys, so that nothing else is built.

    Arguments
    ---------
    content : dict
        A YAML with its references resolved; the other keys are removed.
    keys : list of str
        To keep.
    hparams_file : str or Path
        For messages.

    Returns
    -------
    str
        YAML for `load_hyperpyyaml`.

    Raises
    ------
    InputError
        If a key is missing.

    Example
    -------
    >>> select_keys({"lr": 0.1, "model": 1}, ["lr"], "train.yaml")
    'lr: 0.1\\n'
    """
    missing = [key for key in keys if key not in content]
    if missing:
        raise InputError(f"'{hparams_file}' lacks {', '.join(missing)}")
    for key in [key for key in content if key not in keys]:
        del content[key]
    stream = io.StringIO()
    YAML().dump(content, stream)
    return stream.getvalue()
