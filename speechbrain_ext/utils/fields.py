"""Fields of text files: one writer and one reader, for names of any kind.

A line has fields separated by spaces, as in VoxCeleb's and Kaldi's lists; where a
name in the file has a space or anything odd, by tabs. A name that has a tab, a line
break, another character that does not print, a backslash, or a space or quotation
mark at its edge is written as a JSON string, such as "anna\\u00a0maria/1.wav", which
any reader of JSON understands; bytes that are not UTF-8 are lone surrogates there, as
Python has them in file names. Reading undoes this. In lists that others wrote, a
backslash is that of a Windows path and becomes a slash.

CSV files have the same names in their columns; there backslashes stay.
"""

import csv
import json
import unicodedata
from pathlib import Path

from speechbrain_ext.utils.errors import InputError
from speechbrain_ext.utils.files import atomic_path, open_text

# Space, tab and line breaks alone: names may have other white space.
SEPARATORS = " \t\r\n"


def escaped(name):
    """Writes a name as a field.

    Arguments
    ---------
    name : str
        Any file name or path.

    Returns
    -------
    str
        The name itself, or a JSON string of it where it has odd characters.

    Example
    -------
    >>> escaped("anna maria/1.wav")
    'anna maria/1.wav'
    >>> print(escaped("anna\\tmaria/1.wav"))
    "anna\\tmaria/1.wav"
    """
    is_plain = (
        name
        and name.isprintable()
        and "\\" not in name
        and name == name.strip()
        and not name.startswith('"')
    )
    return name if is_plain else json.dumps(name)


def unescaped(field):
    """Reads a name from a field of `escaped`.

    Arguments
    ---------
    field : str
        The field.

    Returns
    -------
    str
        The name; the field itself where it is no JSON string.

    Example
    -------
    >>> unescaped(escaped("anna\\tmaria/1.wav")) == "anna\\tmaria/1.wav"
    True
    """
    if field.startswith('"'):
        try:
            return json.loads(field)
        except json.JSONDecodeError:
            pass
    return field


def same_name(name):
    """A form that is the same for names that mean the same.

    The same accented letter is one character or two, by who wrote it (NFC and
    NFD), and folders of Windows are separated by backslashes.

    Arguments
    ---------
    name : str
        Any name.

    Returns
    -------
    str
        The name in a form that compares with that of others.

    Example
    -------
    >>> same_name("Jose\\u0301\\\\1.wav") == same_name("Jos\\u00e9/1.wav")
    True
    """
    return unicodedata.normalize("NFC", name).replace("\\", "/")


def find_same_names(names, known):
    """Finds for each name the known one that is the same or means the same.

    Arguments
    ---------
    names : iterable of str
        Sought.
    known : collection of str
        Names to look among; a dict or set is quick.

    Returns
    -------
    dict
        The known name of each name that is found.

    Example
    -------
    >>> found = find_same_names(["Jose\\u0301", "anna"], ["Jos\\u00e9"])
    >>> found == {"Jose\\u0301": "Jos\\u00e9"}
    True
    """
    names = set(names)
    found = {name: name for name in names if name in known}
    others = names - set(found)
    if others:
        by_meaning = {same_name(name): name for name in known}
        for name in others:
            if same_name(name) in by_meaning:
                found[name] = by_meaning[same_name(name)]
    return found


def write_fields(path, rows):
    """Writes a line of fields for each row, atomically.

    Arguments
    ---------
    path : str or Path
        File to write.
    rows : iterable of tuple
        Names and numbers.

    Example
    -------
    >>> path = getfixture("tmpdir") / "trials.txt"
    >>> write_fields(path, [(1, "a/1", "a/2"), (0, "a/1", "b/1")])
    >>> path.read_text("utf-8")
    '1 a/1 a/2\\n0 a/1 b/1\\n'
    >>> write_fields(path, [("a 1", "a 2"), ("a 1", "b\\n1")])
    >>> path.read_text("utf-8")
    'a 1\\ta 2\\na 1\\t"b\\\\n1"\\n'
    """
    rows = [[escaped(str(field)) for field in row] for row in rows]
    has_spaces = any(" " in field for row in rows for field in row)
    separator = "\t" if has_spaces else " "
    with atomic_path(path) as partial:
        with open(partial, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(separator.join(row) + "\n" for row in rows)


def read_fields(path, kind, counts=None):
    """Reads the fields of each line that is not blank.

    Arguments
    ---------
    path : str or Path
        UTF-8 text, with or without a byte-order mark and with line ends of any
        system.
    kind : str
        What the file is, for messages, such as "trial list".
    counts : collection of int
        How many fields a line may have; any number if None.

    Yields
    ------
    number : int
        Number of the line, from 1.
    fields : list of str
        Not empty.

    Raises
    ------
    InputError
        If the file is missing, is no UTF-8 text, or a line has another number
        of fields.

    Example
    -------
    >>> path = getfixture("tmpdir") / "utt2spk"
    >>> path.write_text("a-1 a\\n\\nb-1 b\\n", "utf-8")
    >>> list(read_fields(path, "utt2spk file", [2]))
    [(1, ['a-1', 'a']), (3, ['b-1', 'b'])]
    """
    if not Path(path).is_file():
        raise InputError(f"there is no {kind} '{path}'")
    with open_text(path) as lines:
        for number, line in enumerate(lines, start=1):
            if "\0" in line:
                raise InputError(
                    f"'{path}', line {number}: this is no text in UTF-8; a {kind} "
                    "is a text file"
                )
            line = line.strip(SEPARATORS)
            if not line:
                continue
            fields = line.split("\t") if "\t" in line else line.split(" ")
            fields = [field.strip(SEPARATORS) for field in fields]
            fields = [field for field in fields if field]
            if counts is not None and len(fields) not in counts:
                raise InputError(
                    f"'{path}', line {number}: {len(fields)} fields, where a line of "
                    f"a {kind} has {' or '.join(map(str, counts))}; spaces separate "
                    "them or, where names have some, tabs"
                )
            yield number, [_name_of_list(field) for field in fields]


def write_csv(path, columns, rows):
    """Writes a CSV file with a header, atomically.

    Arguments
    ---------
    path : str or Path
        File to write.
    columns : tuple of str
        Names of the columns.
    rows : iterable of tuple
        Names and numbers.
    """
    with atomic_path(path) as partial:
        with open(partial, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([escaped(str(field)) for field in row] for row in rows)


def read_csv(path, kind, columns):
    """Reads columns of a CSV file by the names in its header.

    Arguments
    ---------
    path : str or Path
        UTF-8 text, with or without a byte-order mark and with line ends of any
        system.
    kind : str
        What the file is, for messages, such as "manifest".
    columns : tuple of str
        Names of the columns that are read, in upper or lower case; others do no
        harm.

    Yields
    ------
    number : int
        Number of the line, from 1.
    fields : list of str
        Fields of the columns; in a row that is too short, "" in place of what it lacks.

    Raises
    ------
    InputError
        If the file or a column is missing, or it is no UTF-8 text.

    Example
    -------
    >>> path = getfixture("tmpdir") / "genders.csv"
    >>> write_csv(path, ("speaker", "age", "gender"), [("anna", 30, "F")])
    >>> list(read_csv(path, "table", ("speaker", "gender")))
    [(2, ['anna', 'F'])]
    """
    if not Path(path).is_file():
        raise InputError(f"there is no {kind} '{path}'")
    with open_text(path, newline="") as file:
        rows = csv.reader(file)
        places = None
        try:
            for row in rows:
                if not any(row):
                    continue
                if places is None:
                    places = _places(row, path, kind, columns)
                    continue
                row += [""] * (1 + max(places) - len(row))
                yield rows.line_num, [unescaped(row[place]) for place in places]
        except csv.Error as error:
            raise InputError(
                f"'{path}', line {rows.line_num}: this is no CSV ({error}); a {kind} "
                "is a CSV file"
            ) from None
        if places is None:
            _places([], path, kind, columns)


def _places(header, path, kind, columns):
    """Where the columns are, by the header."""
    header = [name.strip().lower() for name in header]
    missing = [column for column in columns if column.lower() not in header]
    if missing:
        raise InputError(
            f"'{path}' lacks the columns {', '.join(missing)}; the first line of a "
            f"{kind} names its columns"
        )
    return [header.index(column.lower()) for column in columns]


def _name_of_list(field):
    name = unescaped(field)
    return name.replace("\\", "/") if name == field else name
