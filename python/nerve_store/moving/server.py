"""A schema of a PostgreSQL database that a log is moved to."""

from __future__ import annotations

import errno
import time
from collections.abc import Collection, Generator, Iterable, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from itertools import chain
from typing import Any, get_type_hints

import psycopg
from psycopg import errors

from nerve_store._core import MAX_TIMESTAMP, Columns, LogEntry, stored_rows, utc_day
from nerve_store._places import directory_path, without_password
from nerve_store.exceptions import CorruptStoreError, NerveStoreError, StoreIOError
from nerve_store.moving.place import Remote
from nerve_store.moving.shelf import Directory, Shelf
from nerve_store.moving.source import LEAST_ID
from nerve_store.moving.state import KnownDay, KnownKey, Origin, RunState, State
from nerve_store.moving.target import Target, TargetExistsError, system_errors
from nerve_store.postgres import failures
from nerve_store.postgres.address import Address
from nerve_store.postgres.arrays import Integers, parameters
from nerve_store.postgres.claims import LONGEST_TERM
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.filters import ROW
from nerve_store.postgres.locks import take_lock
from nerve_store.postgres.schema import (
    COPYING,
    COPYING_SUFFIX,
    create,
    is_there,
    lock_key,
    lock_name,
    quoted,
    rename,
    tables,
)
from nerve_store.postgres.store import PostgresLogStore
from nerve_store.postgres.texts import encode
from nerve_store.protocols import Blobs
from nerve_store.records import WorkflowRunStatus

_MOST_NAME = 40 - len(COPYING_SUFFIX)
_PATIENCE = 30.0
"""Seconds to wait for a lock: that of another copy to the same place, or one of the server's."""
_PARTITIONED = timedelta(days=60)
"""Rows of older days lie in the default partition: there may be any number of such days."""


class ServerTarget(Target):
    """Builds the tables in a schema of another name."""

    def __init__(self, address: Address, remote: Remote | None = None) -> None:
        quoted(address.schema)  # what is no name is refused before anything is done
        if len(address.schema) > _MOST_NAME:
            raise ValueError(f"the name of the schema may have {_MOST_NAME} letters while a log is copied to it")
        self._name, self._staged = address.schema, address.schema + COPYING_SUFFIX
        self._schema = quoted(self._staged)
        self.place = f"{without_password(address.url)}#{self._name}"
        self.shelf = _shelf(address, remote)
        self._remote = remote
        self._partitions: set[date] = set()
        direct = address.listen_url or address.url
        self._connections = Connections(direct, place=self.place, busy_timeout=_PATIENCE, max_connections=1)
        self._session, self._lock_timeout_ms = self._connections.reach(), self._connections.lock_timeout_ms
        self._open = ExitStack()
        self._open.callback(self._session.close)
        try:
            with self.translated():
                self._exclude_others()
                with self._session.transaction():
                    lock_name(self._session, self._name, self._lock_timeout_ms)
                    self._refuse_what_is_there()
                    self._prepare()
            # Brings an older schema up to date.
            self._log = self._open.enter_context(
                opened(replace(address, schema=self._staged), remote, kind=_UnfinishedLogStore)
            )
            with self.translated():
                self.identity = str(self._execute("SELECT store_id::text FROM @.state").fetchone()[0])
        except BaseException:
            self.close()
            raise

    @contextmanager
    def translated(self) -> Generator[None]:
        with system_errors(self.place):
            try:
                yield
            except psycopg.Error as error:
                failures.fail(error, self.place)

    def _exclude_others(self) -> None:
        """Two at once would write rows twice: the lock lives as long as the session, which writes everything."""
        if self._connections.is_shared(self._session):
            raise NerveStoreError(
                f"{self.place}: a pooler gives this session to others, too; add listen_url=… to the URL of the target,"
                " an address that goes around it"
            )
        self._execute("SELECT set_config('lock_timeout', %s, false)", (str(self._lock_timeout_ms),))
        # The server may not have noticed yet that one before was killed.
        end = time.monotonic() + _PATIENCE
        while not take_lock(self._session, lock_key(self._staged, "copy")):
            if time.monotonic() > end:
                raise NerveStoreError(f"{self.place}: another copy to it is under way")
            time.sleep(0.1)

    def _refuse_what_is_there(self) -> None:
        """Called before anything is made: what is there stays as it is, and the last step will be allowed."""
        if is_there(self._session, self._name):
            raise self._is_there()
        if self._execute("SELECT nspname FROM pg_namespace WHERE nspname = %s", (self._name,)).fetchone():
            raise NerveStoreError(
                f"{self.place}: there is a schema of this name, and the copy makes it: drop it, or name another schema"
            )
        if not self._execute("SELECT has_database_privilege(current_database(), 'CREATE')").fetchone()[0]:
            raise StoreIOError(
                errno.EACCES, "this role may not make a schema; GRANT CREATE ON DATABASE … to it", self.place
            )

    def _is_there(self) -> TargetExistsError:
        return TargetExistsError(self.place, self.place, "name another schema", self.shelf)

    def _prepare(self) -> None:
        notes = (
            f"CREATE TABLE {self._schema}.copying (source text NOT NULL, done bigint NOT NULL);"
            f"CREATE TABLE {self._schema}.copying_days (day text, format text, sha256 text)"
        )
        is_new = create(self._session, self._staged, notes, self.place, lock_timeout_ms=self._lock_timeout_ms)
        if not is_new and COPYING not in tables(self._session, self._staged):
            raise NerveStoreError(
                f"{self.place}: the schema {self._staged}, in which the copy is made, has a log of its own; name"
                " another schema"
            )

    def _execute(self, statement: str, parameters: Any = None) -> Any:
        """`@` stands for the schema."""
        return self._session.execute(statement.replace("@", self._schema).encode(), parameters, binary=True)

    def begin(self, source: str) -> str:
        found = self._execute("SELECT source FROM @.copying").fetchone()
        if found is None:
            self._execute("INSERT INTO @.copying VALUES (%s, %s)", (source, LEAST_ID))
        return source if found is None else str(found[0])

    @property
    def done(self) -> int:
        return int(self._execute("SELECT done FROM @.copying").fetchone()[0])

    def put(self, rows: list[LogEntry], *, after: int) -> None:
        self._make_partitions(rows)
        columns = Columns()
        columns.add_stored(rows)
        with self._session.transaction():
            self._execute("DELETE FROM @.logs WHERE id > %s AND id <= %s", (after, rows[-1].id))
            self._execute(
                "INSERT INTO @.logs (id, source, type, ref_id, payload, timestamp, is_round) "
                "SELECT * FROM unnest(%b, %b, %b, %b, %b, %b, %b)",
                (Integers.of([row.id for row in rows]), *parameters(columns)),
            )

    def _make_partitions(self, rows: list[LogEntry]) -> None:
        first = datetime.now(UTC).date() - _PARTITIONED
        last = datetime.now(UTC).date() + timedelta(days=1)
        days = {utc_day(row.timestamp) for row in rows if 0 <= row.timestamp <= MAX_TIMESTAMP} - self._partitions
        for day in sorted(days):
            if first <= day <= last:
                with self._session.transaction():
                    self._execute("SELECT @.ensure_day(%s)", (day,))
        self._partitions |= days

    def advance(self, done: int) -> None:
        self._execute("UPDATE @.copying SET done = %s", (done,))

    def count(self) -> int:
        return int(self._execute("SELECT count(*) FROM @.logs").fetchone()[0])

    def rows(self, after: int, last: int) -> list[LogEntry]:
        statement = f"SELECT {ROW} FROM @.logs WHERE id > %s AND id <= %s ORDER BY id"
        return stored_rows(self._execute(statement, (after, last)).fetchall())

    def ids(self, after: int, last: int) -> list[int]:
        statement = "SELECT id FROM @.logs WHERE id > %s AND id <= %s ORDER BY id"
        return [row[0] for row in self._execute(statement, (after, last))]

    def delete(self, ids: Collection[int]) -> None:
        self._execute("DELETE FROM @.logs WHERE id = ANY(%s)", (list(ids),))

    def days(self) -> set[KnownDay]:
        return {KnownDay(*row) for row in self._execute("SELECT day, format, sha256 FROM @.copying_days")}

    def note_day(self, day: KnownDay) -> None:
        self._execute("INSERT INTO @.copying_days VALUES (%s, %s, %s)", (day.day, day.format, day.sha256))

    def forget_day(self, day: KnownDay) -> None:
        self._execute(
            "DELETE FROM @.copying_days WHERE (day, format, sha256) = (%s, %s, %s)", (day.day, day.format, day.sha256)
        )

    def replace_state(self, state: State) -> None:
        _check(chain(state.runs, state.keys))
        with self._session.transaction():
            for table in ("meta", "workflow_runs", "keys"):
                self._execute(f"DELETE FROM @.{table}")
            self._copy(
                "meta (key, value)",
                "text text",
                ((encode(key), encode(value)) for key, value in state.meta.items()),
            )
            self._copy(
                "workflow_runs (run_id, workflow, status, timestamp, exit_code, created_id, attempt, token, owner, "
                "lease, lease_until, not_before)",
                "text text text int8 int8 int8 int8 int8 text interval timestamptz int8",
                (
                    (
                        encode(run.run_id), encode(run.workflow), run.status, run.timestamp, run.exit_code, run.order,
                        run.attempt, run.token, encode(run.owner), _lease(run.lease_ms),
                        # It has run out, and whoever holds the claim may renew it.
                        _EPOCH if run.token is not None and run.status == "started" else None, run.not_before,
                    )
                    for run in state.runs
                ),
            )  # fmt: skip
            self._copy(
                "keys (key, id, timestamp, digest, at)",
                "text int8 int8 bytea timestamptz",
                (
                    (
                        encode(key.key),
                        key.id,
                        key.timestamp,
                        key.digest,
                        _EPOCH + timedelta(milliseconds=key.appended_at),
                    )
                    for key in state.keys
                ),
            )
            self._execute("SELECT @.go_on_after(%s)", (state.last_id,))

    def _copy(self, table: str, types: str, rows: Any) -> None:
        statement = f"COPY {self._schema}.{table} FROM STDIN (FORMAT binary)"
        with self._session.cursor().copy(statement.encode()) as copy:
            copy.set_types(types.split())
            for row in rows:
                copy.write_row(row)

    def index(self, archived_at: Mapping[str, int]) -> dict[str, str]:
        if self.shelf is not None:
            # It takes in what is there, and nothing of what an earlier call had taken in.
            for table in ("archive_days", "archive_refs", "archive_objects"):
                self._execute(f"DELETE FROM @.{table}")
            self._log.reindex()
            # A file tells when it was copied, or when it was archived for the first time.
            for day, time_ms in archived_at.items():
                self._execute("UPDATE @.archive_days SET archived_at = %s WHERE day = %s::date", (time_ms, day))
        return {str(day.day): day.sha256 for day in self._log.archived_days()}

    def blobs(self) -> Blobs | None:
        return None if self._remote is None else self._remote.blobs(read_only=False)

    def publish(self, origin: Origin) -> None:
        try:
            with self._session.transaction():
                lock_name(self._session, self._name, self._lock_timeout_ms)
                self._execute("DROP TABLE @.copying, @.copying_days")
                self._execute("CREATE TABLE @.copied_from (source text, days text, written text)")
                values = (origin.source, origin.days, origin.written)
                self._execute("INSERT INTO @.copied_from VALUES (%s, %s, %s)", values)
                rename(self._session, self._staged, self._name)
        except errors.DuplicateSchema as error:
            raise self._is_there().told() from error

    def close(self) -> None:
        self._open.close()


class _UnfinishedLogStore(PostgresLogStore):
    """The one store that opens a log that is being made by a copy."""

    _takes_unfinished = True

    def _open_archive(self) -> None:
        # Objects are this log's by the mark of the copy, and `index` takes them in.
        if "://" not in self.archive_dir:
            super()._open_archive()


def opened(
    address: Address,
    remote: Remote | None,
    *,
    read_only: bool = False,
    kind: type[PostgresLogStore] = PostgresLogStore,
) -> PostgresLogStore:
    """The log; its days are in the object store, or in the directory that its address names."""
    if remote is not None and address.archive is not None:
        raise NerveStoreError(f"two archives are named: {address.archive} in the URL, and {remote.url}")
    return kind(
        address.url,
        schema=address.schema,
        archive=address.archive if remote is None else remote.url,
        archive_options=None if remote is None else remote.options,
        listen_url=address.listen_url,
        read_only=read_only,
    )


def _shelf(address: Address, remote: Remote | None) -> Shelf | None:
    if remote is not None:
        from nerve_store.moving.objects import Objects

        return Objects(remote.url, remote.options)
    return None if address.archive is None else Directory(directory_path(address.archive, "archive"))


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_STATUSES = frozenset(map(str, WorkflowRunStatus))


def _check(items: Iterable[RunState | KnownKey]) -> None:
    """Refuse what a data directory may hold, and a server does not: another program wrote it there."""
    kinds = {made: get_type_hints(made) for made in (RunState, KnownKey)}
    for item in items:
        for name, kind in kinds[type(item)].items():
            value = getattr(item, name)
            is_right = isinstance(value, kind)
            if name == "status":
                is_right = value in _STATUSES
            elif name == "appended_at":
                is_right = is_right and 0 <= value <= MAX_TIMESTAMP
            if not is_right:
                what = f"run {item.run_id!r}" if isinstance(item, RunState) else f"key {item.key!r}"
                raise CorruptStoreError(
                    f"the {what} of the source has the {name} {value!r}, which a server does not take: set it right at"
                    " the source, or delete the row there, and finish again"
                )


def _lease(milliseconds: int | None) -> timedelta | None:
    return None if milliseconds is None else timedelta(milliseconds=min(milliseconds, LONGEST_TERM * 1000))
