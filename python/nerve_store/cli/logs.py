"""`nerve-store logs`: the rows of the log."""

from __future__ import annotations

import argparse
from itertools import islice
from typing import Any

from nerve_store.cli.arguments import integer, since, until
from nerve_store.cli.output import print_entries, print_entry
from nerve_store.cli.stores import open_logs

__all__ = ["add_arguments"]


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
    parser.add_argument("--limit", metavar="N", type=integer(0), help="at most so many rows")
    parser.add_argument("--descending", action="store_true", help="newest id first")
    parser.add_argument(
        "--archived",
        action="store_true",
        help="also rows that left the database for the archive; --follow reads them anyway",
    )
    parser.add_argument(
        "--follow", action="store_true", help="go on with rows as they come, from now on or from --after-id"
    )


def _filters(arguments: argparse.Namespace) -> dict[str, Any]:
    """What `iter` and `follow` both take."""
    return {name: getattr(arguments, name) for name in ("source", "type", "ref_id", "since", "until", "after_id")}


def _run(arguments: argparse.Namespace) -> int:
    if arguments.follow:
        return _follow(arguments)
    with open_logs(arguments.data) as store:
        entries = store.iter(
            **_filters(arguments),
            before_id=arguments.before_id,
            limit=arguments.limit,
            descending=arguments.descending,
            archived=arguments.archived,
        )
        print_entries(entries, as_json=arguments.json)
    return 0


def _follow(arguments: argparse.Namespace) -> int:
    if arguments.descending or arguments.before_id is not None:
        arguments.usage_error("--follow goes forward without an end: leave out --descending and --before-id")
    with open_logs(arguments.data) as store:
        rows = store.follow(**_filters(arguments))
        for entry in islice(rows, arguments.limit):
            print_entry(entry, as_json=arguments.json)
    return 0
