"""`nerve-store archive`: move old days out of the database, and look at those that left."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

from nerve_store import DEFAULT_RETENTION, ArchivedDay, ArchiveResult, VerifyProblem
from nerve_store.cli.archive_upkeep import add_upkeep_commands
from nerve_store.cli.arguments import add_command, calendar_day, integer, refuse_options
from nerve_store.cli.output import Column, print_entries, print_json, print_table, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.problem import counting_problems, located, report
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import log_path, missing_days, open_logs
from nerve_store.cli.text import format_bytes, format_count, format_timestamp
from nerve_store.protocols import Log

__all__ = ["add_arguments"]

_RUN_OPTIONS = ("retention_days", "max_days", "zstd", "vacuum", "incremental_vacuum", "wait", "dry_run")
_MOST_DAYS = 4_000_000
"""More than there are from year 1 to year 9999."""
_LISTED = ("day", "format", "row_count", "first_id", "last_id", "size", "sha256", "archived_at", "path")
_LONGEST_WAIT = 366 * 24 * 3600


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
    parser.add_argument("--zstd", action="store_true", help="compress the files of the days that gain rows")
    # No `--vacuum [KIND]`: it would take the name of a subcommand for its kind.
    vacuum = parser.add_mutually_exclusive_group()
    vacuum.add_argument("--vacuum", action="store_true", help="return the freed space to the file system, all at once")
    vacuum.add_argument("--incremental-vacuum", action="store_true", help="return it in slices, while others write")
    parser.add_argument(
        "--wait",
        metavar="SECONDS",
        type=integer(0, _LONGEST_WAIT),
        default=0,
        help="wait so long for another archive job to end (default: %(default)s)",
    )
    parser.add_argument("--dry-run", action="store_true", help="change nothing; say what would be done")
    parser.set_defaults(run=_archive, archive_parser=parser)
    subcommands = parser.add_subparsers(title="subcommands", metavar="COMMAND")
    listing = add_command(subcommands, "list", common, "list the days in the archive", example="archive list --json")
    listing.set_defaults(run=_list)
    add_upkeep_commands(subcommands, common, _RUN_OPTIONS)
    for name, run, summary in (
        ("cat", _cat, "print the rows of an archived day"),
        ("restore", _restore, "put the rows of an archived day back into the database, until the next archive job"),
    ):
        command = add_command(subcommands, name, common, summary, example=f"archive {name} 2026-03-09")
        command.set_defaults(run=run)
        command.add_argument("day", metavar="DAY", type=calendar_day, help="a UTC day, YYYY-MM-DD")


def _archive(arguments: argparse.Namespace) -> int:
    with (
        open_logs(arguments.place, writable=not arguments.dry_run) as store,
        # Those of the result.
        counting_problems(are_warnings_errors=True),
        progress_bar("archiving rows") as progress,
    ):
        result = store.archive_logs(
            retention=timedelta(days=arguments.retention_days),
            max_days=arguments.max_days,
            vacuum="incremental" if arguments.incremental_vacuum else arguments.vacuum,
            compression="zstd" if arguments.zstd else None,
            dry_run=arguments.dry_run,
            wait=arguments.wait,
            progress=progress,
        )
        missing = tuple(map(_missing, missing_days(store)))
        is_in_the_way = not result.vacuumed and _is_read_in_the_way(arguments, store)
    for problem in missing:
        report(located(problem.path, problem.reason))
    result = replace(result, problems=(*result.problems, *missing))
    if is_in_the_way:
        report("no free space was returned: another program's open read is in the way", kind="warning")
    if arguments.json:
        print_json(result)
    else:
        _print_result(result)
    return 1 if result.problems else 0


def _missing(day: ArchivedDay) -> VerifyProblem:
    rows = format_count(day.row_count, "row")
    reason = f"it is missing, and held {rows}; restore the file from a backup, or call reindex(), which forgets the day"
    return VerifyProblem(day.path, reason, day.day, day.first_id, day.last_id)


def _is_read_in_the_way(arguments: argparse.Namespace, store: Log) -> bool:
    """Whether an open read kept the file as long as it was; a server shortens nothing that is read."""
    place: Place = arguments.place
    if place.is_server or arguments.dry_run:
        return False
    # In slices there may be nothing to return.
    return arguments.vacuum or (
        arguments.incremental_vacuum and os.stat(log_path(place.data)).st_size > store.stats().database_bytes
    )


def _print_result(result: ArchiveResult) -> None:
    moved = sum(day.added_rows for day in result.days)
    if result.days:
        columns = (
            Column("day"),
            Column("moved", right=True),
            Column("in file", right=True),
            Column("bytes", right=True),
            Column("file"),
        )
        print_table(columns, map(_moved_cells, result.days))
    verb = "would move" if result.dry_run else "moved"
    print_text(f"{verb} {format_count(moved, 'row')} of {format_count(len(result.days), 'day')}")
    if result.days:
        size = format_bytes(sum(day.size for day in result.days))
        print_text(f"the files of these days have {size}, in {os.path.dirname(result.days[0].path)}")
    if result.pinned_rows:
        print_text(f"{format_count(result.pinned_rows, 'row')} of active runs stay until those runs end")
    if result.unarchivable_rows:
        why = "for a timestamp of no year from 1970 to 9999, or a text that is bytes, not UTF-8 or too long"
        print_text(f"{format_count(result.unarchivable_rows, 'row')} stay {why}")
    if result.vacuumed:
        print_text("would return free space to the file system" if result.dry_run else "returned free space")


def _moved_cells(day: ArchivedDay) -> tuple[str, ...]:
    return (str(day.day), str(day.added_rows), str(day.row_count), str(day.size), os.path.basename(day.path))


def _list(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, _RUN_OPTIONS)
    with open_logs(arguments.place) as store:
        days = store.archived_days()
    if arguments.json:
        print_json([_listed(day) for day in days])
    else:
        _print_days(days)
    return 0


def _listed(day: ArchivedDay) -> dict[str, object]:
    """The day without `added_rows`, which only an archive job knows."""
    return {name: getattr(day, name) for name in _LISTED}


def _print_days(days: Iterable[ArchivedDay]) -> None:
    columns = (
        Column("day"),
        Column("format"),
        Column("rows", right=True),
        Column("first id", right=True),
        Column("last id", right=True),
        Column("bytes", right=True),
        Column("archived", least=10),
        Column("sha256", least=8),
    )
    print_table(columns, map(_day_cells, days))


def _day_cells(day: ArchivedDay) -> tuple[str, ...]:
    return (
        str(day.day),
        day.format,
        str(day.row_count),
        _or_dash(day.first_id),
        _or_dash(day.last_id),
        str(day.size),
        "-" if day.archived_at is None else format_timestamp(day.archived_at),
        day.sha256,
    )


def _or_dash(number: int | None) -> str:
    return "-" if number is None else str(number)


def _cat(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, _RUN_OPTIONS)
    with open_logs(arguments.place) as store:
        print_entries(store.read_archive(arguments.day), as_json=arguments.json)
    return 0


def _restore(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, _RUN_OPTIONS)
    with open_logs(arguments.place, writable=True) as store, progress_bar("restoring rows") as progress:
        restored = store.restore_archive(arguments.day, progress=progress)
    if arguments.json:
        print_json({"day": arguments.day, "restored_rows": restored})
    else:
        print_text(
            f"restored {format_count(restored, 'row')} of {arguments.day}; the next archive job takes them again"
        )
    return 0
