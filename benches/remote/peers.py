"""What the log is measured beside: other orders of the same statements, psycopg's executemany, eventsourcing."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import psycopg

PAYLOAD = '{"role":"coder","content":"a message of the usual length, which says what was done and why","n":1}'

TABLES = """
CREATE SCHEMA IF NOT EXISTS peer;
CREATE TABLE IF NOT EXISTS peer.logs (id bigint PRIMARY KEY, source text, type text, ref_id text, payload text,
  timestamp bigint);
CREATE INDEX IF NOT EXISTS logs_ref ON peer.logs (ref_id, id) WHERE ref_id IS NOT NULL;
CREATE SEQUENCE IF NOT EXISTS peer.log_id;
"""
_INSERT = "INSERT INTO peer.logs VALUES (nextval('peer.log_id'), 'system', 'tick', 'run-1', %s, 5) RETURNING id"


class _Own:
    """A connection for each thread."""

    def __init__(self, url: str) -> None:
        self._url, self._local = url, threading.local()
        self._all: list[psycopg.Connection[Any]] = []

    def session(self) -> psycopg.Connection[Any]:
        found: psycopg.Connection[Any] | None = getattr(self._local, "session", None)
        if found is None:
            found = self._local.session = psycopg.connect(self._url, autocommit=True)
            self._all.append(found)
        return found

    def close(self) -> None:
        for session in self._all:
            session.close()


class Unordered(_Own):
    """A sequence and nothing else: ids come before commits, and a follower misses rows."""

    def append(self) -> None:
        self.session().execute(_INSERT, (PAYLOAD,))


class LockedThroughFlush(_Own):
    """The append lock held until the commit is on the disk."""

    def append(self) -> None:
        self.session().execute(
            f"WITH held AS MATERIALIZED (SELECT pg_advisory_xact_lock(99)), row AS ({_INSERT}) "
            "SELECT id FROM row, held",
            (PAYLOAD,),
        )


class EventSourcing:
    """eventsourcing's recorder of application events, as its documentation sets it up."""

    def __init__(self, url: str) -> None:
        from eventsourcing.application import Application
        from psycopg.conninfo import conninfo_to_dict

        parts = conninfo_to_dict(url)
        self._application: Any = Application(
            env={
                "PERSISTENCE_MODULE": "eventsourcing.postgres",
                "POSTGRES_DBNAME": str(parts["dbname"]),
                "POSTGRES_HOST": str(parts["host"]),
                "POSTGRES_PORT": str(parts["port"]),
                "POSTGRES_USER": str(parts["user"]),
                "POSTGRES_PASSWORD": "",
                "POSTGRES_POOL_SIZE": "32",
                "POSTGRES_MAX_OVERFLOW": "10",
            }
        )

    def append(self) -> None:
        from eventsourcing.persistence import StoredEvent

        event = StoredEvent(uuid.uuid4(), 1, "tick", PAYLOAD.encode())
        self._application.recorder.insert_events([event])

    def close(self) -> None:
        self._application.close()
