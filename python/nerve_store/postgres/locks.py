"""Locks that last as long as a session, which must be the caller's own (`Connections.is_shared`)."""

from __future__ import annotations

from contextlib import suppress

import psycopg

from nerve_store.postgres.connections import Session

_TAKE = """
SELECT CASE WHEN EXISTS (
  SELECT FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'advisory' AND granted AND objsubid = 1
  AND classid::bigint = (%(key)s::bigint >> 32 & 4294967295) AND objid::bigint = (%(key)s::bigint & 4294967295)
) THEN false ELSE pg_try_advisory_lock(%(key)s) END
"""
"""The server gives a session the same lock any number of times, also when a pooler lends it to another client."""


def take_lock(session: Session, key: int) -> bool:
    """Take a lock for as long as the session lives; False if anyone has it, this session too."""
    row = session.execute(_TAKE, {"key": key}).fetchone()
    return bool(row and row[0])


def release_lock(session: Session, key: int) -> None:
    """Give the lock back. The end of the session does that, too, but only once the server has seen it."""
    with suppress(psycopg.Error):
        session.execute("SELECT pg_advisory_unlock(%s)", (key,))
