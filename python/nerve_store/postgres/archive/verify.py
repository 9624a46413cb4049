"""What is wrong with a log on PostgreSQL and its archive."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from nerve_store.exceptions import ArchiveError
from nerve_store.postgres.archive.clashes import clashing_ids, reason
from nerve_store.postgres.archive.days import Days
from nerve_store.postgres.archive.known import KnownDay
from nerve_store.postgres.archive.lines import problem_of, read_day
from nerve_store.postgres.archive.reader import ArchiveReader
from nerve_store.postgres.connections import Connections
from nerve_store.records import VerifyProblem, VerifyReport


def verify(
    connections: Connections,
    schema: str,
    reader: ArchiveReader,
    days: Days,
    place: str,
    *,
    progress: Callable[[int, int], object] | None,
) -> VerifyReport:
    """Look at all of it."""

    def rows(statement: str) -> list[tuple[Any, ...]]:
        return connections.read(lambda session: session.execute(statement.encode()).fetchall())

    problems: list[VerifyProblem] = []
    row_count = int(rows(f"SELECT count(*) FROM {schema}.logs")[0][0])
    known = reader.known()
    total = row_count + sum(item.row_count for item in known)
    for (row_id,) in rows(f"SELECT id FROM {schema}.logs GROUP BY id HAVING count(*) > 1 ORDER BY id LIMIT 100"):
        problems.append(VerifyProblem(place, f"id {row_id} is of two rows", first_id=row_id, last_id=row_id))
    done = row_count
    if progress is not None:
        progress(done, total)
    found: list[VerifyProblem] = []
    for item in known:
        problem = _problem_of(days, item)
        # A job that was killed may have published the file, and not said so yet.
        if problem is not None and all(_problem_of(days, state) for state in reader.states(item.day)):
            found.append(problem)
        elif ids := clashing_ids(connections.read, schema, item, partial(reader.rows_of, item)):
            found.append(VerifyProblem(days.of(item), reason(ids), item.day, ids[0], ids[-1]))
        done += item.row_count
        if progress is not None:
            progress(done, total)
    found += days.problems(known, {problem.path for problem in found})
    # A job may have replaced a day, or taken one in, while this looked at it.
    changed = {item.day for item in set(known) ^ set(reader.known())}
    problems += [problem for problem in found if problem.day not in changed]
    ordered = tuple(sorted(problems, key=lambda problem: problem.path))
    return VerifyReport(ordered, row_count, 0, len(known), sum(item.row_count for item in known))


def _problem_of(days: Days, item: KnownDay) -> VerifyProblem | None:
    path = days.of(item)
    try:
        days.check(item)
        with days.opened(item) as file:
            count = sum(1 for _ in read_day(file, path, item.day, item.format))
    except ArchiveError as error:
        return problem_of(error, item.day, item)
    if count != item.row_count:
        return VerifyProblem(path, f"it has {count} rows, and the database says {item.row_count}", day=item.day)
    return None
