"""Importing the package asks for large pages, unless the user has said otherwise."""

import os
import subprocess
import sys

import pytest

NAME = "THP_MEM_ALLOC_ENABLE"
CODE = f"import os, speechbrain_ext; print(os.environ['{NAME}'])"


@pytest.mark.parametrize(("given", "expected"), [({}, "1"), ({NAME: "0"}, "0")])
def test_large_pages_unless_refused(given, expected):
    others = {name: value for name, value in os.environ.items() if name != NAME}
    program = [sys.executable, "-c", CODE]
    done = subprocess.run(program, env={**others, **given}, capture_output=True)
    assert done.stdout.decode().strip() == expected
