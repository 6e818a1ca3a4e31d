"""Imports go one way, and importing the package is quick and changes nothing."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import speechbrain_ext

ROOT = Path(speechbrain_ext.__file__).parent

# From low to high; a module imports from its own layer and lower ones only.
LAYERS = [
    "_moved",
    "utils",
    "schema",
    "nnet",
    "metrics",
    "dataio",
    "augment",
    "lobes",
    "processing",
    "analysis",
    "plots",
    "config",
    "inference",
    "training",
    "web",
    "cli",
    "tools",
]


def module_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def imports_of(path):
    """Modules of the package that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "speechbrain_ext":
                names = [
                    f"speechbrain_ext.{alias.name}"
                    for alias in node.names
                    if alias.name != "__version__"
                ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("speechbrain_ext."):
                yield name.removeprefix("speechbrain_ext.")


FILES = sorted(path for path in ROOT.rglob("*.py") if path.parent != ROOT)
FILES += sorted(path for path in ROOT.glob("*.py") if not path.name.startswith("_"))


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_go_down(path):
    layer = LAYERS.index(module_of(path).split(".")[0])
    for name in imports_of(path):
        assert LAYERS.index(name.split(".")[0]) <= layer, name


def test_no_module_imports_itself_over_others():
    graph = {module_of(path): set(imports_of(path)) for path in FILES}
    finished = set()

    def visit(module, trail):
        assert module not in trail, " -> ".join([*trail, module])
        if module in finished:
            return
        for name in graph.get(module, ()):
            visit(name, [*trail, module])
        finished.add(module)

    for module in graph:
        visit(module, [])


def test_import_loads_neither_torch_nor_matplotlib():
    code = (
        "import sys, speechbrain_ext; "
        "print([m for m in ('torch', 'matplotlib', 'speechbrain') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


def test_training_leaves_matplotlib_alone():
    code = (
        "import sys, speechbrain_ext.training.brains; "
        "print('matplotlib.pyplot' in sys.modules)"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.splitlines()[-1] == "False"
