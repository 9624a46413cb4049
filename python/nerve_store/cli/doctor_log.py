"""What `doctor` looks at in the log and its archive."""

from __future__ import annotations

import errno
import shlex
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import cast

from nerve_store import (
    BUILD_PROFILE,
    DEFAULT_RETENTION,
    SQLITE_VERSION,
    ArchiveError,
    CorruptStoreError,
    LogStore,
    NerveStoreError,
    SchemaVersionError,
    VerifyProblem,
    last_archivable_day,
)
from nerve_store.cli.doctor_objects import Objects, at_another_place, examine_days
from nerve_store.cli.findings import Finding
from nerve_store.cli.place import Place
from nerve_store.cli.progress import Progress
from nerve_store.cli.stores import (
    OTHER_USER,
    AbsentLog,
    Forbidden,
    absent_log,
    is_there,
    log_path,
    missing_days,
    open_logs,
)
from nerve_store.cli.text import format_age, format_bytes, format_count, format_timestamp
from nerve_store.cli.times import start_of_day
from nerve_store.protocols import Log

__all__ = ["examine_log", "examine_rows", "failure"]

_CLOCK_TOLERANCE_MS = 5 * 60_000
_DAY_MS = 86_400_000
_WAYS = {
    errno.EACCES: OTHER_USER,
    errno.EPERM: OTHER_USER,
    errno.EIO: "look at the kernel's log (dmesg): the disk may fail; copy the directory to another one",
}
_LOOK_UP = "look the name of the error up in docs/troubleshooting.md"
_RESTORE = "let this user read it, or restore it from a backup"
_RESTORE_DAY = "restore the file from a backup, or move it away and reindex, which forgets its rows"


def examine_log(place: Place, objects: Objects | None, *, is_quick: bool, progress: Progress | None) -> list[Finding]:
    """What is found in the database and the archive; an error of the store is a finding.

    `objects` is what was found in the object store; None if none is named.
    """
    findings = [_build()]
    save = shlex.join(["nerve-store", "salvage", place.data, "saved.db"])
    salvage = f"restore a backup; or end the daemon, and save what can be read: {save}"
    path = log_path(place.data)
    try:
        absent = absent_log(place.data)
        if absent is not None or not is_there(path):
            findings.append(_no_database(absent, path))
            return findings
    except Forbidden as error:
        findings.append(Finding("error", "database", f"this user may not look at {error.path}", OTHER_USER))
        return findings
    if objects is not None and not objects.can_be_read:
        place = place._replace(remote=None, options=None)
    try:
        with cast(LogStore, open_logs(place)) as store:
            findings += _database(store)
            findings += _ids(store)
            told, can_be_read = examine_days(store, objects)
            findings += told
            is_quick = is_quick or not can_be_read
            findings += examine_rows(store, is_quick=is_quick, progress=progress, way_out=salvage, told=told)
    except NerveStoreError as error:
        findings.append(at_another_place(error, objects) or failure(error, other="directory", way_out=salvage))
    return findings


def _no_database(absent: AbsentLog | None, path: str) -> Finding:
    name = "name the data directory with --data"
    if absent is None:
        return Finding("warning", "database", f"there is none at {path}", name)
    return Finding("error", "database", absent.reason, absent.way_out or name)


def failure(error: NerveStoreError, *, other: str, way_out: str) -> Finding:
    """The finding that is an error of the store; `other` is what else to name where its schema is a newer one."""
    if isinstance(error, SchemaVersionError):
        return Finding("error", "schema", str(error), f"upgrade nerve-store, or name another {other}")
    if isinstance(error, ArchiveError) and not isinstance(error, CorruptStoreError):
        return Finding("error", "archive", str(error), "the message says what to do; until then nothing is lost")
    if isinstance(error, CorruptStoreError):
        return Finding("error", "database", str(error), way_out)
    number = (error.errno or 0) if isinstance(error, OSError) else 0
    return Finding("error", "database", str(error), _WAYS.get(number, _LOOK_UP))


def examine_rows(
    store: Log, *, is_quick: bool, progress: Progress | None, way_out: str, told: Sequence[Finding] = ()
) -> Iterator[Finding]:
    """What is found in the rows and days of any log; `way_out` is what helps where rows are not what they were.

    What is `told` already is not found again.
    """
    yield from _days(store)
    yield from _clock(store)
    yield from _archiving(store)
    if not is_quick:
        yield from _verified(store, progress, way_out, told)


def _build() -> Finding:
    message = f"SQLite {SQLITE_VERSION}, {BUILD_PROFILE} build"
    if BUILD_PROFILE == "debug":
        return Finding("warning", "build", message, "install a release build: this one is many times slower")
    return Finding("ok", "build", message)


def _database(store: LogStore) -> Iterator[Finding]:
    stats = store.stats()
    size = f"{format_bytes(stats.database_bytes)}, of which {format_bytes(stats.free_bytes)} are free"
    if stats.free_bytes > stats.database_bytes // 2 and stats.free_bytes > 64 << 20:
        action = "archive --incremental-vacuum gives the free space back"
        yield Finding("warning", "database", size, action)
    else:
        yield Finding("ok", "database", size)


def _days(store: Log) -> Iterator[Finding]:
    try:
        days, missing = store.archived_days(), missing_days(store)
    except ArchiveError as error:
        yield Finding("error", "archive", str(error))
        return
    for day in missing:
        action = "put the file back from a backup, or reindex, which forgets the day"
        yield Finding(
            "error", "archive", f"{day.path} is missing, and held {format_count(day.row_count, 'row')}", action
        )
    if not missing:
        yield Finding("ok", "archive", format_count(len(days), "day"))


def _ids(store: LogStore) -> Iterator[Finding]:
    try:
        days = store.archived_days()
    except ArchiveError:
        # Said of the archive already.
        return
    given = store.sql("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'logs'")[0][0]
    newest = max((day.last_id or 0 for day in days), default=0)
    if newest > given:
        action = "open the store for writing once: it then goes on above the ids of the archive"
        yield Finding("warning", "ids", f"the archive has ids up to {newest}, the database gave out {given}", action)
    else:
        yield Finding("ok", "ids", f"up to {given}")


def _clock(store: Log) -> Iterator[Finding]:
    try:
        newest = next(iter(store.iter(descending=True, limit=1)), None)
    except CorruptStoreError as error:
        yield Finding("error", "clock", f"the newest row cannot be read: {error}", "verify names what is damaged")
        return
    if newest is None:
        return
    now = time.time_ns() // 1_000_000
    if newest.timestamp > now + _CLOCK_TOLERANCE_MS:
        action = "look at the clocks of the machine and of the program that wrote the row"
        what = f"the newest row is of {format_timestamp(newest.timestamp)}, which is still to come"
        yield Finding("warning", "clock", what, action)
    else:
        yield Finding("ok", "clock", f"the newest row is {format_age(newest.timestamp)} old")


def _archiving(store: Log) -> Iterator[Finding]:
    boundary = time.time_ns() // 1_000_000 - int(DEFAULT_RETENTION.total_seconds() * 1000)
    day = last_archivable_day(max(boundary, _DAY_MS))
    until = start_of_day(day + timedelta(days=1)) - 1
    # The rows of active runs stay.
    kept = sum(store.count(ref_id=run.run_id, until=until) for run in store.get_active_workflow_runs())
    due = store.count(until=until) - kept
    if due > 0:
        stats = store.stats()
        freed = (stats.database_bytes - stats.free_bytes) * due // max(stats.row_count, due)
        share = f"{format_count(due, 'row')} older than {DEFAULT_RETENTION.days} days, about {format_bytes(freed)},"
        yield Finding("ok", "archiving", f"would move {share} to files", "archive, once a day from a timer")


def _verified(store: Log, progress: Progress | None, way_out: str, told: Sequence[Finding]) -> Iterator[Finding]:
    report = store.verify(progress=progress)
    # SQLite says the same of each part of the file that it cannot read.
    for problem in {(problem.path, problem.reason): problem for problem in report.problems}.values():
        if any(finding.message.startswith(f"{problem.path} ") for finding in told):
            continue
        what, action = _apart(problem, store.path, way_out)
        yield Finding("error", "verification", f"{problem.path}: {what}", action)
    if report.ok:
        rows = format_count(report.row_count + report.archived_row_count, "row")
        yield Finding("ok", "verification", f"{rows} are what was written")


def _apart(problem: VerifyProblem, log: str, way_out: str) -> tuple[str, str]:
    """What is wrong, and the way out, with which most reasons end; `way_out` is that of a damaged log."""
    what, _, action = problem.reason.rpartition("; ")
    if problem.path == log and "reindex()" not in action:
        return problem.reason, way_out
    if not what:
        return problem.reason, _RESTORE if problem.day is None else _RESTORE_DAY
    return what, action.replace("call reindex()", "reindex").replace("reindex()", "reindex")
