"""From a command line to one self-contained YAML, and to what it builds.

Values are taken, from low to high, from the files that a YAML `extends`, the YAML,
the YAML of a corpus, the preset, the stage and the command line.
"""

from speechbrain_ext.config.building import not_built, resolve, select_keys
from speechbrain_ext.config.command_line import (
    PREPARE_YAML,
    REFUSED_RUN_OPTIONS,
    RUN_OPTIONS_WITHOUT_BRAIN,
    parse_value,
    read_configuration,
)
from speechbrain_ext.config.configuration import Configuration, without_places
from speechbrain_ext.config.entries import compose
from speechbrain_ext.config.keys import HPARAMS, check_known
from speechbrain_ext.config.stages import training_stages

__all__ = [
    "HPARAMS",
    "PREPARE_YAML",
    "REFUSED_RUN_OPTIONS",
    "RUN_OPTIONS_WITHOUT_BRAIN",
    "Configuration",
    "check_known",
    "compose",
    "not_built",
    "parse_value",
    "read_configuration",
    "resolve",
    "select_keys",
    "training_stages",
    "without_places",
]
