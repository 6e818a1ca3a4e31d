"""From the command line of a recipe to its configuration."""

import dataclasses
import re
import sys
from pathlib import Path

from ruamel.yaml import YAMLError
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ext.config.configuration import Configuration
from speechbrain_ext.config.entries import (
    REFERENCE,
    compose,
    entries_of,
    merged,
    yaml_as_written,
)
from speechbrain_ext.config.keys import HPARAMS, check_known, project_keys
from speechbrain_ext.schema import KEYS
from speechbrain_ext.utils.errors import InputError

PREPARE_YAML = HPARAMS / "prepare.yaml"
DEMO_PRESET = HPARAMS / "presets" / "demo.yaml"
DEMO_BANNER = """
======================================================================
 No data_folder was given: this is the DEMO on synthetic voices.
 Its error rates say nothing about people. For your own recordings:
   {command} --dataset folder --data_folder <root>
 with <root>/<speaker>/**/<audio file>
======================================================================
"""
# SpeechBrain's options: those of a Brain that trains, and those of what trains none
RUN_OPTIONS = frozenset(field.name for field in dataclasses.fields(RunOptions))
RUN_OPTIONS_WITHOUT_BRAIN = frozenset(
    {"debug", "device", "distributed_backend", "log_config"}
)
REFUSED_RUN_OPTIONS = {
    "nonfinite_patience": "training stops at the first loss that is not finite",
    "optimizer_step_limit": "give --number_of_steps, which schedules follow too",
}
NULLS = ("null", "Null", "NULL", "~")


def read_configuration(arguments, corpus=None, demo=True, run_options=RUN_OPTIONS):
    """Reads a recipe's command line.

    Beside SpeechBrain's options and `--key value` overrides of the YAML,
    `--preset FILE` names a YAML of overrides, over which the command line takes
    precedence. Where neither gives a data_folder, the preset of the demo is used.

    A preset serves several systems: keys that only other YAMLs of the project
    have are left out. A key that none has is an error, in a preset, in the YAML of
    a corpus, in a stage and on the command line alike.

    Arguments
    ---------
    arguments : list of str
        A YAML, and options, as in sys.argv[1:].
    corpus : str or Path
        YAML of overrides for the recipe's corpus, over which a preset takes
        precedence.
    demo : bool
        Whether the demo runs where there is no data_folder.
    run_options : collection of str
        Options of SpeechBrain that the recipe follows.

    Returns
    -------
    Configuration
        What to run.

    Raises
    ------
    InputError
        If a file is missing or is no YAML, a key is unknown, or an option is not
        taken.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text("data_folder: null # of the corpus\\nlr: 0.1\\n", "utf-8")
    >>> configuration = read_configuration([str(path), "--data_folder", "001"])
    >>> print(configuration.text, end="")
    data_folder: '001' # of the corpus
    lr: 0.1
    """
    if not arguments or arguments[0].startswith("-"):
        if {"-h", "--help"} & set(arguments):
            RunOptions.from_command_line_args(["--help"])
        raise InputError(
            "the first argument is the YAML to run, such as hparams/ltdnn_wavlm.yaml"
        )
    path = Path(arguments[0])
    header, entries = compose(path)
    given, others = _split_arguments(arguments[1:], entries, path, run_options)
    _, run_opts, _ = RunOptions.from_command_line_args([str(path), *others])
    preset = given.pop("preset", None)
    given = {
        key: parse_value(key, text, entries[key].value) for key, text in given.items()
    }
    if corpus is not None:
        overrides = compose(corpus)[1]
        check_known(overrides, entries, f"'{corpus}': '{path}' has no key")
        entries = merged(entries, overrides)
    if demo and preset is None and not _has_data(entries, given):
        if given.get("dataset", "demo") != "demo":
            raise InputError(
                f"dataset {given['dataset']} needs data_folder, the root of "
                "the corpus: --data_folder <root>"
            )
        command = f"python {' '.join([sys.argv[0], *arguments])}"
        print(DEMO_BANNER.format(command=command), file=sys.stderr)
        preset = DEMO_PRESET
    if preset is not None:
        entries = merged(entries, _preset_entries(preset, entries))
    entries = merged(entries, entries_of(given))
    return Configuration(path, header, entries, given, run_opts)


def parse_value(key, text, current=None):
    """The value of an option, whose text YAML might misread.

    Paths and names stay text, such as 001, `my corpus #2` or `a: b`; where lists
    of them may be given, `[a, b]` is one.

    Arguments
    ---------
    key : str
        Key of the YAML.
    text : str
        Text as it was given.
    current : object
        The value that it replaces: for a key that the schema does not know,
        text replaces text.

    Returns
    -------
    object
        For the YAML.

    Raises
    ------
    InputError
        If the text is empty, is not what YAML can read, or has the <brackets>
        of a reference without being one.

    Example
    -------
    >>> parse_value("data_folder", "2021"), parse_value("lr", "0.1")
    ('2021', 0.1)
    >>> parse_value("data_folder", "[a: b, 001]")
    ['a: b', '001']
    """
    if not text.strip():
        raise InputError(f"--{key} has no value; give one, or null")
    kind = KEYS.get(key)
    is_text = type(current) is str if kind is None else kind.is_text
    if text.lstrip().startswith("!"):
        return _read_value(key, text)
    if not is_text:
        return _read_value(key, text)
    if text in NULLS:
        return None
    if kind is not None and kind.is_list and re.fullmatch(r"\s*\[.*\]\s*", text):
        items = re.findall(r"\s*('[^']*'|\"[^\"]*\"|[^,]+)", text.strip()[1:-1])
        value = [_unquoted(item.strip()) for item in items]
        value = [None if item in NULLS else item for item in value]
    else:
        value = _unquoted(text)
    for item in value if isinstance(value, list) else [value]:
        if item is not None and REFERENCE.search(item):
            raise InputError(
                f"--{key}: '{item}' has <...>, which stands for another key; write "
                f"'!ref {item}' if you mean that, else rename the file"
            )
    return value


def _split_arguments(arguments, known, path, run_options):
    """Text of each key of the YAML, and the arguments that are SpeechBrain's.

    What both have, such as precision, is the YAML's, so that it is on record.
    """
    given, others = {}, []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        if not argument.startswith("--"):
            raise InputError(
                f"'{argument}' belongs to no option; give --key=value, in quotes "
                "where the value has spaces"
            )
        name, has_value, value = argument[2:].partition("=")
        if name not in known and name != "preset":
            if name not in run_options and name != "help":
                check_known(
                    [name], [*known, *run_options, "preset"], f"'{path}' has no key"
                )
            if name in REFUSED_RUN_OPTIONS:
                raise InputError(f"--{name} is not taken: {REFUSED_RUN_OPTIONS[name]}")
            others.append(argument)
            while rest and not rest[0].startswith("--"):
                others.append(rest.pop(0))
            continue
        if not has_value:
            if not rest or rest[0].startswith("--"):
                raise InputError(f"--{name} has no value; give one, or null")
            value = rest.pop(0)
        given[name] = value
    return given, others


def _read_value(key, text):
    try:
        return next(iter(yaml_as_written().load(f"{key}: {text}\n").values()))
    except YAMLError as error:
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(
            f"--{key}: '{text}' is no YAML ({what}); put it into quotes"
        ) from None


def _unquoted(text):
    """Text without the quotes that YAML would take away."""
    quoted = re.fullmatch(r"\s*(['\"])(.*)\1\s*", text)
    return quoted[2] if quoted else text


def _has_data(entries, given):
    if "data_folder" not in entries:
        return True
    return bool(given.get("data_folder", entries["data_folder"].value))


def _preset_entries(path, entries):
    """Entries of a preset that the system has; others must be another system's."""
    known = project_keys()
    chosen = {}
    for key, entry in compose(path)[1].items():
        check_known([key], {**entries, **known}, f"'{path}': no YAML has a key")
        if key == "stages" and isinstance(entry.value, dict):
            entry = entries_of({key: _known_stages(path, entry.value, entries)})[key]
        if key in entries:
            chosen[key] = entry
    return chosen


def _known_stages(path, stages, entries):
    result = {}
    for name, settings in stages.items():
        check_known(
            settings or {},
            {**entries, **project_keys()},
            f"'{path}', stage {name}: no YAML has a key",
        )
        result[name] = {k: v for k, v in (settings or {}).items() if k in entries}
    return result
