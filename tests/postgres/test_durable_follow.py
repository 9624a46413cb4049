"""No follower is handed a row that a crash of the server could take back, whatever it may do there."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

from nerve_store.postgres import PostgresLogStore
from postgres.test_faults import slow_wal_writer
from support.servers import Server


def as_reader(server: Server) -> str:
    """A role with the rights that docs/beyond-one-machine.md gives who only reads, and no other transactions."""
    tables = "logs meta workflow_runs writers keys alive state archive_days archive_refs archive_objects".split()
    with psycopg.connect(server.url) as session:
        session.execute("CREATE ROLE reader LOGIN")
        session.execute("ALTER ROLE reader SET default_transaction_read_only = on")
        session.execute("GRANT USAGE ON SCHEMA nerve TO reader")
        for table in tables:
            session.execute(f"GRANT SELECT ON nerve.{table} TO reader".encode())
    return server.url.replace("tester@", "reader@")


@pytest.mark.parametrize("way", ["writer", "read_only", "reader"])
@pytest.mark.parametrize("is_behind", [False, True], ids=["follows", "reads first"])
def test_row_that_was_handed_out_survives_a_crash(own_server: Server, way: str, is_behind: bool) -> None:
    with slow_wal_writer(own_server), ExitStack() as stack:
        log = stack.enter_context(PostgresLogStore(own_server.url, busy_timeout=10))
        log.append("system", "first")
        url = as_reader(own_server) if way == "reader" else own_server.url
        store = stack.enter_context(PostgresLogStore(url, read_only=way != "writer", busy_timeout=10))
        follower: Any = None
        if not is_behind:
            follower = store.follow(after_id=0)
            next(follower)
        log.append("system", "second", durability="normal")
        if is_behind:
            follower = store.follow(after_id=0)
            next(follower)
        assert next(follower).type == "second"
        follower.close()
        own_server.crash()
        own_server.start()
        assert [entry.type for entry in store.query()] == ["first", "second"]
