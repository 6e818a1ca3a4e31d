"""Packages that only some work needs."""

import importlib

from speechbrain_ext.utils.errors import InputError


def optional_package(name, need, extra):
    """Imports a package that need not be installed.

    Arguments
    ---------
    name : str
        Module to import.
    need : str
        What needs it, and the verb, such as "shards need".
    extra : str
        Extra of speechbrain_ext that installs it.

    Returns
    -------
    module
        The module.

    Raises
    ------
    InputError
        If it is not installed.

    Example
    -------
    >>> optional_package("json", "the cards need", "cards").loads("1")
    1
    >>> optional_package("no_such_package", "the cards need", "cards")
    Traceback (most recent call last):
        ...
    speechbrain_ext.utils.errors.InputError: the cards need a package: pip install ...
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"{need} a package: pip install 'speechbrain_ext[{extra}]'"
        ) from None
