"""From a command line to one self-contained YAML, and to what it builds.

Values are taken, from low to high, from the files that a YAML `extends`, the YAML,
the YAML of a corpus, the preset, the stage and the command line. All merge as
SpeechBrain's overrides do: a mapping merges into a mapping, key by key, and all
else replaces what was there. A mapping with a tag such as `!new:` says what to
build, and replaces the one before.
"""

import copy
import dataclasses
import difflib
import functools
import io
import re
import sys
import traceback
from pathlib import Path

from hyperpyyaml import load_hyperpyyaml, resolve_references
from ruamel.yaml import YAML, Loader, YAMLError
from speechbrain.utils.run_opts import RunOptions

from speechbrain_ext.schema import (
    BY_REFERENCE,
    KEYS,
    check_effect,
    check_values,
    has_tag,
)
from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path

HPARAMS = Path(__file__).resolve().parents[1] / "hparams"
DATA_YAML = HPARAMS / "data.yaml"
DEMO_PRESET = HPARAMS / "presets" / "demo.yaml"
DEMO_BANNER = """
======================================================================
 No data_folder was given: this is the DEMO on synthetic voices.
 Its error rates say nothing about people. For your own recordings:
   {command} --dataset folder --data_folder <root>
 with <root>/<speaker>/**/<audio file>
======================================================================
"""
# Keys that change where results go and how fast they come, not the results
WITHOUT_INFLUENCE = ("output_folder", "save_folder", "ssl_folder", "num_workers")
REFERENCE = re.compile(r"<(\w+)[^>]*>")
PLACEHOLDER = "!PLACEHOLDER"
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


class _Loader(Loader):
    """Notes of what cannot be built which key and tag it has."""

    def construct_document(self, node):
        """As in ruamel.yaml; an error gets the attribute of_yaml."""
        self._failed = []
        try:
            return super().construct_document(node)
        except Exception as error:
            tags = [n.tag for n in self._failed if str(n.tag).startswith("!")]
            for key, value in node.value:
                if any(value is failed for failed in self._failed):
                    error.of_yaml = key.value, tags[0] if tags else key.value
                    break
            raise

    def construct_object(self, node, *args, **kwargs):
        """As in ruamel.yaml; keeps the nodes that fail, the innermost first."""
        try:
            return super().construct_object(node, *args, **kwargs)
        except Exception:
            self._failed.append(node)
            raise


class Entry:
    """A key of a YAML as it is written, with its comments.

    Arguments
    ---------
    above : str
        Blank lines and comments above the key.
    text : str
        The key and its value.
    """

    def __init__(self, above, text):
        self.above = above
        self.text = text

    @functools.cached_property
    def _mapping(self):
        return _yaml().load(self.text)

    @property
    def value(self):
        """The value, as ruamel.yaml loads it."""
        return next(iter(self._mapping.values()))

    @property
    def comment(self):
        """The comment beside a value of one line, with its #; or nothing."""
        tokens = self._mapping.ca.items.get(next(iter(self._mapping)))
        if tokens is None or tokens[2] is None or self.text.count("\n") > 1:
            return ""
        return tokens[2].value.split("\n")[0]

    def updated_by(self, other):
        """This entry with another one merged into it.

        Arguments
        ---------
        other : Entry
            Entry of the same key.

        Returns
        -------
        Entry
            Where the other one has no comments, with those of this one.
        """
        above = other.above if other.above.strip() else self.above
        if _merges(self.value, other.value):
            mapping = copy.deepcopy(self._mapping)
            _merge(next(iter(mapping.values())), other.value)
            return Entry(above, _dump(mapping))
        text = other.text
        if self.comment and not other.comment and text.count("\n") == 1:
            text = f"{text.rstrip()} {self.comment}\n"
        return Entry(above, text)


@dataclasses.dataclass(frozen=True)
class Configuration:
    """A YAML with all that goes into it.

    Arguments
    ---------
    path : Path
        The YAML that the command line named.
    header : str
        The comments at its top.
    entries : dict
        The entry of each key.
    given : dict
        Keys of the command line and their values.
    run_opts : speechbrain.utils.run_opts.RunOptions
        SpeechBrain's options.
    """

    path: Path
    header: str
    entries: dict
    given: dict = dataclasses.field(default_factory=dict)
    run_opts: RunOptions | None = None

    @property
    def text(self):
        """The self-contained YAML, which `load_hyperpyyaml` loads."""
        entries = references_first(self.entries)
        body = "".join(entry.above + entry.text for entry in entries.values())
        return self.header + body.lstrip("\n")

    def with_values(self, values, source=None):
        """The same with other values.

        Arguments
        ---------
        values : dict
            Values to merge into those of the YAML.
        source : str
            Where they are from, for messages.

        Returns
        -------
        Configuration
            The configuration with the values.

        Raises
        ------
        InputError
            If the YAML has no such key.
        """
        source = source or "the command line"
        check_known(values, self.entries, f"{source}: '{self.path}' has no key")
        return dataclasses.replace(
            self, entries=_merged(self.entries, _entries_of(values))
        )

    def values(self):
        """The values with references resolved and checked; nothing is built.

        Returns
        -------
        ruamel.yaml.comments.CommentedMap
            Value of each key.

        Raises
        ------
        InputError
            If a value is missing, out of range or refers to nothing.
        """
        # Plain values first: a reference may fail for what is wrong with them.
        plain = {key: entry.value for key, entry in self.entries.items()}
        check_values(plain, self.path)
        values = resolve(self.text, self.path)
        check_values(values, self.path)
        return values

    def check(self):
        """Checks the values; what is a !PLACEHOLDER may stay one.

        Raises
        ------
        InputError
            If a value is out of range or refers to nothing.
        """
        missing = {
            key: "missing"
            for key, entry in self.entries.items()
            if getattr(getattr(entry.value, "tag", None), "value", "") == PLACEHOLDER
        }
        values = resolve(self.with_values(missing).text, self.path)
        check_values({k: v for k, v in values.items() if k not in missing}, self.path)

    def check_effect(self, runs=None):
        """Checks that each key of the command line has an effect.

        Arguments
        ---------
        runs : list of dict
            The values of each stage, or of whatever is run; those of the YAML if None.

        Raises
        ------
        InputError
            If a key has no effect.
        """
        check_effect(self.given, [self.values()] if runs is None else runs)
        referred = {key for e in self.entries.values() for key in references(e)}
        for key in sorted(BY_REFERENCE.intersection(self.given) - referred):
            raise InputError(
                f"{key} has no effect with '{self.path}', where nothing refers to it; "
                "leave it out"
            )

    def build(self, keys=None):
        """Builds what the YAML says.

        Arguments
        ---------
        keys : list of str
            Only these; if None, all.

        Returns
        -------
        dict
            Value of each key.

        Raises
        ------
        InputError
            If something cannot be built; the message names its keys.
        """
        values = self.values()
        text = _dump(values) if keys is None else select_keys(values, keys, self.path)
        try:
            return load_hyperpyyaml(text, loader=_Loader)
        except (InputError, OSError):
            raise
        except Exception as error:
            key, tag = getattr(error, "of_yaml", (None, None))
            if key is None:
                raise
            referred = references(self.entries[key])
            raise not_built(key, tag, error, referred) from error

    def settings(self):
        """What the results of a run depend on, to compare runs.

        Returns
        -------
        dict
            The text of each key, but for those that say where results go and how
            fast they come.
        """
        return {
            key: _without_comments(entry)
            for key, entry in sorted(self.entries.items())
            if key not in WITHOUT_INFLUENCE
        }

    def save(self, path):
        """Writes the self-contained YAML, to be used from any working directory.

        An encoder's folder gets its absolute path; a name on the hub stays.

        Arguments
        ---------
        path : str or Path
            The file.
        """
        source = self.entries["ssl_hub"].value if "ssl_hub" in self.entries else None
        portable = self
        if isinstance(source, str) and Path(source).is_dir():
            portable = self.with_values({"ssl_hub": str(Path(source).absolute())})
        with atomic_path(path) as partial:
            partial.write_text(portable.text, encoding="utf-8")


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
        If a file is missing or is no YAML, a key is unknown, or an option has no
        effect.

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
    given, run_options = _split_arguments(arguments[1:], entries, path, run_options)
    _, run_opts, _ = RunOptions.from_command_line_args([str(path), *run_options])
    preset = given.pop("preset", None)
    given = {
        key: parse_value(key, text, entries[key].value) for key, text in given.items()
    }
    if corpus is not None:
        overrides = compose(corpus)[1]
        check_known(overrides, entries, f"'{corpus}': '{path}' has no key")
        entries = _merged(entries, overrides)
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
        entries = _merged(entries, _preset_entries(preset, entries))
    entries = _merged(entries, _entries_of(given))
    return Configuration(path, header, entries, given, run_opts)


def compose(path, users=()):
    """Reads a YAML and the files that it extends.

    A YAML with the key `extends` takes the keys that it lacks from that file, or
    from a list of files, of which the later takes precedence.

    Arguments
    ---------
    path : str or Path
        The YAML.
    users : tuple of Path
        YAMLs that extend it, to notice a circle.

    Returns
    -------
    header : str
        The comments at its top.
    entries : dict
        The entry of each key.

    Raises
    ------
    InputError
        If a file is missing, is no YAML, or extends itself.
    """
    path = Path(path)
    if path.resolve() in users:
        raise InputError(f"'{path}' extends itself, over {len(users)} files")
    if not path.is_file():
        by = f", which '{users[-1]}' extends" if users else ""
        raise InputError(f"there is no YAML file '{path}'{by}")
    try:
        header, own = _read_entries(path.read_text(encoding="utf-8"))
    except (YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        line = "" if where is None else f", line {where.line + 1}"
        what = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise InputError(f"'{path}'{line}: this is no YAML ({what})") from None
    entries = {}
    if "extends" in own:
        bases = own.pop("extends").value
        for base in [bases] if isinstance(bases, str) else bases:
            base_header, base_entries = compose(
                path.parent / base, (*users, path.resolve())
            )
            _put_above(base_header, base_entries)
            entries = _merged(entries, base_entries)
    return header, _merged(entries, own)


def training_stages(configuration):
    """The stages of a training, each with its values.

    A YAML with the key `stages` has for each stage's name a mapping of overrides,
    over which the command line takes precedence. Each stage writes to a folder of
    its name in output_folder and starts from the best checkpoint of the stage
    before. The key `stage` names the only one to run.

    Arguments
    ---------
    configuration : Configuration
        Configuration of the training.

    Returns
    -------
    list of Configuration
        One for each stage; the given one where the YAML has no stages.

    Raises
    ------
    InputError
        If there is no stage of that name, it sets keys that the YAML lacks, or
        an option of the command line has no effect in any stage.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text(
    ...     "output_folder: out\\nlr: 0.1\\nstart_from: null\\nstage: null\\n"
    ...     "stages: {frozen: {}, joint: {lr: 0.01}}\\n", "utf-8"
    ... )
    >>> for stage in training_stages(read_configuration([str(path)])):
    ...     values = stage.values()
    ...     print(values["output_folder"], values["lr"], values["start_from"])
    out/frozen 0.1 None
    out/joint 0.01 out/frozen
    """
    values = configuration.values()
    if "stages" not in values:
        configuration.check_effect([values])
        return [configuration]
    stages, only = values["stages"], values["stage"]
    if only is not None and only not in stages:
        raise InputError(
            f"stage: '{only}' is none of {', '.join(stages)} in '{configuration.path}'"
        )
    folder = Path(values["output_folder"])
    previous = values["start_from"]
    result = []
    for name, settings in stages.items():
        if not isinstance(settings, dict):
            raise InputError(
                f"stages: {name} must be a mapping such as {{lr: 0.001}}, or {{}}"
            )
        own = {"output_folder": str(folder / name), "start_from": previous}
        if only in (None, name):
            stage = configuration.with_values(settings, f"stages: {name}")
            given = {k: v for k, v in configuration.given.items() if k != "stages"}
            result.append(stage.with_values({**given, **own}))
        previous = own["output_folder"]
    configuration.check_effect([stage.values() for stage in result])
    return result


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


def not_built(key, what, error, keys):
    """The error of something that cannot be built.

    Arguments
    ---------
    key : str
        Key of the YAML.
    what : str
        Its class or function.
    error : Exception
        Why.
    keys : list of str
        Keys of the YAML, that its arguments refer to.

    Returns
    -------
    InputError
        The error to raise.
    """
    # HyperPyYAML puts what it called before the message.
    message = str(error.args[-1] if error.args else "").strip()
    if isinstance(error, AssertionError) and error.__traceback__ is not None:
        # Layers often assert without a message.
        line = traceback.extract_tb(error.__traceback__)[-1].line
        message = f"{line} does not hold" if line.startswith("assert") else message
    reason = message.splitlines()[-1].strip() if message else type(error).__name__
    remedy = f"change {', '.join(keys)}" if keys else f"change {key}"
    return InputError(
        f"{key} ({str(what).partition(':')[2] or what}) cannot be built: {reason}; "
        f"{remedy}"
    )


def resolve(text, source):
    """Resolves the references of a YAML.

    Arguments
    ---------
    text : str
        The YAML.
    source : str or Path
        Name of the file, for messages.

    Returns
    -------
    ruamel.yaml.comments.CommentedMap
        The value of each key.

    Raises
    ------
    InputError
        If a value is missing, or refers to nothing.

    Example
    -------
    >>> resolve("lr: 0.1\\nmin_lr: !ref <lr> / 10\\n", "train.yaml")["min_lr"]
    0.01
    """
    try:
        return _yaml().load(resolve_references(text))
    except ValueError as error:
        reason = " ".join(str(part) for part in error.args)
        placeholder = re.match(r"'(\w+)' is a !PLACEHOLDER", reason)
        if placeholder:
            raise InputError(
                f"{placeholder[1]} has no value in '{source}'; give --{placeholder[1]}"
            ) from None
        raise InputError(f"'{source}': {reason}; mend the reference") from None
    except (ArithmeticError, TypeError, RecursionError) as error:
        raise InputError(
            f"'{source}': a reference cannot be computed ({error}); mend the values "
            "that it refers to"
        ) from None


def select_keys(content, keys, hparams_file):
    """Keeps some keys, so that nothing else is built.

    Arguments
    ---------
    content : dict
        A YAML with its references resolved; the other keys are removed.
    keys : list of str
        Keys to keep.
    hparams_file : str or Path
        Name of the file, for messages.

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
    return _dump(content)


def references_first(entries):
    """Moves the keys that others refer to above those, where they are not.

    HyperPyYAML leaves a reference to a reference further down unresolved.

    Arguments
    ---------
    entries : dict
        The entry of each key.

    Returns
    -------
    dict
        The same in another order.

    Raises
    ------
    InputError
        If keys refer to each other in a circle.
    """
    ordered = {}

    def place(key, users):
        if key in users:
            raise InputError(f"keys refer to each other: {' -> '.join([*users, key])}")
        if key in ordered:
            return
        for name in references(entries[key]):
            if name in entries:
                place(name, [*users, key])
        ordered[key] = entries[key]

    for key in entries:
        place(key, [])
    return ordered


def _yaml():
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    yaml.indent(mapping=4, sequence=6, offset=4)
    return yaml


def _dump(content):
    stream = io.StringIO()
    _yaml().dump(content, stream)
    return stream.getvalue()


def _without_comments(entry):
    """The text of an entry's value."""
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 10**6
    stream = io.StringIO()
    yaml.serialize(yaml.compose(entry.text).value[0][1], stream)
    return stream.getvalue().removesuffix("...\n").strip()


def _read_entries(text):
    """The header of a YAML and its entries, each as it is written."""
    content = _yaml().load(text)
    if content is None:
        return "", {}
    if not isinstance(content, dict):
        raise YAMLError("it has no keys")
    if content.fa.flow_style():
        content.fa.set_block_style()
        text = _dump(content)
        content = _yaml().load(text)
    lines = text.splitlines(keepends=True)
    if not lines[-1].endswith("\n"):
        lines[-1] += "\n"
    starts = [content.lc.key(key)[0] for key in content]
    above = lines[: starts[0]]
    if above and "---" in above[-1]:
        above = []
    entries = {}
    for key, start, end in zip(content, starts, [*starts[1:], len(lines)]):
        stop = end
        while stop > start + 1 and re.match(r"\s*$|#|\.\.\.", lines[stop - 1]):
            stop -= 1
        entries[key] = Entry("".join(above), "".join(lines[start:stop]))
        above = lines[stop:end]
    # What stands above the first key, down to the last blank line, is of the file.
    first = next(iter(entries.values()))
    header, blank, rest = first.above.rpartition("\n\n")
    if "extends" == next(iter(entries)):
        header, blank, rest = first.above, "", ""
    first.above = rest
    return header + blank, entries


def _put_above(header, entries):
    """Keeps the header of a file above its first key."""
    if entries and header.strip():
        key, first = next(iter(entries.items()))
        header = header.rstrip("\n") + "\n\n"
        entries[key] = Entry("\n" + header + first.above, first.text)


def _entries_of(values):
    """Entries without comments."""
    return {
        key: Entry("", _dump({key: str(value) if isinstance(value, Path) else value}))
        for key, value in values.items()
    }


def _merged(entries, others):
    merged = dict(entries)
    for key, entry in others.items():
        merged[key] = merged[key].updated_by(entry) if key in merged else entry
    return merged


def _merges(old, new):
    return isinstance(old, dict) and isinstance(new, dict) and not has_tag(new)


def _merge(old, new):
    for key, value in new.items():
        if key in old and _merges(old[key], value):
            _merge(old[key], value)
        else:
            old[key] = value


def references(entry):
    """The keys that an entry refers to, in their order.

    Arguments
    ---------
    entry : Entry
        Of a YAML.

    Returns
    -------
    list of str
        Each once.

    Example
    -------
    >>> path = getfixture("tmpdir") / "train.yaml"
    >>> path.write_text("lr: 0.1\\nmin_lr: !ref <lr> / 10 + 0 * <lr>\\n", "utf-8")
    >>> _, entries = compose(path)
    >>> references(entries["min_lr"])
    ['lr']
    """
    found = []

    def walk(node):
        if isinstance(node, dict):
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)
        elif has_tag(node):
            found.extend(REFERENCE.findall(str(node.value)))

    walk(entry.value)
    return list(dict.fromkeys(found))


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
        return next(iter(_yaml().load(f"{key}: {text}\n").values()))
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
    known = _known_keys()
    chosen = {}
    for key, entry in compose(path)[1].items():
        check_known([key], {**entries, **known}, f"'{path}': no YAML has a key")
        if key == "stages" and isinstance(entry.value, dict):
            entry = _entries_of({key: _known_stages(path, entry.value, entries)})[key]
        if key in entries:
            chosen[key] = entry
    return chosen


def _known_stages(path, stages, entries):
    result = {}
    for name, settings in stages.items():
        check_known(
            settings or {},
            {**entries, **_known_keys()},
            f"'{path}', stage {name}: no YAML has a key",
        )
        result[name] = {k: v for k, v in (settings or {}).items() if k in entries}
    return result


@functools.cache
def _known_keys():
    """Keys of all YAMLs of the project."""
    paths = [*HPARAMS.glob("*.yaml"), *HPARAMS.glob("pieces/*.yaml")]
    return {
        key: None
        for path in sorted(paths)
        for key in YAML().load(path.read_text(encoding="utf-8"))
    }
