"""What the documentation names is there, and its commands have keys that exist."""

import pydoc
import re
import shlex
from pathlib import Path

import pytest

from speechbrain_ext.config import HPARAMS, read_configuration

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("docs/**/*.md")]
COMMAND = re.compile(r"^ *(?:python|torchrun \S+) (recipes/\w+/\w+\.py .*)$", re.M)
CORPUS_OF = {"VCTK": "vctk", "LibriSpeech": "librispeech", "CNCeleb": "cnceleb"}
# Files of SpeechBrain's repository, and one that stands for any system's
ELSEWHERE = {
    "recipes/VoxCeleb/SpeakerRec/hparams/train_ecapa_tdnn.yaml",
    "hparams/train_ecapa_tdnn.yaml",
    "hparams/verification_ecapa.yaml",
    "hparams/SYSTEM.yaml",
}


def text_of(page):
    return page.read_text(encoding="utf-8")


def commands():
    """Recipe and arguments of each command that names a YAML of hparams/."""
    for page in PAGES:
        text = re.sub(r"\\\n *", "", text_of(page))
        for line in COMMAND.findall(text):
            if "$" in line:  # variables of the shell, which the page sets elsewhere
                continue
            recipe, *arguments = shlex.split(line, comments=True)
            if arguments and re.fullmatch(r"hparams/\w+\.yaml", arguments[0]):
                yield page, recipe, arguments


COMMANDS = list(commands())


def test_readme_is_short():
    assert len(text_of(ROOT / "README.md").splitlines()) <= 120


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_that_are_named_exist(page):
    named = re.findall(
        r"\b(?:hparams|recipes|benchmarks|tests|docs|speechbrain_ext)/[\w/.-]*\.\w+",
        text_of(page),
    )
    missing = {name for name in named if not (ROOT / name).exists()}
    assert not missing - ELSEWHERE


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_objects_that_are_named_exist(page):
    named = set(re.findall(r"\bspeechbrain_ext(?:\.\w+)+\b", text_of(page)))
    assert not sorted(name for name in named if pydoc.locate(name) is None)


def test_there_are_commands():
    assert len(COMMANDS) > 20


@pytest.mark.parametrize(
    "page, recipe, arguments",
    COMMANDS,
    ids=[f"{page.stem}: {' '.join(arguments)}" for page, _, arguments in COMMANDS],
)
def test_commands_are_accepted(page, recipe, arguments):
    assert (ROOT / recipe).is_file()
    corpus = CORPUS_OF.get(Path(recipe).parent.name)
    corpus = None if corpus is None else HPARAMS / "corpora" / f"{corpus}.yaml"
    arguments = [str(ROOT / arguments[0]), *arguments[1:]]
    assert read_configuration(arguments, corpus, demo=False).values()
