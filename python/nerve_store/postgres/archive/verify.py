"""What is wrong with a log on PostgreSQL and its archive."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from nerve_store.exceptions import ArchiveCorruptError
from nerve_store.postgres.archive.day import digest_of, read_file
from nerve_store.postgres.archive.directory import ArchiveDirectory
from nerve_store.postgres.archive.reader import ArchiveReader, KnownDay
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.texts import decode
from nerve_store.records import VerifyProblem, VerifyReport

_STATUSES = "('queued', 'started', 'completed', 'failed', 'crashed', 'interrupted', 'dropped', 'killed')"


def verify(
    connections: Connections,
    schema: str,
    directory: ArchiveDirectory,
    place: str,
    *,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Look at all of it."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        return connections.read(lambda session: session.execute(statement.encode()).fetchall())

    problems: list[VerifyProblem] = []
    row_count = int(rows(f"SELECT count(*) FROM {schema}.logs")[0][0])
    days = ArchiveReader(connections, schema, directory).known()
    total = row_count + sum(item.row_count for item in days)
    for (row_id,) in rows(f"SELECT id FROM {schema}.logs GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 100"):
        problems.append(VerifyProblem(place, f"id {row_id} is of two rows", first_id=row_id, last_id=row_id))
    for run_id, status, logged in rows(
        f"SELECT r.run_id, r.status, newest.type FROM {schema}.workflow_runs r CROSS JOIN LATERAL ("
        f"SELECT l.type FROM {schema}.logs l WHERE left(l.ref_id, 512) = left(r.run_id, 512) AND l.ref_id = r.run_id "
        f"AND l.source = 'workflow' AND l.type IN {_STATUSES} ORDER BY l.id DESC LIMIT 1) AS newest "
        "WHERE newest.type <> r.status ORDER BY r.run_id LIMIT 100"
    ):
        reason = (
            f"run {decode(run_id)!r} is {status}, and its newest row says {logged}; set it with upsert_workflow_run"
        )
        problems.append(VerifyProblem(place, reason))
    done = row_count
    if progress is not None:
        progress(done, total)
    archived = 0
    for item in days:
        problem = _problem_of(directory, item)
        if problem is not None:
            problems.append(problem)
        archived += item.row_count
        done += item.row_count
        if progress is not None:
            progress(done, total)
    known = {item.day for item in days}
    for day, form in directory.days():
        if day not in known:
            reason = "the database does not know the file; the next archive job adopts it, and so does reindex()"
            problems.append(VerifyProblem(directory.of(day, form), reason, day=day))
    ordered = tuple(sorted(problems, key=lambda problem: problem.path))
    return VerifyReport(ordered, row_count, 0, len(days), archived)


def _problem_of(directory: ArchiveDirectory, item: KnownDay) -> VerifyProblem | None:
    path = directory.of(item.day, item.format)
    try:
        if digest_of(path) != (item.size, item.sha256):
            return VerifyProblem(
                path, "its size or sha256 is not the one that was archived; restore it from a backup", day=item.day
            )
        count = sum(1 for _ in read_file(directory, item.day, item.format))
    except ArchiveCorruptError as error:
        return VerifyProblem(path, str(error), day=item.day, first_id=item.first_id, last_id=item.last_id)
    if count != item.row_count:
        return VerifyProblem(path, f"it has {count} rows, and the database says {item.row_count}", day=item.day)
    return None
