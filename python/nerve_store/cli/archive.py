"""`nerve-store archive`: move old days out of the database, and look at those that left."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from datetime import timedelta

from nerve_store import DEFAULT_RETENTION, ArchivedDay, ArchiveResult
from nerve_store.cli.arguments import add_command, calendar_day, integer, refuse_options
from nerve_store.cli.output import Column, print_entries, print_json, print_line, print_table
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_count

__all__ = ["add_arguments"]

_RUN_OPTIONS = ("retention_days", "max_days", "vacuum", "dry_run")
_MOST_DAYS = 4_000_000
"""More than there are from year 1 to year 9999."""


def add_arguments(parser: argparse.ArgumentParser, common: argparse.ArgumentParser) -> None:
    """Add the command's options and its subcommands."""
    parser.add_argument(
        "--retention-days",
        metavar="N",
        type=integer(0, _MOST_DAYS),
        default=DEFAULT_RETENTION.days,
        help="how many days stay in the database (default: %(default)s)",
    )
    parser.add_argument("--max-days", metavar="N", type=integer(0, _MOST_DAYS), help="move at most so many days")
    parser.add_argument("--vacuum", action="store_true", help="return the freed space to the file system")
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")
    parser.set_defaults(run=_archive, archive_parser=parser)
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    add_command(subcommands, "list", common, "list the days in the archive").set_defaults(run=_list)
    cat = add_command(subcommands, "cat", common, "print the rows of an archived day")
    cat.set_defaults(run=_cat)
    cat.add_argument("day", metavar="DAY", type=calendar_day, help="a UTC day, YYYY-MM-DD")


def _archive(arguments: argparse.Namespace) -> int:
    with open_logs(arguments.data, writable=not arguments.dry_run) as store, progress_bar("archiving rows") as progress:
        result = store.archive_logs(
            retention=timedelta(days=arguments.retention_days),
            max_days=arguments.max_days,
            vacuum=arguments.vacuum,
            dry_run=arguments.dry_run,
            progress=progress,
        )
    if arguments.json:
        print_json(result)
    else:
        _print_result(result)
    return 0


def _print_result(result: ArchiveResult) -> None:
    moved = sum(day.added_rows for day in result.days)
    if result.days:
        columns = (Column("day"), Column("moved", right=True), Column("in file", right=True), Column("file"))
        print_table(columns, [(str(day.day), str(day.added_rows), str(day.row_count), day.path) for day in result.days])
    verb = "would move" if result.dry_run else "moved"
    print_line(f"{verb} {format_count(moved, 'row')} of {format_count(len(result.days), 'day')}")
    if result.pinned_rows:
        print_line(f"{format_count(result.pinned_rows, 'row')} of active runs stay until those runs end")
    if result.unarchivable_rows:
        print_line(f"{format_count(result.unarchivable_rows, 'row')} stay: no timestamp of the years 1970 to 9999")
    if result.vacuumed:
        print_line("would return free space to the file system" if result.dry_run else "returned free space")


def _list(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, _RUN_OPTIONS)
    with open_logs(arguments.data) as store:
        days = store.archived_days()
    if arguments.json:
        print_json([_listed(day) for day in days])
    else:
        _print_days(days)
    return 0


def _listed(day: ArchivedDay) -> dict[str, object]:
    """The day without `added_rows`, which only an archive run knows."""
    return {"day": day.day, "row_count": day.row_count, "size": day.size, "sha256": day.sha256, "path": day.path}


def _print_days(days: Iterable[ArchivedDay]) -> None:
    columns = (Column("day"), Column("rows", right=True), Column("bytes", right=True), Column("sha256"), Column("file"))
    print_table(columns, ((str(day.day), str(day.row_count), str(day.size), day.sha256, day.path) for day in days))


def _cat(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, _RUN_OPTIONS)
    with open_logs(arguments.data) as store:
        print_entries(store.read_archive(arguments.day), as_json=arguments.json)
    return 0
