"""Databases that come back from a backup, older than the days that they archived."""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg

import nerve_store as ns
from postgres.faults import patiently
from support import as_rows
from support.archive import NOW, at
from support.servers import Server

SKIPPED = 1_000_000
"""How many ids, at the least, a database skips that may have been brought back."""

_numbers = itertools.count()


@dataclass
class Database:
    """A database of a server, its backup, and the days of the log in it."""

    server: Server
    directory: Path
    archive: str
    name: str = field(default_factory=lambda: f"restored_{os.getpid()}_{next(_numbers)}")

    def __post_init__(self) -> None:
        self.execute(f"CREATE DATABASE {self.name}", "postgres")

    @property
    def url(self) -> str:
        return self.server.database_url(self.name)

    def open(self, **options: Any) -> ns.PostgresLogStore:
        return ns.PostgresLogStore(self.url, **{"archive": self.archive, **options})

    def execute(self, statement: str, database: str | None = None) -> list[Any]:
        with psycopg.connect(self.server.database_url(database or self.name), autocommit=True) as session:
            cursor = session.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def _program(self, name: str, *arguments: str | Path, check: bool = True) -> str:
        address = ["-h", "127.0.0.1", "-p", str(self.server.port), "-U", "tester"]
        command = [self.server.programs / name, *address, *arguments]
        return subprocess.run(command, check=check, stdout=subprocess.PIPE, text=True).stdout

    def dump(self, *options: str) -> None:
        """Take a backup by `pg_dump`."""
        self._program("pg_dump", "-Fc", *options, "-f", self.directory / "dump", self.name)

    def restore(self) -> None:
        """Lose the database, and restore that one."""
        self.make_anew()
        self._program("pg_restore", "-d", self.name, self.directory / "dump")

    def make_anew(self) -> None:
        """Lose the database: an empty one is in its place."""
        self.drop()
        self.execute(f"CREATE DATABASE {self.name}", "postgres")

    def load(self, *options: str) -> None:
        """Restore what can be of the dump into what is there, as `pg_restore` goes on after errors."""
        self._program("pg_restore", *options, "-d", self.name, self.directory / "dump", check=False)

    def entries(self) -> list[str]:
        """What the dump consists of, in the order in which it is restored."""
        listed = self._program("pg_restore", "-l", self.directory / "dump").splitlines()
        return [entry for entry in listed if entry and not entry.startswith(";")]

    def load_entries(self, entries: Iterable[str]) -> None:
        """Restore some of them."""
        (self.directory / "entries").write_text("\n".join(entries) + "\n")
        self.load("-L", str(self.directory / "entries"))

    def restore_rows(self) -> None:
        """The same, of the rows alone: the tables stay what they are."""
        tables = self.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'nerve'::regnamespace AND relkind = 'r'"
        )
        self.execute(f"TRUNCATE {', '.join(f'nerve.{name}' for (name,) in tables)}")
        self._program("pg_restore", "--data-only", "-d", self.name, self.directory / "dump")

    def copy(self) -> None:
        """Take a backup by a copy of the database, on the same server."""
        self.end_sessions()
        patiently(lambda: self.execute(f"CREATE DATABASE {self.name}_copy TEMPLATE {self.name}", "postgres"))

    def rename_copy(self) -> None:
        """Lose the database, and put that one in its place."""
        self.drop()
        self.execute(f"ALTER DATABASE {self.name}_copy RENAME TO {self.name}", "postgres")

    def stop_and_copy(self) -> None:
        """Take a backup by copying the files of the server, which is stopped for it."""
        self.server.stop()
        subprocess.run(["cp", "-a", self.server.directory / "data", self.server.directory / "cold"], check=True)
        self.server.start()

    def put_back(self) -> None:
        """Lose the server, and put these files in their place."""
        self.server.stop()
        shutil.rmtree(self.server.directory / "data")
        (self.server.directory / "cold").rename(self.server.directory / "data")
        self.server.start()

    def back_up_base(self) -> None:
        """Take a backup by `pg_basebackup`."""
        self._program("pg_basebackup", "-D", self.server.directory / "cold", "-c", "fast", "--no-sync")
        owner = (self.server.directory / "data").stat()
        for path in ((self.server.directory / "cold"), *(self.server.directory / "cold").rglob("*")):
            os.chown(path, owner.st_uid, owner.st_gid)

    def end_sessions(self) -> None:
        self.execute(
            f"SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity WHERE datname = '{self.name}'", "postgres"
        )

    def drop(self) -> None:
        self.execute(f"DROP DATABASE {self.name} WITH (FORCE)", "postgres")

    def remove(self) -> None:
        with suppress(psycopg.Error):
            self.drop()


RESTORES: dict[str, tuple[Callable[[Database], None], Callable[[Database], None]]] = {
    "dump": (Database.dump, Database.restore),
    "dump of rows": (Database.dump, Database.restore_rows),
    "copy of the database": (Database.copy, Database.rename_copy),
    "copy of the stopped server": (Database.stop_and_copy, Database.put_back),
    "base backup": (Database.back_up_base, Database.put_back),
}
"""How a database is backed up, and how it comes back from that."""


def tell_nothing(url: str) -> None:
    """As if the database could not tell that it was brought back, as after a rollback of the whole machine."""
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(
            "SELECT nerve.go_on_after(CASE WHEN is_called THEN last_value ELSE last_value - 1 END) FROM nerve.log_id"
        )


def as_version_4(database: Database) -> None:
    """Make the schema what that version had."""
    database.execute(
        "ALTER TABLE nerve.alive DROP COLUMN started, DROP COLUMN file, DROP COLUMN xid, DROP COLUMN after, "
        "DROP COLUMN mask, ADD COLUMN one boolean PRIMARY KEY DEFAULT true CHECK (one)"
    )
    database.execute("DROP SEQUENCE nerve.given_id")
    database.execute("UPDATE nerve.state SET schema_version = 4")


def lived_on(database: Database) -> list[ns.LogEntry]:
    """Rows that were acknowledged after the backup, and archived with those before."""
    with database.open() as log:
        rows = [log.append("system", "lost", timestamp=at(1)) for _ in range(5)]
        log.archive_logs(now=NOW)
    return rows


def assert_nothing_hidden(log: Any, rows: list[ns.LogEntry]) -> None:
    """All of them are there, each under its own id."""
    assert as_rows(log.query(archived=True)) == as_rows(sorted(rows, key=lambda row: row.id))
    assert log.verify().ok
