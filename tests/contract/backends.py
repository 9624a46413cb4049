"""The backends, and the logs that a test opens on them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from nerve_store.protocols import Log
from support import servers

BACKENDS = ("sqlite", "postgresql-15", "postgresql-18", "postgresql-18-pgbouncer")

_numbers = itertools.count()


@dataclass
class Backend:
    """A place for one log, which can be opened any number of times."""

    name: str
    directory: Path
    url: str = ""
    direct_url: str = ""
    schema: str = ""
    stack: ExitStack = field(default_factory=ExitStack)

    @property
    def is_sqlite(self) -> bool:
        return self.name == "sqlite"

    @property
    def archive(self) -> Path:
        return self.directory / "archive" / "logs"

    def open(self, **options: Any) -> Log:
        """The log; it is closed at the end of the test."""
        if self.is_sqlite:
            log = cast(Log, ns.LogStore(self.directory / "logs.db", **options))
        else:
            from nerve_store.postgres import PostgresLogStore

            log = PostgresLogStore(
                self.url, schema=self.schema, archive=self.archive, listen_url=self.direct_url, **options
            )
        return self.stack.enter_context(log)

    def execute(self, statement: str, parameters: tuple[Any, ...] = ()) -> None:
        """Another program's statement, in the dialect of PostgreSQL."""
        import psycopg

        with psycopg.connect(self.direct_url, autocommit=True) as session:
            session.execute(f"SET search_path = {self.schema}")
            session.execute(statement.encode(), parameters)


def available(name: str) -> str | None:
    """Why a backend cannot be tested here, if it cannot."""
    if name == "sqlite":
        return None
    version = name.split("-")[1]
    try:
        import psycopg
    except ImportError:
        return "psycopg is not installed; make services installs it"
    del psycopg
    if version not in servers.installations():
        return f"PostgreSQL {version} is not installed; make services installs it"
    if name.endswith("pgbouncer") and servers.pgbouncer() is None:
        return "pgbouncer is not installed; make services installs it"
    return None


def opened(name: str, directory: Path) -> Iterator[Backend]:
    """A backend for one test."""
    reason = available(name)
    if reason is not None:
        pytest.skip(reason)
    backend = Backend(name, directory)
    if not backend.is_sqlite:
        version = name.split("-")[1]
        backend.direct_url = servers.shared(version).url
        backend.url = servers.shared_bouncer(version) if name.endswith("pgbouncer") else backend.direct_url
        backend.schema = f"t{os.getpid()}_{next(_numbers)}"
    try:
        with backend.stack:
            yield backend
    finally:
        if not backend.is_sqlite:
            backend.execute(f"DROP SCHEMA IF EXISTS {backend.schema} CASCADE")
