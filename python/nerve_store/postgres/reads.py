"""Reading rows: those in the database, and those of the archive as if they had never left."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psycopg

from nerve_store._core import Check, LogEntry, stored_rows
from nerve_store._pages import Pages
from nerve_store._places import error_at
from nerve_store.exceptions import QueryTimeoutError
from nerve_store.postgres import failures
from nerve_store.postgres.archive.known import COLUMNS as COLUMNS_OF_DAYS
from nerve_store.postgres.archive.known import OLD_COLUMNS
from nerve_store.postgres.archive.reader import ArchiveReader
from nerve_store.postgres.base import OpenPostgres
from nerve_store.postgres.connections import Session
from nerve_store.postgres.filters import ROW, Filter
from nerve_store.postgres.pages import PAGE_BYTES, PAGE_ROWS, paged
from nerve_store.types import Timestamp

_FIRST_PAGE_ROWS = 250
_LONGEST_TIMEOUT_MS = 2**31 - 1
_NONE: LogEntry | None = None


def _values(params: Any) -> Mapping[str, Any] | list[Any]:
    """The values for a statement's placeholders; the driver takes more types than SQLite knows."""
    if params is None:
        return []
    if isinstance(params, str | bytes) or not hasattr(params, "__iter__"):
        raise TypeError(f"params must be a sequence or a mapping of values, not {type(params).__name__}")
    if not isinstance(params, Mapping):
        return list(params)
    return {Check.text(name, "params: a name"): value for name, value in params.items()}


class PostgresIterator(Pages[LogEntry]):
    """The rows of a filter or of an archived day, page by page; no transaction is open between steps.

    Any thread may take the next row. An interrupted step loses none.
    """


class Reads(OpenPostgres):
    """Reading rows."""

    def query(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> list[LogEntry]:
        """The rows that match every filter given, in id order.

        `since` and `until` bound the timestamp, both inclusive; `after_id` and `before_id` bound the id, both
        exclusive. `limit` takes the first rows of the order asked for. With `archived`, rows that have left the
        database are read from the archive as if they had not, each once. A row may be seen some milliseconds before it
        is durable.
        """
        wanted = Filter.checked(
            source=source, type=type, ref_id=ref_id, since=since, until=until, after_id=after_id,
            before_id=before_id, limit=limit, descending=descending, archived=archived,
        )  # fmt: skip
        self._connections.check()
        if limit == 0:
            return []
        return list(self._merged(wanted)) if wanted.archived else self._page(wanted)

    def iter(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> PostgresIterator:
        """The rows of `query`, any number of them in constant memory, holding no transaction between steps.

        Rows appended after the call are not included.
        """
        wanted = Filter.checked(
            source=source, type=type, ref_id=ref_id, since=since, until=until, after_id=after_id,
            before_id=before_id, limit=limit, descending=descending, archived=archived,
        ).between(before_id=self._last_id() + 1, limit=limit)  # fmt: skip
        return self._iterator(wanted)

    def count(
        self,
        *,
        source: str | None = None,
        type: str | None = None,
        ref_id: str | None = None,
        since: Timestamp | None = None,
        until: Timestamp | None = None,
        after_id: int | None = None,
        before_id: int | None = None,
        limit: int | None = None,
        descending: bool = False,
        archived: bool = False,
    ) -> int:
        """How many rows `query` would return."""
        wanted = Filter.checked(
            source=source, type=type, ref_id=ref_id, since=since, until=until, after_id=after_id,
            before_id=before_id, limit=limit, descending=descending, archived=archived,
        )  # fmt: skip
        self._connections.check()
        if wanted.limit == 0:
            return 0
        if wanted.archived:
            return sum(1 for _ in self._merged(wanted))
        condition, parameters = wanted.condition()
        counted = f"SELECT FROM {self._schema}.logs WHERE {condition}"
        if wanted.limit is not None:
            counted += f" LIMIT {wanted.limit}"
        return int(self._value(f"SELECT count(*) FROM ({counted}) AS found", parameters))

    def sql(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        timeout: float | None = None,
    ) -> list[tuple[Any, ...]]:
        """The rows of one statement of SQL that reads, in a read-only transaction; the dialect is PostgreSQL's.

        Tables: `logs`, `meta`, `workflow_runs`. Placeholders are the server's driver's: `%s`, or `%(name)s` for a
        mapping. A statement that would write or returns no rows is a `ValueError`, and so is one that the server does
        not understand. After `timeout` seconds it ends with `QueryTimeoutError`.
        """
        return self._sql_with_names(query, params, timeout=timeout)[1]

    def _sql_with_names(
        self,
        query: str,
        params: Sequence[Any] | Mapping[str, Any] = (),
        *,
        timeout: float | None = None,
    ) -> tuple[list[str], list[tuple[Any, ...]]]:
        """`sql`, and the names of its columns, which may repeat. For the command line."""
        statement = Check.text(query, "query")
        seconds = None if timeout is None else Check.seconds(timeout, "timeout")
        milliseconds = 0 if seconds is None else min(max(1, round(seconds * 1000)), _LONGEST_TIMEOUT_MS)
        values = _values(params)

        def read(session: Session) -> tuple[list[str], list[tuple[Any, ...]]]:
            session.execute(
                f"BEGIN ISOLATION LEVEL READ COMMITTED READ ONLY; SET LOCAL search_path = {self._schema}, pg_catalog; "
                f"SET LOCAL statement_timeout = {milliseconds}".encode()
            )
            try:
                # The binary form allows one statement alone.
                cursor = session.execute(statement.encode(), values or None, binary=True)
                if cursor.description is None or session.info.transaction_status.name != "INTRANS":
                    raise ValueError("sql takes a statement that reads and returns rows")
                return [column.name for column in cursor.description], cursor.fetchall()
            finally:
                if not session.closed:
                    session.execute("ROLLBACK")

        try:
            return self._connections.read_untranslated(read)
        except psycopg.errors.QueryCanceled as error:
            if timeout is None:
                failures.fail(error, self._path)
            raise error_at(
                QueryTimeoutError, self._path, f"the statement did not end within {timeout} seconds"
            ) from None
        except psycopg.errors.InsufficientPrivilege as error:
            failures.fail(error, self._path)
        except (psycopg.ProgrammingError, psycopg.DataError, psycopg.NotSupportedError, psycopg.InternalError) as error:
            raise ValueError(f"the server refused the query or its params: {' '.join(str(error).split())}") from error
        except psycopg.Error as error:
            failures.fail(error, self._path)

    def _reader(self) -> ArchiveReader:
        return ArchiveReader(self._connections, self._schema, self._archive, self._columns_of_days)

    @property
    def _columns_of_days(self) -> str:
        return COLUMNS_OF_DAYS if self._knows_objects else OLD_COLUMNS

    def _value(self, statement: str, parameters: Mapping[str, Any] | None = None) -> Any:
        row = self._connections.read(lambda session: session.execute(statement.encode(), parameters).fetchone())
        assert row is not None
        return row[0]

    def _last_id(self) -> int:
        """The last id that is committed; the sequence's may be of a row that is not yet."""
        return int(
            self._value(
                f"SELECT greatest((SELECT max(id) FROM {self._schema}.logs), "
                f"(SELECT max(last_id) FROM {self._schema}.archive_days WHERE state = 0), 0)"
            )
        )

    def _page(self, wanted: Filter, *, is_durable: bool = False) -> list[LogEntry]:
        """The rows of the database; with `is_durable`, once they are on the server's disk."""
        condition, parameters = wanted.condition()
        order = "DESC" if wanted.descending else "ASC"
        statement = f"SELECT {ROW} FROM {self._schema}.logs WHERE {condition} ORDER BY id {order}"
        if wanted.limit is not None:
            statement += f" LIMIT {wanted.limit}"

        def read(session: Session) -> list[LogEntry]:
            rows = stored_rows(session.execute(statement.encode(), parameters, binary=True).fetchall())
            if is_durable and rows and rows[-1].id > self._durable_id:
                # What a standby shows has been on a disk before.
                session.execute(f"SELECT {self._schema}.await_flush() WHERE NOT pg_is_in_recovery()".encode())
                self._durable_id = max(self._durable_id, rows[-1].id)
            return rows

        return self._connections.read(read)

    def _iterator(self, wanted: Filter) -> PostgresIterator:
        def pages(last: LogEntry | None, left: int | None) -> Iterator[list[LogEntry]]:
            rest = wanted.beyond(last, limit=left)
            return paged(self._merged(rest)) if wanted.archived else self._pages(rest)

        return PostgresIterator(pages, self._connections.check, wanted.limit)

    def _pages(self, wanted: Filter) -> Iterator[list[LogEntry]]:
        """The rows of the database, page by page; long ones come a few at a time."""
        left, last, most = wanted.limit, _NONE, _FIRST_PAGE_ROWS
        while left != 0:
            size = most if left is None else min(left, most)
            page = self._page(wanted.beyond(last, limit=size))
            if page:
                yield page
            if len(page) < size:
                return
            last = page[-1]
            left = None if left is None else left - len(page)
            average = sum(len(entry.payload or "") for entry in page) // len(page) + 1
            most = max(1, min(4 * most, PAGE_ROWS, PAGE_BYTES // average))

    def _merged(self, wanted: Filter) -> Iterator[LogEntry]:
        """Rows of the database and of the archive, each once, in order.

        A page of rows is read first and the archive after it: a row that leaves the database in between is in a file
        by then. One read of both at the same moment could miss the rows of a partition that is dropped meanwhile.
        """
        left, last = wanted.limit, _NONE
        reader = self._reader()
        while left != 0:
            size = PAGE_ROWS if left is None else min(left, PAGE_ROWS)
            span = wanted.beyond(last, limit=size)
            page = self._page(span)
            is_last = len(page) < size
            if is_last:
                archived = reader.rows(span)
            elif wanted.descending:
                archived = reader.rows(span.between(after_id=page[-1].id - 1, limit=None))
            else:
                archived = reader.rows(span.between(before_id=page[-1].id + 1, limit=None))
            for entry in _united(page, archived, descending=wanted.descending):
                yield entry
                if left is not None:
                    left -= 1
                    if left == 0:
                        return
            if is_last:
                return
            last = page[-1]


def _united(first: list[LogEntry], second: Iterator[LogEntry], *, descending: bool) -> Iterator[LogEntry]:
    last: int | None = None
    for entry in heapq.merge(first, second, key=lambda entry: entry.id, reverse=descending):
        if entry.id != last:
            yield entry
        last = entry.id
