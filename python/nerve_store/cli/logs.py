"""`nerve-store logs`: the rows of the log."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from nerve_store import LogEntry
from nerve_store.cli.arguments import integer, not_empty, since, until
from nerve_store.cli.output import ENTRY_FIELDS, print_csv, print_entries, print_entry
from nerve_store.cli.stores import last_id, open_logs
from nerve_store.protocols import Log

__all__ = ["add_arguments"]

_NEWEST = 20
_FORMATS = ("text", "jsonl", "csv")


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the filters."""
    parser.set_defaults(run=_run, usage_error=parser.error)
    parser.add_argument("--source", metavar="TEXT", help="rows of this source")
    parser.add_argument("--type", metavar="TEXT", help="rows of this type")
    parser.add_argument("--ref-id", metavar="TEXT", help="rows of this run, or whatever the row refers to")
    time_help = "2h, 3d, today, ISO 8601 (UTC where it names no zone), or milliseconds of 12 digits or more"
    parser.add_argument("--since", metavar="TIME", type=since, help=f"this time or later: {time_help}")
    parser.add_argument(
        "--until", metavar="TIME", type=until, help="this time or earlier; a bare date, week or month: its last"
    )
    parser.add_argument("--after-id", metavar="ID", type=integer(0), help="rows after this id")
    parser.add_argument("--before-id", metavar="ID", type=integer(0), help="rows before this id")
    parser.add_argument(
        "--grep", metavar="TEXT", type=not_empty, help="rows with this text in source, type, ref_id or payload"
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "-n",
        "--lines",
        metavar="N",
        dest="newest",
        type=integer(0),
        help=f"the newest N of them (default: {_NEWEST}; with --follow after an id: none)",
    )
    which.add_argument("--all", action="store_true", help="all of them")
    which.add_argument("--limit", metavar="N", type=integer(0), help="the first N of them")
    parser.add_argument("--descending", action="store_true", help="newest id first")
    parser.add_argument(
        "--archived",
        action="store_true",
        help="also rows that left the database for the archive; --follow reads them anyway",
    )
    parser.add_argument(
        "-f", "--follow", action="store_true", help="go on with rows as they come, after the newest or from --after-id"
    )
    parser.add_argument("--relative", action="store_true", help="also print how long ago each row was")
    parser.add_argument("--format", choices=_FORMATS, help="text (default), jsonl (as --json) or csv")


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `iter` and `follow` both take."""
    return {name: getattr(arguments, name) for name in ("source", "type", "ref_id", "since", "until", "after_id")}


def _run(arguments: argparse.Namespace) -> int:
    if arguments.format == "jsonl":
        arguments.json = True
    if arguments.json and arguments.format in ("text", "csv"):
        arguments.usage_error(f"--json and --format {arguments.format} exclude each other")
    if arguments.follow:
        return _follow(arguments)
    with open_logs(arguments.place) as store:
        _print(_wanted(store, arguments), arguments)
    return 0


def _print(entries: Iterable[LogEntry], arguments: argparse.Namespace) -> None:
    if arguments.format == "csv":
        print_csv([ENTRY_FIELDS])
        print_csv([getattr(entry, name) for name in ENTRY_FIELDS] for entry in entries)
    else:
        print_entries(entries, as_json=arguments.json, relative=arguments.relative)


def _wanted(store: Log, arguments: argparse.Namespace) -> Iterable[LogEntry]:
    """The rows, in the order in which they are printed."""
    newest = arguments.newest
    if newest is None and arguments.limit is None and not arguments.all:
        newest = _NEWEST
    is_descending = arguments.descending or newest is not None
    limit = arguments.limit if newest is None else newest
    entries: Iterable[LogEntry] = store.iter(
        **_filters(arguments),
        before_id=arguments.before_id,
        limit=limit if arguments.grep is None else None,
        descending=is_descending,
        archived=arguments.archived,
    )
    if arguments.grep is not None:
        entries = islice(_matching(entries, arguments.grep), limit)
    if newest is None or arguments.descending:
        return entries
    found = list(entries)
    found.reverse()
    return found


def _matching(entries: Iterable[LogEntry], text: str) -> Iterator[LogEntry]:
    for entry in entries:
        if any(
            value is not None and text in value for value in (entry.source, entry.type, entry.ref_id, entry.payload)
        ):
            yield entry


def _follow(arguments: argparse.Namespace) -> int:
    if arguments.descending or arguments.before_id is not None or arguments.format == "csv":
        arguments.usage_error(
            "--follow goes forward without an end: leave out --descending, --before-id and --format csv"
        )
    with open_logs(arguments.place) as store:
        filters = _filters(arguments)
        if arguments.after_id is None:
            # What is appended from now on is followed, whatever is printed of what was there.
            last = last_id(store)
            if arguments.limit is None:
                before = argparse.Namespace(**{**vars(arguments), "before_id": last + 1})
                for entry in _wanted(store, before):
                    print_entry(entry, as_json=arguments.json, relative=arguments.relative)
            filters["after_id"] = last
        rows: Iterable[LogEntry] = store.follow(**filters)
        if arguments.grep is not None:
            rows = _matching(rows, arguments.grep)
        for entry in islice(rows, arguments.limit):
            print_entry(entry, as_json=arguments.json, relative=arguments.relative)
    return 0
