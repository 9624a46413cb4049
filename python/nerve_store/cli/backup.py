"""`nerve-store backup`: a copy of the data directory, made while others write."""

from __future__ import annotations

import argparse
from typing import cast

from nerve_store import BackupReport, LogStore, Store
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.problem import Problem, located
from nerve_store.cli.problem import report as report_problem
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_logs, require_log
from nerve_store.cli.text import format_bytes, format_count

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Add the target."""
    parser.set_defaults(run=_run)
    parser.add_argument("target", metavar="TARGET", help="a directory; an older backup in it gets what is new")
    parser.add_argument(
        "--database-only", action="store_true", help="copy the database alone, to the file TARGET, without files"
    )


def _run(arguments: argparse.Namespace) -> int:
    place: Place = arguments.place
    if place.is_server:
        raise Problem(
            "back up the server with its own means (pg_dump, or pg_basebackup and its write-ahead log), and the day "
            "files beside it"
        )
    require_log(place)
    store: LogStore | Store = cast(LogStore, open_logs(place)) if arguments.database_only else _store(place)
    with store, progress_bar("copying bytes") as progress:
        report = store.backup(arguments.target, progress=progress)
    if arguments.json:
        print_json(report)
    else:
        _print(report)
        if place.remote is not None and not arguments.database_only:
            print_text("blobs in the object store are not copied: they stay there")
    return 0 if report.ok else 1


def _store(place: Place) -> Store:
    try:
        return Store(
            place.data,
            read_only=True,
            remote=place.remote,
            remote_options=place.options,
            max_cache_bytes=place.max_cache_bytes,
        )
    except ImportError as error:
        raise Problem(str(error)) from None


def _print(report: BackupReport) -> None:
    for problem in report.problems:
        report_problem(located(problem.path, problem.reason))
    days = f"{format_count(report.new_day_count, 'new day')} of {report.day_count}"
    blobs = f"{format_count(report.new_blob_count, 'new blob')} of {report.blob_count}"
    print_text(f"{report.path}: the database ({format_bytes(report.database_bytes)}), {days}, {blobs}")
    copied, shared = format_bytes(report.copied_bytes), format_bytes(report.shared_bytes)
    print_text(f"of the new files, {copied} were copied, and {shared} are shared with the store")
