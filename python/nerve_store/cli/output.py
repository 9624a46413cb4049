"""What the commands print: aligned tables for people, JSON for machines."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from nerve_store import LogEntry
from nerve_store.cli.json_text import json_chunks
from nerve_store.cli.text import cut, display_width, escape, format_age, format_timestamp, wrap

__all__ = [
    "ENTRY_FIELDS",
    "Column",
    "colored",
    "print_csv",
    "print_entries",
    "print_entry",
    "print_json",
    "print_line",
    "print_pairs",
    "print_table",
    "print_text",
    "table_time",
]

ENTRY_FIELDS = ("id", "source", "type", "ref_id", "payload", "timestamp")

_LEAST_OF_THE_LAST = 16
_ROWS_MEASURED_AT_ONCE = 500
"""Tables are printed as they come, so that any number of rows fits; the columns are as wide as these rows need."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    """Aligned to the right, as numbers are."""
    least: int | None = None
    """It may be cut to so many columns of a narrow terminal; None: it is never cut."""
    color: Callable[[str], str] | None = None
    """The SGR parameters for a cell on a terminal that shows colors; "": none."""


def print_line(line: str) -> None:
    """Print `line`; what the output's encoding cannot say is escaped."""
    _Output().write(line + "\n")


class _Output:
    """Standard output, in which what its encoding cannot say is escaped."""

    def write(self, text: str) -> None:
        try:
            sys.stdout.write(text)
        except UnicodeEncodeError:
            encoding = sys.stdout.encoding
            sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))


def print_csv(rows: Iterable[Iterable[object]]) -> None:
    """Print `rows` as CSV."""
    import csv

    csv.writer(_Output(), lineterminator="\n").writerows(rows)


def print_text(text: str, indent: str = "", color: str = "") -> None:
    """Print `text`, escaped, after `indent`, on as many lines as the width asks for, the later ones indented by blanks.

    `color`: the SGR parameters for the indent.
    """
    available = _available()
    blanks = " " * display_width(indent)
    lines = [escape(text)]
    if available is not None:
        lines = wrap(lines[0], max(available - len(blanks), 20))
    first = f"\x1b[{color}m{indent}\x1b[0m" if color and colored() else indent
    for number, line in enumerate(lines):
        print_line(((blanks if number else first) + line).rstrip())


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a heading and `rows`, aligned and escaped; where a width is known, cells are cut to fit."""
    widths = [display_width(column.title) for column in columns]
    available, has_colors = _available(), colored()
    waiting = iter(rows)
    heading: list[Sequence[str]] = [[column.title for column in columns]]
    while batch := heading + [[escape(cell) for cell in row] for row in islice(waiting, _ROWS_MEASURED_AT_ONCE)]:
        is_heading = bool(heading)
        heading = []
        for row in batch:
            widths = [max(width, display_width(cell)) for width, cell in zip(widths, row, strict=True)]
        fitted = widths if available is None else _fitted(columns, widths, available)
        for row in batch:
            print_line(_aligned(columns, fitted, row, has_colors=has_colors and not is_heading))
            is_heading = False


def _fitted(columns: Sequence[Column], widths: Sequence[int], available: int) -> list[int]:
    """The widths, the widest of those that may be cut made smaller until the table fits, or none is left."""
    fitted = list(widths)
    last = len(columns) - 1
    leasts = [
        column.least if column.least is not None else (_LEAST_OF_THE_LAST if index == last else width)
        for index, (column, width) in enumerate(zip(columns, widths, strict=True))
    ]
    excess = sum(fitted) + 2 * last - available
    while excess > 0:
        elastic = sorted((fitted[index], index) for index in range(len(columns)) if fitted[index] > leasts[index])
        if not elastic:
            break
        width, index = elastic[-1]
        others = elastic[-2][0] if len(elastic) > 1 else 0
        step = max(1, min(excess, width - max(others, leasts[index])))
        fitted[index] -= step
        excess -= step
    return fitted


def _aligned(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], *, has_colors: bool) -> str:
    cells: list[str] = []
    for column, width, whole in zip(columns, widths, row, strict=True):
        cell = cut(whole, width)
        padding = " " * (width - display_width(cell))
        color = column.color(whole) if has_colors and column.color is not None else ""
        if color:
            cell = f"\x1b[{color}m{cell}\x1b[0m"
        cells.append(padding + cell if column.right else cell + padding)
    return "  ".join(cells).rstrip()


def colored() -> bool:
    """Whether colors are shown: on a terminal that has them, unless `NO_COLOR` is set."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _available() -> int | None:
    """How wide a line may be: `COLUMNS`, else the terminal; None: anything."""
    named = os.environ.get("COLUMNS", "")
    if named.isdecimal() and int(named) > 0:
        return int(named)
    if not sys.stdout.isatty():
        return None
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns or None
    except OSError:
        return None


def print_pairs(pairs: Iterable[tuple[str, str]]) -> None:
    """Print names and values, one pair a line."""
    listed = list(pairs)
    width = max(len(name) for name, _ in listed)
    for name, value in listed:
        print_text(value, f"{name:<{width}}  ")


def table_time(milliseconds: int) -> str:
    """A time in a table: to the second where the width is known, for what matters more than milliseconds."""
    text = format_timestamp(milliseconds)
    return text if _available() is None else re.sub(r"\.[0-9]{3}Z$", "Z", text)


def print_entries(entries: Iterable[LogEntry], *, as_json: bool, relative: bool = False) -> None:
    """Print log rows as they come: a table, or one JSON object a line."""
    if as_json:
        for entry in entries:
            sys.stdout.write(json.dumps(_fields(entry)) + "\n")
        return
    columns = [
        Column("id", right=True),
        Column("timestamp"),
        Column("source", least=6),
        Column("type", least=6),
        Column("ref_id", least=6),
        Column("payload"),
    ]
    if relative:
        columns.insert(2, Column("age", right=True))
    print_table(columns, (_entry_cells(entry, relative=relative) for entry in entries))


def print_entry(entry: LogEntry, *, as_json: bool, relative: bool = False) -> None:
    """Print one log row on a line of its own at once, for rows that come one by one."""
    if as_json:
        print_line(json.dumps(_fields(entry)))
    else:
        line = "  ".join(escape(cell) for cell in _entry_cells(entry, relative=relative))
        available = _available()
        print_line(line if available is None else cut(line, available))
    sys.stdout.flush()


def _fields(entry: LogEntry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in ENTRY_FIELDS}


def _entry_cells(entry: LogEntry, *, relative: bool) -> Sequence[str]:
    return (
        str(entry.id),
        table_time(entry.timestamp),
        *([format_age(entry.timestamp)] if relative else []),
        entry.source,
        entry.type,
        "-" if entry.ref_id is None else entry.ref_id,
        "-" if entry.payload is None else entry.payload,
    )


def print_json(value: object) -> None:
    """Print one JSON document.

    Pure ASCII, because any encoding can carry it and no payload can then steer a terminal.
    """
    for chunk in json_chunks(value, indented=True, ensure_ascii=True):
        sys.stdout.write(chunk)
    sys.stdout.write("\n")
