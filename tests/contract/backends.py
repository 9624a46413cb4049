"""The backends, and the logs that a test opens on them."""

from __future__ import annotations

import importlib.util
import itertools
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

import nerve_store as ns
from nerve_store.protocols import Log
from reference import Row
from support import day_files, objects, read_day_file, servers
from support.archive import MARK, content_of

BACKENDS = ("sqlite", "postgresql-15", "postgresql-18", "postgresql-18-pgbouncer")
IN_OBJECTS = ("postgresql-15-memory", "postgresql-15-s3", "postgresql-18-memory", "postgresql-18-s3")
"""Those whose days lie in an object store."""

_numbers = itertools.count()


@dataclass
class Backend:
    """A place for one log, which can be opened any number of times."""

    name: str
    directory: Path
    url: str = ""
    direct_url: str = ""
    schema: str = ""
    archive_url: str = ""
    """Where its days are, if that is an object store."""
    archive_options: dict[str, Any] = field(default_factory=dict)
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
                self.url, schema=self.schema, listen_url=self.direct_url, **self.archive_arguments(), **options
            )
        return self.stack.enter_context(log)

    def archive_arguments(self) -> dict[str, Any]:
        """What says where the days are."""
        if not self.archive_url:
            return {"archive": self.archive}
        cache = self.directory / "cache"
        return {"archive": self.archive_url, "archive_options": self.archive_options, "cache": cache}

    def bucket(self) -> Any:
        """The objects of the days."""
        from nerve_store.remote.bucket import Bucket

        return Bucket(f"{self.archive_url}/logs", self.archive_options)

    def files(self) -> dict[str, bytes]:
        """The files of days, wherever they are, without the number that a name in an object store may have."""
        if not self.archive_url:
            found = content_of(self.archive) if self.archive.exists() else {}
            return {name: content for name, content in found.items() if name != MARK}
        bucket = self.bucket()
        names = [found.key for page in bucket.list() for found in page if found.key != MARK]
        return {re.sub(r"\.\d+\.jsonl", ".jsonl", name): bucket.get(name, longest=1 << 30) for name in sorted(names)}

    def days(self) -> list[date]:
        """The days that have a file."""
        return [date.fromisoformat(name[:10]) for name in self.files()]

    def rows(self) -> list[Row]:
        """All rows in the files of days."""
        found: list[Row] = []
        with tempfile.TemporaryDirectory() as directory:
            for name, content in self.files().items():
                path = Path(directory) / name
                path.write_bytes(content)
                found += read_day_file(path)
        return found

    def replace(self, day: date, content: bytes | None) -> None:
        """Put something else in the place of a day, or nothing."""
        if not self.archive_url:
            path = day_files(self.archive)[day]
            path.unlink() if content is None else path.write_bytes(content)
            return
        bucket = self.bucket()
        (key,) = [found.key for page in bucket.list() for found in page if found.key.startswith(f"{day}.")]
        bucket.delete([key]) if content is None else bucket.put(key, content)
        # Copies in the cache are right, and would be read.
        shutil.rmtree(self.directory / "cache", ignore_errors=True)

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
        return f"PostgreSQL {version} is not installed, or cannot be run here; make services installs it"
    if name.endswith(("-memory", "-s3")) and importlib.util.find_spec("obstore") is None:
        return "obstore is not installed; make venv installs it"
    if name.endswith("-s3") and (reason := objects.missing(objects.best())) is not None:
        return reason
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
        if name.endswith("-memory"):
            backend.archive_url = f"memory://{backend.schema}"
        elif name.endswith("-s3"):
            backend.archive_url, backend.archive_options = objects.shared(objects.best()).bucket()
    try:
        with backend.stack:
            yield backend
    finally:
        if not backend.is_sqlite:
            backend.execute(f"DROP SCHEMA IF EXISTS {backend.schema} CASCADE")
