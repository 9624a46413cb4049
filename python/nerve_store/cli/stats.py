"""`nerve-store stats`: what a data directory holds."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date

from nerve_store import BlobStats, LogStats
from nerve_store._places import is_url
from nerve_store.cli.output import print_json, print_pairs
from nerve_store.cli.place import Place
from nerve_store.cli.stores import is_there, log_path, open_blobs, open_logs, open_server, require_directory
from nerve_store.cli.text import format_bytes, format_count, format_timestamp
from nerve_store.protocols import Log

__all__ = ["ArchiveFigures", "Summary", "add_arguments", "print_summary", "summarize"]


@dataclass(frozen=True, slots=True)
class ArchiveFigures:
    """Figures of the day files together."""

    day_count: int
    row_count: int
    size: int
    first_day: date | None
    last_day: date | None


@dataclass(frozen=True, slots=True)
class Summary:
    """Figures of a data directory."""

    data: str
    logs: LogStats | None
    """None: no log database, only blobs."""
    archive: ArchiveFigures | None
    blobs: BlobStats | None
    """None: a log on a server has none, unless an object store is named."""


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Say what carries the command out."""
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    summary = summarize(arguments.place)
    if arguments.json:
        print_json(summary)
    else:
        print_summary(summary)
    return 0


def summarize(place: Place) -> Summary:
    """The figures of an existing log; in a directory it looks at every row of the database and at every blob's size."""
    if place.is_server:
        with open_server(place) as server:
            blobs = None if place.remote is None else open_blobs(place).stats()
            return Summary(place.shown, server.stats(), _server_figures(server), blobs)
    require_directory(place)
    logs = archive = None
    if is_there(log_path(place.data)):
        with open_logs(place) as store:
            logs, archive = store.stats(), _archive_figures(store)
    return Summary(place.data, logs, archive, open_blobs(place).stats())


def _server_figures(store: Log) -> ArchiveFigures:
    """What the database says of the day files, wherever they are."""
    statement = (
        "SELECT count(*), coalesce(sum(row_count), 0)::bigint, coalesce(sum(size), 0)::bigint, min(day), max(day)"
    )
    return ArchiveFigures(*store.sql(f"{statement} FROM archive_days WHERE state = 0")[0])


def _archive_figures(store: Log) -> ArchiveFigures:
    days = store.archived_days()
    return ArchiveFigures(
        day_count=len(days),
        row_count=sum(day.row_count for day in days),
        size=sum(day.size for day in days),
        first_day=days[0].day if days else None,
        last_day=days[-1].day if days else None,
    )


def print_summary(summary: Summary) -> None:
    """Print the figures for people."""
    print_pairs(_pairs(summary))


def _pairs(summary: Summary) -> Iterator[tuple[str, str]]:
    yield "server" if is_url(summary.data) else "directory", summary.data
    if summary.logs is None:
        yield "log", "no database"
    else:
        yield from _log_pairs(summary.logs)
    if summary.archive is not None:
        yield "archive", _archive_text(summary.archive)
    if summary.blobs is not None:
        yield "blobs", f"{format_count(summary.blobs.blob_count, 'blob')}, {format_bytes(summary.blobs.size)}"


def _log_pairs(logs: LogStats) -> Iterator[tuple[str, str]]:
    ids = "" if logs.first_id is None else f", ids {logs.first_id:,} to {logs.last_id:,}"
    yield "log", format_count(logs.row_count, "row") + ids
    if logs.first_timestamp is not None and logs.last_timestamp is not None:
        yield "time", f"{format_timestamp(logs.first_timestamp)} to {format_timestamp(logs.last_timestamp)}"
    statuses = ", ".join(f"{count:,} {status}" for status, count in logs.runs.items() if count)
    yield "runs", statuses or "none"
    wal = f" and {format_bytes(logs.wal_bytes)} of write-ahead log" if logs.wal_bytes else ""
    yield "database", f"{format_bytes(logs.database_bytes)}, {format_bytes(logs.free_bytes)} of it free{wal}"


def _archive_text(archive: ArchiveFigures) -> str:
    if not archive.day_count:
        return "empty"
    counts = f"{format_count(archive.day_count, 'day')}, {format_count(archive.row_count, 'row')}"
    return f"{counts}, {format_bytes(archive.size)}, {archive.first_day} to {archive.last_day}"
