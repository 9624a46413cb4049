"""What every part of the log on PostgreSQL is built on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from typing import Any, NoReturn, Self, TypeVar

from nerve_store._core import Check
from nerve_store._places import MAX_CACHE_BYTES, without_password
from nerve_store.exceptions import StoreIOError
from nerve_store.postgres import schema
from nerve_store.postgres.archive.place import days_at
from nerve_store.postgres.connections import Connections
from nerve_store.postgres.entries import CheckedRow, Rules, checked
from nerve_store.postgres.jobs import Job
from nerve_store.postgres.lanes import Lanes
from nerve_store.postgres.listener import Listener
from nerve_store.postgres.partitions import Partitions
from nerve_store.types import Durability, Timestamp

_OBJECTS_VERSION = 2
"""The first version of the schema that knows days in object stores."""

_Result = TypeVar("_Result")

_NOBODY = "a log that is not there yet"
"""The identity of no log."""


class OpenPostgres:
    """An open log on PostgreSQL."""

    _takes_unfinished = False

    def __init__(
        self,
        url: str,
        *,
        schema: str = "nerve",
        archive: str | os.PathLike[str] | None = None,
        listen_url: str | None = None,
        durability: Durability = "full",
        read_only: bool = False,
        busy_timeout: float = 30.0,
        max_payload_bytes: int = 67108864,
        max_connections: int = 16,
        writers: int = 2,
        archive_options: Mapping[str, Any] | None = None,
        cache: str | os.PathLike[str] | None = None,
        max_cache_bytes: int = MAX_CACHE_BYTES,
    ) -> None:
        self._name = Check.text(schema, "schema")
        self._schema = _quoted(self._name)
        self._path = f"{without_password(Check.text(url, 'url'))}#{self._name}"
        self._durability = Check.durability(durability)
        self._read_only = Check.flag(read_only, "read_only")
        self._rules = Rules(Check.count(max_payload_bytes, "max_payload_bytes"))
        timeout = Check.seconds(busy_timeout, "busy_timeout")
        self._archive = days_at(archive, archive_options, cache, max_cache_bytes)
        self._connections = Connections(
            url,
            place=self._path,
            busy_timeout=timeout,
            max_connections=max(1, Check.count(max_connections, "max_connections")),
        )
        self._direct_url = Check.optional_text(listen_url, "listen_url")
        self._partitions = Partitions(self._connections, self._schema)
        self._durable_id = 0
        """All rows up to this id are known to be on the server's disk."""
        count = max(1, Check.count(writers, "writers"))
        try:
            with self._connections.borrowed() as session:
                found = _prepare(
                    session,
                    self._name,
                    self._path,
                    lock_timeout_ms=self._connections.lock_timeout_ms,
                    read_only=self._read_only,
                    before_making=self._refuse_days,
                    takes_unfinished=self._takes_unfinished,
                )
                if not self._read_only:
                    self._partitions.open(session)
            self._knows_objects = found.version >= _OBJECTS_VERSION
            """Whether the tables can say that a day is an object."""
            self._log = found.log
            self._open_archive()
        except BaseException:
            self._connections.close()
            self._archive.close()
            raise
        self._lanes = Lanes(self._connections, self._schema, found.log, count=count)
        self._listener = Listener(self._connections, self._name, self._direct_url)

    def _refuse_days(self) -> None:
        """Raise if there are days where those of a log that is to be made will lie: nothing of it is made then."""
        self._archive.unknown(lambda: _NOBODY, list, list)

    def _open_archive(self) -> None:
        """Compare what lies in an object store with what the database says of it."""
        raise NotImplementedError

    @property
    def path(self) -> str:
        """The URL without its password, `#` and the schema."""
        return self._path

    @property
    def archive_dir(self) -> str:
        """The absolute path of the directory of the day files, or the URL of their folder; empty if there is none."""
        return self._archive.path or ""

    @property
    def read_only(self) -> bool:
        """Whether the store refuses writes."""
        return self._read_only

    @property
    def closed(self) -> bool:
        """Whether `close()` was called."""
        return self._connections.closed

    def _check_writable(self) -> None:
        self._connections.check()
        if self._read_only:
            self._refuse_write()
        self._partitions.look()

    def _refuse_write(self) -> NoReturn:
        error = StoreIOError(errno.EROFS, "the store was opened with read_only", self._path)
        error.path = self._path
        raise error

    def _job(self, durability: Durability | None, claim: dict[str, object] | None = None) -> Job:
        wanted = self._durability if durability is None else Check.durability(durability)
        return Job(is_durable=wanted == "full", claim=claim)

    def _commit(self, job: Job, result: Callable[[Job], _Result]) -> _Result:
        """Commit the job; returns what `result` makes of it. An interrupt until then says that it may be written."""
        self._check_writable()

        def end(job: Job) -> _Result:
            if job.is_durable and job.is_plain:
                self._durable_id = max(self._durable_id, job.first_id + len(job.columns) - 1)
            return result(job)

        return self._lanes.run(job, end)

    def _row(
        self, source: str, type: str, ref_id: str | None, payload: str | None, timestamp: Timestamp | None
    ) -> CheckedRow:
        return checked(source, type, ref_id, payload, timestamp, rules=self._rules)

    def _opened_again(self) -> Self:
        """The same log for a forked child that appends to it; without the archive, which it does not need."""
        return type(self)(
            self._connections.url,
            schema=self._name,
            listen_url=self._direct_url,
            durability=self._durability or "full",
            read_only=self._read_only,
            busy_timeout=self._connections.busy_timeout,
            max_payload_bytes=self._rules.max_payload_bytes,
            writers=1,
        )

    def close(self) -> None:
        """Wait for calls under way and close; harmless when closed already. Later calls raise `StoreClosedError`."""
        if self._connections.closed:
            return
        self._connections.check()
        self._connections.close()
        self._lanes.close()
        self._listener.close()
        self._partitions.close()
        self._archive.close()

    def __repr__(self) -> str:
        closed = " (closed)" if self.closed else ""
        return f"<{type(self).__name__} {self._path!r}{closed}>"


_quoted, _prepare = schema.quoted, schema.prepare
