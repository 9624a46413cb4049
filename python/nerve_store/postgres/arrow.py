"""Rows for data tools."""

from __future__ import annotations

from collections.abc import Callable

from nerve_store._core import ArrowStream, Check, LogEntry, arrow_stream
from nerve_store.postgres.filters import Filter
from nerve_store.postgres.reads import Reads
from nerve_store.types import Timestamp


class Arrows(Reads):
    """Reading rows as Arrow's columns."""

    def arrow(
        self,
        *,
        batch_rows: int = 65536,
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
    ) -> ArrowStream:
        """The rows of `query` for data tools: `pyarrow.table(log.arrow())`, `duckdb.sql("SELECT … FROM stream")`.

        They are read as they are asked for, in batches of at most `batch_rows`, in constant memory, and no transaction
        is open between batches. Rows that are appended after a reading began are not included. An error of a reading
        is the reader's own (in pyarrow an `OSError`), and says what the store's would.
        """
        most = Check.count(batch_rows, "batch_rows")
        if not most:
            raise ValueError("batch_rows is at least 1, not 0")
        wanted = Filter.checked(
            source=source, type=type, ref_id=ref_id, since=since, until=until, after_id=after_id,
            before_id=before_id, limit=limit, descending=descending, archived=archived,
        )  # fmt: skip
        self._connections.check()
        return arrow_stream(lambda: self._reading(wanted), most)

    def _reading(self, wanted: Filter) -> Callable[[], list[LogEntry]]:
        self._connections.check()
        return self._iterator(wanted.between(before_id=self._last_id() + 1, limit=wanted.limit))._take
