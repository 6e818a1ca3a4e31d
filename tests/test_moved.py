"""Old dotted paths work for one release, with a warning."""

import importlib

import pytest

from speechbrain_ext._moved import MOVED, PACKAGE


@pytest.mark.parametrize("old", MOVED)
def test_old_path_gives_what_the_new_one_has(old):
    new = MOVED[old]
    if isinstance(new, dict):
        names = new
    else:
        module = importlib.import_module(PACKAGE + new)
        names = {
            name: new
            for name, value in vars(module).items()
            if getattr(value, "__module__", None) == module.__name__
            # Of a package, what it hands on
            or name in getattr(module, "__all__", ())
        }
    assert names
    for name, target in names.items():
        with pytest.warns(FutureWarning, match=f"{target}.{name}"):
            value = getattr(importlib.import_module(PACKAGE + old), name)
        assert value is getattr(importlib.import_module(PACKAGE + target), name)


def test_unknown_name_of_an_old_module_is_an_error():
    with pytest.raises(ImportError, match="cannot import name 'nothing'"):
        from speechbrain_ext.core import nothing  # noqa: F401
