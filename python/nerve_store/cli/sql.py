"""`nerve-store sql`: one read-only statement."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import count
from typing import Any

from nerve_store.cli.arguments import not_empty
from nerve_store.cli.output import Column, print_csv, print_json, print_table
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import escape

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the statement and its parameters."""
    parser.set_defaults(run=_run, usage_error=parser.error)
    parser.add_argument("query", metavar="QUERY", type=not_empty, help="a statement that only reads")
    parser.add_argument(
        "parameters", metavar="VALUE", nargs="*", help="the values of ? in it (of %%s on a server), in order, as text"
    )
    parser.add_argument("--timeout", metavar="SECONDS", type=_seconds, help="give up after so long")
    parser.add_argument("--format", choices=("text", "csv"), help="text (default) or csv, without a heading")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _run(arguments: argparse.Namespace) -> int:
    if arguments.json and arguments.format is not None:
        arguments.usage_error("--json and --format exclude each other")
    with open_logs(arguments.place) as store:
        names, rows = store._sql_with_names(  # noqa: SLF001
            arguments.query, arguments.parameters, timeout=arguments.timeout
        )
    if arguments.json:
        keys = _distinct(names)
        print_json([dict(zip(keys, map(_plain, row), strict=True)) for row in rows])
    elif arguments.format == "csv":
        print_csv([_plain(value) for value in row] for row in rows)
    else:
        columns = [Column(escape(name), least=6) for name in names]
        print_table(columns, ([_cell(value) for value in row] for row in rows))
    return 0


def _distinct(names: Sequence[str]) -> list[str]:
    """The names; one that was there before gets a number after it, as SQLite does it for a subquery."""
    found: list[str] = []
    for name in names:
        key = name
        for number in count(1):
            if key not in found and (key == name or key not in names):
                break
            key = f"{name}:{number}"
        found.append(key)
    return found


_JSON = (str, int, float, list, dict, type(None))


def _plain(value: Any) -> Any:
    """What JSON can say of a value; a server has types that JSON has not."""
    if isinstance(value, bytes):
        return value.hex()
    return value if type(value) in _JSON or isinstance(value, bool) else str(value)


def _cell(value: Any) -> str:
    return "-" if value is None else str(_plain(value))
