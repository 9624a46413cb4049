"""The log on PostgreSQL: all its parts together."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from nerve_store.postgres.append import Appends
from nerve_store.postgres.archive.upkeep import Archives
from nerve_store.postgres.arrow import Arrows
from nerve_store.postgres.claims import Claims
from nerve_store.postgres.follow import Follows
from nerve_store.postgres.runs import Runs
from nerve_store.postgres.threads import Threads
from nerve_store.postgres.upkeep import Upkeep

__all__ = ["PostgresLogStore"]


class PostgresLogStore(Appends, Runs, Claims, Threads, Follows, Arrows, Archives, Upkeep):
    """The log in a schema of a PostgreSQL database (15 or newer): the methods, records and errors of `LogStore`.

    One object serves any number of threads; any number of processes on any number of machines may open the same
    schema. Use it as a context manager, or call `close()`. A forked child must open its own (`ForkedStoreError`).

    - `url`: `postgresql://user@host/database`; TLS, timeouts and other options of libpq go into it.
    - `schema`: where the tables are; made if it is missing. Several logs can lie in one database.
    - `archive`: the directory of the day files, or a URL as `ObjectBlobStore` takes it, under whose `logs/` each day is
      an object (needs the extra `s3`); the same one for all who archive or read the archive. Where an object store
      gives no answer, opening the log and reading a day raise `StoreUnavailableError`. A log that is opened without
      its archive appends and reads what is in the database.
    - `archive_options`: the `options` of `ObjectBlobStore`. `cache`: a directory for days that were fetched, which
      processes may share; by default a temporary one. `max_cache_bytes`: what it may hold; a day that is larger is
      kept alone.
    - `listen_url`: goes around a pooler in transaction mode (pgbouncer), for notices and archive jobs; without it these
      jobs are refused behind one (`ArchiveError`), as is an opening that is to take in days.
    - `durability`: what a returned call survives. "full": a crash of the server; "normal": the end of this process,
      while a crash of the server may drop the newest commits.
    - `read_only`: refuse every write, and make no table.
    - `busy_timeout`: seconds to wait for a lock (`StoreBusyError`) or for the server (`StoreUnavailableError`).
    - `max_payload_bytes`: the longest payload accepted, in bytes of UTF-8.
    - `max_connections`: connections for reads; `writers`: for writes. Jobs of few rows share the commits of one.
    """

    def __enter__(self) -> Self:
        self._connections.check()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()
