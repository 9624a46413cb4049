"""Records of `logging` as rows of the log.

```text
logging.getLogger().addHandler(StoreHandler(store))
```
"""

from __future__ import annotations

import json
import logging
import os
import queue
import threading
import time
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from nerve_store._core import LogStore
from nerve_store.exceptions import ForkedStoreError, StoreClosedError

if TYPE_CHECKING:
    from nerve_store.store import Store

__all__ = ["StoreHandler"]

_BATCH_ROWS = 1024
_GATHER = 0.005
"""Seconds for which the first record of a batch waits for others."""
_PATIENCE = 30.0
"""Seconds that `flush` and `close` wait for what is queued."""
_MOST_NAME_BYTES = 64 << 10

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_STANDARD_COUNT = len(logging.makeLogRecord({}).__dict__)

_Row = tuple[str, str, str | None, str | None, int]
_Queued = tuple[logging.LogRecord, str, str | None, str | None]
"""A record; its message, exception and extra, which are made at once, since what they are made of may change."""

_encode = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), default=repr).encode
_quote = json.encoder.encode_basestring
_encode_escaped = json.JSONEncoder(separators=(",", ":"), default=repr).encode


class StoreHandler(logging.Handler):
    """Appends log records to a store, from a thread of its own.

    A row has the source `source`, the level's name as its type, the logger's name as its ref_id, and as payload a JSON
    object of `message`, `path`, `line`, `function`, `thread`, and where there is one `exception`, `stack` and `extra`.

    A record costs the logging thread a few microseconds: it is queued, and a thread appends what is queued together.
    Nothing blocks and nothing is raised into the program: `dropped` counts the records that came while `capacity` of
    them were queued, that the store refused, or that appending itself caused. `last_error` is the newest refusal. What
    is queued is lost when the process is killed; `flush()`, `close()` and the end of the interpreter append it. Close
    the handler before its store.

    A forked child begins with an empty queue and opens the store anew with its first record.
    """

    def __init__(
        self,
        store: LogStore | Store,
        *,
        source: str = "logging",
        level: int | str = logging.NOTSET,
        capacity: int = 10_000,
    ) -> None:
        """Append records to `store`, of `level` and above, of which at most `capacity` wait."""
        if capacity < 1:
            raise ValueError(f"capacity is at least 1, not {capacity}")
        super().__init__(level)
        self.source = source
        self.capacity = capacity
        self._store: LogStore | None = store if isinstance(store, LogStore) else store.logs
        self._path = self._store.path
        self._archive_dir = self._store.archive_dir
        self._is_own = False
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        self.dropped: int = 0
        """Records that were not appended."""
        self.last_error: Exception | None = None
        """Why the store refused records, the last time that it did."""
        # `put` may be called by a signal handler or a finalizer in the middle of another `put`.
        self._queue: queue.SimpleQueue[_Queued | threading.Event | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._counting = threading.RLock()
        self._is_closed = False

    def _begin_in_child(self) -> None:
        """In a forked child: the thread, the queue and the store are the parent's."""
        if not self._is_closed:
            self._store = None
            self._begin()

    def createLock(self) -> None:  # noqa: N802 - the name is that of `logging`
        """Make no lock: the queue needs none."""
        self.lock: threading.RLock | None = None  # pyright: ignore[reportIncompatibleVariableOverride]

    def handle(self, record: logging.LogRecord) -> Any:
        """Queue the record if the filters let it pass."""
        passed: Any = self.filter(record)  # from Python 3.12 on a filter may return another record
        if passed:
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return passed

    def emit(self, record: logging.LogRecord) -> None:
        """Queue the record, or count it as dropped."""
        waiting = self._queue
        worker = self._worker
        if (
            self._is_closed
            or waiting.qsize() >= self.capacity
            or (worker is not None and worker.ident == threading.get_ident())
        ):
            self._drop(1)
            return
        try:
            exception = None
            if record.exc_info:
                exception = record.exc_text = record.exc_text or _formatter.formatException(record.exc_info)
            extra = None
            if len(record.__dict__) > _STANDARD_COUNT:
                found = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
                extra = _encode(found) if found else None
            waiting.put((record, record.getMessage(), exception or record.exc_text, extra))
        except RecursionError:
            raise
        except Exception:  # noqa: BLE001 - a wrong record is the business of `logging`
            self._drop(1)
            self.handleError(record)
            return
        if worker is None:
            self._start()

    def flush(self, timeout: float = _PATIENCE) -> None:
        """Append what is queued; return when that is done, or after so many seconds."""
        worker = self._worker
        if worker is None or not worker.is_alive() or worker.ident == threading.get_ident():
            return
        done = threading.Event()
        self._queue.put(done)
        deadline = time.monotonic() + timeout
        while not done.wait(0.1) and worker.is_alive() and time.monotonic() < deadline:
            pass

    def close(self) -> None:
        """Append what is queued, and end; later records are dropped."""
        if not self._is_closed:
            self._is_closed = True
            worker = self._worker
            if worker is not None and worker.ident != threading.get_ident():
                self._queue.put(None)
                worker.join(_PATIENCE)
            if self._is_own and self._store is not None:
                self._store.close()
        super().close()

    def __repr__(self) -> str:
        return f"<StoreHandler {self._path!r} ({logging.getLevelName(self.level)})>"

    def _drop(self, count: int) -> None:
        with self._counting:
            self.dropped += count

    def _start(self) -> None:
        with self._counting:
            if self._worker is not None or self._is_closed:
                return
            worker = threading.Thread(target=self._run, args=(self._queue,), name="nerve_store-logging", daemon=True)
            self._worker = worker  # before it runs: what it logs is its own
            try:
                worker.start()
            except RuntimeError:  # no thread is to be had now; the next record tries again
                self._worker = None

    def _run(self, waiting: queue.SimpleQueue[_Queued | threading.Event | None]) -> None:
        is_ending = False
        while not is_ending:
            batch = [waiting.get()]
            if waiting.qsize() < _BATCH_ROWS and isinstance(batch[0], tuple):
                time.sleep(_GATHER)
            while len(batch) < _BATCH_ROWS:
                try:
                    batch.append(waiting.get_nowait())
                except queue.Empty:
                    break
            self._append(self._rows(batch))
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            is_ending = None in batch

    def _rows(self, batch: list[_Queued | threading.Event | None]) -> list[_Row]:
        rows: list[_Row] = []
        for item in batch:
            if isinstance(item, tuple):
                try:
                    rows.append(_row(self.source, item))
                except Exception as error:  # noqa: BLE001 - an attribute has another type than `logging` gives it
                    self._drop(1)
                    self.last_error = error
        return rows

    def _append(self, rows: list[_Row]) -> None:
        if not rows:
            return
        try:
            self._opened().append_many(rows)
        except (TypeError, ValueError) as error:
            # One of them cannot be stored as it is.
            if len(rows) > 1:
                for row in rows:
                    self._append([row])
            elif rows[0] != (plain := _plain(rows[0])):
                self._append([plain])
            else:
                self._refused(rows, error)
        except Exception as error:  # noqa: BLE001 - nothing is raised into the program
            self._refused(rows, error)

    def _refused(self, rows: list[_Row], error: Exception) -> None:
        self._drop(len(rows))
        self.last_error = error
        if isinstance(error, StoreClosedError | ForkedStoreError) and self._is_own:
            self._store = None

    def _opened(self) -> LogStore:
        if self._store is None:
            self._store = LogStore(self._path, archive_dir=self._archive_dir)
            self._is_own = True
        return self._store


def _row(source: str, queued: _Queued) -> _Row:
    record, message, exception, extra = queued
    # Written by hand: a dict and an encoder take twice as long.
    text = (
        f'{{"message":{_quote(message)},"path":{_quote(record.pathname)},"line":{record.lineno},'
        f'"function":{_quote(record.funcName or "")},"thread":{_quote(record.threadName or "")}'
    )
    if exception:
        text += f',"exception":{_quote(exception)}'
    if record.stack_info:
        text += f',"stack":{_quote(record.stack_info)}'
    if extra:
        text += f',"extra":{extra}'
    text += "}"
    return (source, record.levelname, record.name, text, int(record.created * 1000))


def _plain(row: _Row) -> _Row:
    """The row with names that can be stored, and its payload escaped."""
    source, level, name, payload, timestamp = row
    return (_name(source), _name(level), _name(name or ""), _encode_escaped(json.loads(payload or "null")), timestamp)


def _name(text: str) -> str:
    encoded = text.encode("utf-8", "backslashreplace")
    return encoded[:_MOST_NAME_BYTES].decode("utf-8", "ignore")


_formatter = logging.Formatter()
_handlers: WeakSet[StoreHandler] = WeakSet()


def _in_child() -> None:
    for handler in list(_handlers):
        handler._begin_in_child()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
