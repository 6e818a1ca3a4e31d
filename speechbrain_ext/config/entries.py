"""The keys of a YAML as they are written, with their comments, and how they merge.

All merge as SpeechBrain's overrides do: a mapping merges into a mapping, key by
key, and all else replaces what was there. A mapping with a tag such as `!new:` says
what to build, and replaces the one before.
"""

import copy
import functools
import io
import re
from pathlib import Path

from ruamel.yaml import YAML, YAMLError

from speechbrain_ext.schema import has_tag
from speechbrain_ext.utils.errors import InputError

REFERENCE = re.compile(r"<(\w+)[^>]*>")


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
        return yaml_as_written().load(self.text)

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
            return Entry(above, dump(mapping))
        text = other.text
        if self.comment and not other.comment and text.count("\n") == 1:
            text = f"{text.rstrip()} {self.comment}\n"
        return Entry(above, text)


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
            entries = merged(entries, base_entries)
    return header, merged(entries, own)


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
        for name in references_of(entries[key]):
            if name in entries:
                place(name, [*users, key])
        ordered[key] = entries[key]

    for key in entries:
        place(key, [])
    return ordered


def entries_of(values):
    """Entries without comments."""
    return {
        key: Entry("", dump({key: str(value) if isinstance(value, Path) else value}))
        for key, value in values.items()
    }


def merged(entries, others):
    merged = dict(entries)
    for key, entry in others.items():
        merged[key] = merged[key].updated_by(entry) if key in merged else entry
    return merged


def references_of(entry):
    """The keys that an entry refers to, in their order."""
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


def without_comments(entry):
    """The text of an entry's value."""
    yaml = YAML(typ="safe", pure=True)
    yaml.width = 10**6
    stream = io.StringIO()
    yaml.serialize(yaml.compose(entry.text).value[0][1], stream)
    return stream.getvalue().removesuffix("...\n").strip()


def yaml_as_written():
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 10**6
    yaml.indent(mapping=4, sequence=6, offset=4)
    return yaml


def dump(content):
    stream = io.StringIO()
    yaml_as_written().dump(content, stream)
    return stream.getvalue()


def _read_entries(text):
    """The header of a YAML and its entries, each as it is written."""
    content = yaml_as_written().load(text)
    if content is None:
        return "", {}
    if not isinstance(content, dict):
        raise YAMLError("it has no keys")
    if content.fa.flow_style():
        content.fa.set_block_style()
        text = dump(content)
        content = yaml_as_written().load(text)
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


def _merges(old, new):
    return isinstance(old, dict) and isinstance(new, dict) and not has_tag(new)


def _merge(old, new):
    for key, value in new.items():
        if key in old and _merges(old[key], value):
            _merge(old[key], value)
        else:
            old[key] = value
