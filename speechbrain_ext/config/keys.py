"""Which keys there are, and the nearest one to an unknown key."""

import difflib
import functools
from pathlib import Path

from ruamel.yaml import YAML

from speechbrain_ext.utils.errors import InputError

HPARAMS = Path(__file__).resolve().parents[2] / "hparams"


def check_known(keys, known, message):
    """Refuses keys that nothing has, with the nearest one that there is.

    Arguments
    ---------
    keys : collection of str
        Keys to check.
    known : collection of str
        Keys that there are.
    message : str
        What goes before the unknown keys.

    Raises
    ------
    InputError
        If a key is unknown.

    Example
    -------
    >>> check_known(["batchsize"], ["batch_size", "lr"], "train.yaml has no key")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: train.yaml has no key batchsize; ...
    """
    unknown = sorted(set(keys) - set(known))
    if not unknown:
        return
    near = [
        match
        for key in unknown
        for match in difflib.get_close_matches(key, known, n=1)
    ]  # fmt: skip
    remedy = f"did you mean {', '.join(near)}?" if near else "leave it out"
    raise InputError(f"{message} {', '.join(unknown)}; {remedy}")


@functools.cache
def project_keys():
    """Keys of all YAMLs of the project."""
    paths = [*HPARAMS.glob("*.yaml"), *HPARAMS.glob("pieces/*.yaml")]
    return {
        key: None
        for path in sorted(paths)
        for key in YAML().load(path.read_text(encoding="utf-8"))
    }
