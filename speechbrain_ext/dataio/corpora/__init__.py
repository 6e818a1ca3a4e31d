"""Corpora, one module each; what a module has in CORPORA is known by its name."""

import functools
import importlib
import pkgutil
from types import ModuleType

from speechbrain_ext.dataio.corpora.base import Corpus, LayOut, Part, PublishedTrials
from speechbrain_ext.utils.errors import InputError


@functools.cache
def _modules() -> dict[str, ModuleType]:
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    return {name: importlib.import_module(f"{__name__}.{name}") for name in names}


def corpora() -> dict[str, Corpus]:
    """All corpora.

    Returns
    -------
    dict
        Name and `Corpus`.

    Example
    -------
    >>> sorted(corpora())[:3]
    ['cnceleb', 'demo', 'folder']
    """
    return {
        corpus.name: corpus
        for module in _modules().values()
        for corpus in getattr(module, "CORPORA", ())
    }


def get_corpus(name: str) -> Corpus:
    """The corpus of a name.

    Arguments
    ---------
    name : str
        Value of the key `dataset`.

    Returns
    -------
    Corpus
        The corpus of that name.

    Raises
    ------
    InputError
        If there is none.

    Example
    -------
    >>> get_corpus("vctk").balanced
    ('gender', 'accent')
    """
    known = corpora()
    if not isinstance(name, str) or name not in known:
        raise InputError(f"dataset '{name}': use one of {', '.join(sorted(known))}")
    return known[name]


def layouts() -> dict[str, LayOut]:
    """Functions that lay recordings out as a corpus.

    Returns
    -------
    dict
        Name of the layout and function.

    Example
    -------
    >>> sorted(layouts())
    ['cnceleb', 'librispeech', 'vctk', 'voxceleb']
    """
    return {
        name: module.lay_out
        for name, module in _modules().items()
        if hasattr(module, "lay_out")
    }


def published_trials() -> dict[str, PublishedTrials]:
    """Trial lists on the web, of any corpus.

    Returns
    -------
    dict
        Name and `PublishedTrials`.

    Example
    -------
    >>> published_trials()["vox1-o"].url.rpartition("/")[2]
    'veri_test2.txt'
    """
    return {
        name: trials
        for corpus in corpora().values()
        for name, trials in corpus.published_trials.items()
    }


def parts() -> dict[str, Part]:
    """Parts of corpora that trials are drawn from.

    Returns
    -------
    dict
        Name and `Part`.

    Example
    -------
    >>> len(parts()["vox2-test"].speakers)
    118
    """
    return {
        name: part
        for corpus in corpora().values()
        for name, part in corpus.parts.items()
    }
