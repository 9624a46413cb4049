"""What the commands print: aligned tables for people, JSON for machines."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import NamedTuple

from nerve_store import LogEntry
from nerve_store.cli.json_text import json_chunks
from nerve_store.cli.text import cut, display_width, escape, format_timestamp

__all__ = ["Column", "print_entries", "print_entry", "print_json", "print_line", "print_pairs", "print_table"]

_ROWS_MEASURED_AT_ONCE = 500
"""Tables are printed as they come, so that any number of rows fits; the columns are as wide as these rows need."""


class Column(NamedTuple):
    """A column of a table."""

    title: str
    right: bool = False
    """Aligned to the right, as numbers are."""


def print_line(line: str) -> None:
    """Print `line`; what the output's encoding cannot say is escaped."""
    try:
        sys.stdout.write(line + "\n")
    except UnicodeEncodeError:
        encoding = sys.stdout.encoding
        sys.stdout.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


def print_table(columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> None:
    """Print a heading and `rows`, aligned and escaped; on a terminal the last column is cut to fit."""
    widths = [display_width(column.title) for column in columns]
    terminal_columns = _terminal_columns()
    waiting = iter(rows)
    heading: list[Sequence[str]] = [[column.title for column in columns]]
    while batch := heading + [[escape(cell) for cell in row] for row in islice(waiting, _ROWS_MEASURED_AT_ONCE)]:
        heading = []
        for row in batch:
            widths = [max(width, display_width(cell)) for width, cell in zip(widths, row, strict=True)]
        for row in batch:
            print_line(_aligned(columns, widths, row, terminal_columns))


def _aligned(columns: Sequence[Column], widths: Sequence[int], row: Sequence[str], terminal_columns: int | None) -> str:
    cells = []
    for column, width, cell in zip(columns[:-1], widths[:-1], row[:-1], strict=True):
        padding = " " * (width - display_width(cell))
        cells.append(padding + cell if column.right else cell + padding)
    last = row[-1]
    if columns[-1].right:
        last = " " * (widths[-1] - display_width(last)) + last
    if terminal_columns is not None:
        last = cut(last, max(terminal_columns - sum(widths[:-1]) - 2 * len(cells), 16))
    return "  ".join([*cells, last]).rstrip()


def _terminal_columns() -> int | None:
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
        print_line(f"{name:<{width}}  {escape(value)}".rstrip())


def print_entries(entries: Iterable[LogEntry], *, as_json: bool) -> None:
    """Print log rows as they come: a table, or one JSON object a line."""
    if as_json:
        for entry in entries:
            sys.stdout.write(json.dumps(_fields(entry)) + "\n")
        return
    columns = (
        Column("id", right=True),
        Column("timestamp"),
        Column("source"),
        Column("type"),
        Column("ref_id"),
        Column("payload"),
    )
    print_table(columns, map(_entry_cells, entries))


def print_entry(entry: LogEntry, *, as_json: bool) -> None:
    """Print one log row on a line of its own at once, for rows that come one by one."""
    line = json.dumps(_fields(entry)) if as_json else "  ".join(_entry_cells(entry))
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _fields(entry: LogEntry) -> dict[str, object]:
    return {name: getattr(entry, name) for name in LogEntry.__match_args__}


def _entry_cells(entry: LogEntry) -> Sequence[str]:
    return (
        str(entry.id),
        format_timestamp(entry.timestamp),
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
