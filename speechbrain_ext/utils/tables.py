"""Tables of results, as Markdown for people and as CSV."""

import csv
import io
from pathlib import Path

from speechbrain_ext.utils.files import atomic_path


def write_table(path, rows):
    """Writes rows as Markdown and as CSV.

    Arguments
    ---------
    path : str or Path
        Without extension.
    rows : list of dict
        Rows; a cell is empty where a row lacks the key of another.

    Returns
    -------
    list of Path
        The files.

    Example
    -------
    >>> path = getfixture("tmpdir") / "table"
    >>> markdown, _ = write_table(path, [{"system": "LAP", "EER %": "1.0"}])
    >>> print(markdown.read_text("utf-8"))
    | system | EER % |
    |---|---|
    | LAP | 1.0 |
    <BLANKLINE>
    """
    header = list(dict.fromkeys(key for row in rows for key in row))
    rows = [{key: row.get(key, "") for key in header} for row in rows]
    markdown = [_markdown(header), "|" + "---|" * len(header)]
    markdown += [_markdown(row.values()) for row in rows]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, header, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    written = []
    for suffix, text in (
        (".md", "\n".join(markdown) + "\n"),
        (".csv", stream.getvalue()),
    ):
        target = Path(f"{path}{suffix}")
        with atomic_path(target) as partial:
            partial.write_text(text, encoding="utf-8")
        written.append(target)
    return written


def _markdown(cells):
    return "| " + " | ".join(map(str, cells)) + " |"
