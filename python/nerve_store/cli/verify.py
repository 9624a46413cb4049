"""`nerve-store verify`: whether the database, its rows, the archive and the blobs are what was written.

It changes nothing: `nerve-store blob verify` also moves damaged blobs aside.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass

from nerve_store import BlobVerifyReport, CorruptStoreError, VerifyProblem, VerifyReport
from nerve_store.cli.json_text import plain
from nerve_store.cli.output import print_json, print_text
from nerve_store.cli.place import Place
from nerve_store.cli.problem import located, report
from nerve_store.cli.progress import progress_bar
from nerve_store.cli.stores import absent_log, is_there, log_path, open_blobs, open_logs, require_directory
from nerve_store.cli.text import format_bytes, format_count

__all__ = ["add_arguments"]


@dataclass(frozen=True, slots=True)
class _Found:
    """What is wrong with a data directory, and how much was looked at."""

    logs: VerifyReport | None
    """None: no log database, only blobs."""
    blobs: BlobVerifyReport | None
    """None: a log on a server has none, unless an object store is named."""
    is_server: bool = False

    @property
    def ok(self) -> bool:
        return (self.blobs is None or self.blobs.ok) and (self.logs is None or self.logs.ok)

    def problems(self) -> Iterator[str]:
        """Each problem on one line."""
        if self.logs is not None:
            yield from map(_log_problem, self.logs.problems)
        for problem in () if self.blobs is None else self.blobs.problems:
            yield located(problem.path, problem.reason)


def add_arguments(parser: argparse.ArgumentParser, _common: argparse.ArgumentParser) -> None:
    """Say what carries the command out."""
    parser.set_defaults(run=_run)


def _run(arguments: argparse.Namespace) -> int:
    place: Place = arguments.place
    if place.is_server:
        found = _Found(_verify_rows(place), None if place.remote is None else _verify_blobs(place), is_server=True)
    else:
        require_directory(place)
        found = _Found(_verify_logs(place), _verify_blobs(place))
    if arguments.json:
        print_json({"ok": found.ok, "logs": plain(found.logs), "blobs": plain(found.blobs)})
    else:
        problems = list(found.problems())
        for problem in problems:
            report(problem)
        print_text(f"verified {_extent(found)}: {format_count(len(problems), 'problem')}")
    return 0 if found.ok else 1


def _verify_logs(place: Place) -> VerifyReport | None:
    path = log_path(place.data)
    absent = absent_log(place.data)
    if absent is not None:
        return _nothing_but(VerifyProblem(path, absent.reason))
    if not is_there(path):
        return None
    try:
        return _verify_rows(place)
    except CorruptStoreError as error:
        # So damaged that it cannot be opened: the blobs are looked at all the same.
        return _nothing_but(VerifyProblem(path, str(error)))


def _nothing_but(problem: VerifyProblem) -> VerifyReport:
    return VerifyReport((problem,), row_count=0, segment_count=0, day_count=0, archived_row_count=0)


def _verify_rows(place: Place) -> VerifyReport:
    with open_logs(place) as store, progress_bar("verifying rows") as progress:
        return store.verify(progress=progress)


def _verify_blobs(place: Place) -> BlobVerifyReport:
    with progress_bar("verifying bytes") as progress:
        return open_blobs(place).verify(progress=progress)


def _log_problem(problem: VerifyProblem) -> str:
    # What concerns a part of the database says in its reason which rows.
    if problem.day is None or problem.first_id is None:
        return located(problem.path, problem.reason)
    return located(problem.path, f"ids {problem.first_id} to {problem.last_id}: {problem.reason}")


def _extent(found: _Found) -> str:
    blobs = ""
    if found.blobs is not None:
        blobs = f", {format_count(found.blobs.blob_count, 'blob')} of {format_bytes(found.blobs.size)}"
    if found.logs is None:
        return f"no database{blobs}"
    rows = format_count(found.logs.row_count, "row")
    if not found.is_server:
        rows += f" in {format_count(found.logs.segment_count, 'sealed segment')}"
    days = (
        f"{format_count(found.logs.archived_row_count, 'row')} of {format_count(found.logs.day_count, 'archived day')}"
    )
    return f"the database ({rows}), {days}{blobs}"
