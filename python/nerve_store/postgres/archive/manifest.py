"""What the database says of the day files."""

from __future__ import annotations

from datetime import date

from psycopg.types.json import Jsonb

from nerve_store.postgres.archive.day import DaySummary
from nerve_store.postgres.archive.reader import COLUMNS, KnownDay
from nerve_store.postgres.connections import Session
from nerve_store.postgres.texts import encode

PINNED = "EXISTS (SELECT FROM {s}.workflow_runs r WHERE r.run_id = l.ref_id AND r.status IN ('queued', 'started'))"
"""Whether the row `l` stays because its run is active."""


def announce(session: Session, schema: str, known: KnownDay, summary: DaySummary) -> None:
    """Note the file that is about to be published: after a crash it is known whose it is."""
    with session.transaction():
        session.execute(f"DELETE FROM {schema}.archive_days WHERE day = %s AND state = 1", (known.day,))
        _insert(session, schema, known, summary, state=1)


def settle(session: Session, schema: str, known: KnownDay, summary: DaySummary) -> None:
    """The file that was published is the one that counts."""
    with session.transaction():
        session.execute(f"DELETE FROM {schema}.archive_days WHERE day = %s", (known.day,))
        _insert(session, schema, known, summary, state=0)
        session.execute(f"DELETE FROM {schema}.archive_refs WHERE day = %s", (known.day,))
        with session.cursor().copy(f"COPY {schema}.archive_refs (day, ref_id, round_ids) FROM STDIN") as copy:
            for ref_id, rounds in summary.refs.items():
                copy.write_row((known.day, encode(ref_id), rounds))


def forget(session: Session, schema: str, day: date) -> None:
    """The day has no file any more; its rounds keep their numbers."""
    with session.transaction():
        session.execute(f"DELETE FROM {schema}.archive_days WHERE day = %s", (day,))
        session.execute(f"DELETE FROM {schema}.archive_refs WHERE day = %s AND round_ids = '{{}}'", (day,))


def _insert(session: Session, schema: str, known: KnownDay, summary: DaySummary, *, state: int) -> None:
    kinds = None
    if summary.kinds is not None:
        kinds = Jsonb(sorted([encode(source), encode(kind)] for source, kind in summary.kinds))
    session.execute(
        f"INSERT INTO {schema}.archive_days (state, kinds, {COLUMNS}) "
        "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            state, kinds, known.day, known.format, known.row_count, known.first_id, known.last_id, known.size,
            known.raw_size, known.sha256, known.archived_at,
        ),
    )  # fmt: skip
