"""`nerve-store reindex`: the index and the manifest built anew."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Iterator

from nerve_store import ArchivedDay, ArchiveError, CorruptStoreError
from nerve_store.cli.output import print_json, print_line
from nerve_store.cli.problem import counting_problems, report
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import open_logs
from nerve_store.cli.text import format_count
from nerve_store.protocols import Log

__all__ = ["add_arguments"]


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Say what carries the command out."""
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    with (
        open_logs(arguments.place, writable=True) as store,
        counting_problems() as problems,
        progress_bar("indexing rows") as progress,
    ):
        doubtful = _doubtful(store)
        store.reindex(progress=progress)
        became = list(_became(store, doubtful))
    for problem in became:
        report(problem)
    problems += became
    if arguments.json:
        print_json({"reindexed": True, "problems": problems})
    else:
        print_line("built the index and the manifest anew")
    return 1 if problems else 0


def _doubtful(store: Log) -> list[ArchivedDay]:
    """The listed days whose files are missing, damaged or written anew; none if the manifest itself is damaged."""
    try:
        days = store.archived_days()
    except (ArchiveError, CorruptStoreError):
        return []
    listed = (day for day in days if day.archived_at is not None and "://" not in day.path)
    return [day for day in listed if _digest(day.path) != day.sha256 and not _is_read(store, day)]


def _digest(path: str) -> str | None:
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None


def _is_read(store: Log, day: ArchivedDay) -> bool:
    """Whether each row is one that was archived, as in a file that a job published before it was killed."""
    try:
        for _ in store.read_archive(day.day):
            pass
    except ArchiveError:
        return False
    return True


def _became(store: Log, doubtful: list[ArchivedDay]) -> Iterator[str]:
    """What became of the days."""
    listed = {day.day: day for day in store.archived_days()}
    for day in doubtful:
        had = format_count(day.row_count, "row")
        now = listed.get(day.day)
        if now is None:
            yield f"{day.path}: it is missing, and was forgotten; it held {had}"
        elif now.sha256 == day.sha256:
            yield f"{day.path}: it is damaged, and stays listed; restore it from a backup, or move it away and reindex"
        else:
            has = format_count(now.row_count, "row")
            yield (
                f"{day.path}: it is another file than the one that was archived, and was taken as it is, with {has} "
                f"where that had {had}; if nobody changed it on purpose, restore it from a backup and reindex"
            )
