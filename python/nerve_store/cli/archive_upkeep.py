"""`nerve-store archive expire` and `nerve-store archive verify`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from nerve_store.cli.arguments import Commands, add_command, calendar_day, refuse_options
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.problem import located, report
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_bytes, format_count

__all__ = ["add_upkeep_commands"]


def add_upkeep_commands(commands: Commands, common: argparse.ArgumentParser, parent_options: Sequence[str]) -> None:
    """Add the two; options of `archive` itself do nothing there."""
    expire = add_command(
        commands,
        "expire",
        common,
        "delete the files of old days",
        example="archive expire --before 2025-01-01 --dry-run",
    )
    expire.set_defaults(run=_expire, parent_options=parent_options)
    expire.add_argument("--before", metavar="DAY", type=calendar_day, required=True, help="days before this UTC day")
    expire.add_argument("--dry-run", action="store_true", dest="expire_dry_run", help="say what would be deleted")
    verify = add_command(
        commands, "verify", common, "check the database, its rows and the day files", example="archive verify"
    )
    verify.set_defaults(run=_verify, parent_options=parent_options)


def _expire(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, arguments.parent_options)
    is_dry = arguments.expire_dry_run
    with open_logs(arguments.place, writable=not is_dry) as store:
        days = store.expire_archive(before=arguments.before, dry_run=is_dry)
    if arguments.json:
        print_json(days)
        return 0
    for day in days:
        print_text(f"{day.day}  {format_count(day.row_count, 'row')}  {format_bytes(day.size)}")
    verb = "would delete" if is_dry else "deleted"
    print_text(f"{verb} {format_count(len(days), 'day')} before {arguments.before}")
    return 0


def _verify(arguments: argparse.Namespace) -> int:
    refuse_options(arguments, arguments.archive_parser, arguments.parent_options)
    with open_logs(arguments.place) as store, progress_bar("verifying rows") as progress:
        found = store.verify(progress=progress)
    if arguments.json:
        print_json({"ok": found.ok, **{name: getattr(found, name) for name in found.__dataclass_fields__}})
    else:
        for problem in found.problems:
            report(located(problem.path, problem.reason))
        rows = f"{format_count(found.archived_row_count, 'row')} of {format_count(found.day_count, 'day')}"
        print_text(f"verified {rows}: {format_count(len(found.problems), 'problem')}")
    return 0 if found.ok else 1
