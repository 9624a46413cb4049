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
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakSet, ref

from nerve_store._core import Check
from nerve_store._logs import log_of, opened_again
from nerve_store.exceptions import ForkedStoreError, StoreClosedError

if TYPE_CHECKING:
    from nerve_store.protocols import Log
    from nerve_store.store import Store

__all__ = ["StoreHandler"]

_BATCH_ROWS = 1024
_GATHER = 0.005
"""Seconds for which the first record of a batch waits for others."""
_PATIENCE = 30.0
"""Seconds that `flush` and `close` wait for what is queued."""
_MOST_NAME_BYTES = 64 << 10
_LAST = -100
"""The priority with which `multiprocessing` ends a child's handler: what ends before may still log."""

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}
_STANDARD_COUNT = len(logging.makeLogRecord({}).__dict__)

_Row = tuple[str, str, str | None, str, int]
_Queued = tuple[str, str, float, str, str, int, str | None, str | None, str | None, str | None, str | None]
"""Level, name, time, message, path, line, function, thread, exception, stack and extra of a record.

They are taken at once: handlers that come later, their formatters and the program may change the record.
"""

_encode = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=repr).encode
_quote = json.encoder.encode_basestring
_LEFT_OUT = '"<left out>"'
"""In place of an extra that the store refuses."""


class StoreHandler(logging.Handler):
    """Appends log records to a log, or to that of a store, from a thread of its own.

    A row has the source `source`, the level's name as its type, the logger's name as its ref_id, and as payload a JSON
    object of `message`, `path`, `line`, `function`, `thread`, and where there is one `exception`, `stack` and `extra`.
    A value of `extra` that is no JSON (NaN is none) is stored as its `repr`.

    A record costs the logging thread a few microseconds: it is queued, and a thread appends what is queued together.
    Nothing blocks and nothing is raised into the program: `dropped` counts the records that came while `capacity` of
    them were queued, that could not be stored, or that appending itself caused. `last_error` is the newest reason. What
    is queued is lost when the process is killed; `flush()`, `close()` and the end of the interpreter, or of a child of
    `multiprocessing`, append it. Close the handler before its store.

    A forked child begins with an empty queue and opens the log anew with its first record, with the options that its
    parent opened it with. What else is a `nerve_store.protocols.Log` goes on in the child as it is. A child that ends
    by `os._exit` calls `flush()` first.
    """

    def __init__(
        self,
        store: Log | Store,
        *,
        source: str = "logging",
        level: int | str = logging.NOTSET,
        capacity: int = 10_000,
    ) -> None:
        """Append records to `store`, of `level` and above, of which at most `capacity` wait."""
        if Check.count(capacity, "capacity") < 1:
            raise ValueError(f"capacity is at least 1, not {capacity}")
        given: Any = level  # what a caller without a type checker passes
        if not isinstance(given, int | str):
            raise TypeError(f"level must be int or str, not {type(given).__name__}")
        Check.row(source, "NOTSET", None, None, 0, max_payload_bytes=_MOST_NAME_BYTES)
        super().__init__(level)
        self.source = source
        self.capacity = capacity
        self._given = log_of(store)
        self._store: Log | None = self._given
        self._begin()
        _handlers.add(self)

    def _begin(self) -> None:
        self.dropped: int = 0
        """Records that were not appended."""
        self.last_error: BaseException | None = None
        """Why records could not be stored, the last time that they could not."""
        # `put` may be called by a signal handler or a finalizer in the middle of another `put`.
        self._queue: queue.SimpleQueue[_Queued | threading.Event | None] = queue.SimpleQueue()
        self._worker: threading.Thread | None = None
        self._counting = threading.RLock()
        self._is_ending = False
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
            extra = _extra(record) if len(record.__dict__) > _STANDARD_COUNT else None
            waiting.put((
                record.levelname, record.name, record.created, record.getMessage(), record.pathname, record.lineno,
                record.funcName, record.threadName, exception or record.exc_text, record.stack_info, extra,
            ))  # fmt: skip
        except Exception as error:  # noqa: BLE001 - a wrong record is the business of `logging`
            with suppress(Exception):
                self.handleError(record)
            self._refused(1, error.with_traceback(None))  # it would keep the program's variables
            return
        if worker is None:
            self._start()
        if self._is_ending:
            self.flush()

    def flush(self, timeout: float = _PATIENCE) -> None:
        """Append what is queued; return when that is done, or after so many seconds."""
        timeout = Check.seconds(timeout, "timeout")
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
        with self._counting:  # no thread begins from here on
            was_closed, self._is_closed = self._is_closed, True
        if not was_closed:
            self._queue.put(None)
            if self._worker is None:
                self._run(self._queue)  # there was no thread to be had, or nothing is queued
            elif self._worker.ident != threading.get_ident():
                self._worker.join(_PATIENCE)
            if self._store is not self._given and self._store is not None:
                self._store.close()
        super().close()

    def __repr__(self) -> str:
        return f"<StoreHandler {self._given.path!r} ({logging.getLevelName(self.level)})>"

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
                return
        if "multiprocessing.util" in sys.modules:
            from multiprocessing import parent_process, util

            if parent_process() is not None:  # its child ends by `os._exit`, without `logging.shutdown`
                util.Finalize(self, _end_child, (ref(self),), exitpriority=_LAST)

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
            if records := [item for item in batch if isinstance(item, tuple)]:
                self._append(records)
            for item in batch:
                if isinstance(item, threading.Event):
                    item.set()
            is_ending = None in batch

    def _append(self, batch: list[_Queued], row: Callable[[str, _Queued], _Row] | None = None) -> None:
        """Append the records together, or each that can be stored."""
        try:
            rows = [(row or _row)(self.source, item) for item in batch]
        except BaseException as error:  # noqa: BLE001 - an attribute may raise anything, and would end the thread
            refused = error
        else:
            try:
                self._opened().append_many(rows)
            except (TypeError, ValueError) as error:
                refused = error
            except BaseException as error:  # noqa: BLE001 - the same
                self._refused(len(batch), error)
                return
            else:
                return
        # One of them cannot be stored as it is.
        if row is None:
            self._append(batch, _odd_row)
        elif len(batch) > 1:
            middle = len(batch) // 2
            self._append(batch[:middle], row)
            self._append(batch[middle:], row)
        elif batch[0][-1] not in (None, _LEFT_OUT):
            self._append([(*batch[0][:-1], _LEFT_OUT)], row)
        else:
            self._refused(1, refused)

    def _refused(self, count: int, error: BaseException) -> None:
        self._drop(count)
        self.last_error = error
        if isinstance(error, StoreClosedError | ForkedStoreError) and self._store is not self._given:
            self._store = None

    def _opened(self) -> Log:
        if self._store is None:
            self._store = opened_again(self._given)
        return self._store


def _extra(record: logging.LogRecord) -> str | None:
    """What the program added to the record, as JSON."""
    found = {name: value for name, value in record.__dict__.items() if name not in _STANDARD}
    if not found:
        return None
    try:
        return _encode(found)
    except Exception:  # noqa: BLE001 - one of them is no JSON, or raises anything
        return "{" + ",".join(f"{_quote_any(name)}:{_json(value)}" for name, value in found.items()) + "}"


def _json(value: object) -> str:
    """A value as JSON; what is none as its `repr`."""
    try:
        return _encode(value)
    except Exception:  # noqa: BLE001 - it raises anything
        return _quote(_text(value, repr))


def _text(value: object, show: Callable[[object], str] = str) -> str:
    try:
        return value if isinstance(value, str) else show(value)
    except Exception:  # noqa: BLE001 - it raises anything
        return f"<{type(value).__name__}>"


def _quote_any(value: object) -> str:
    return _quote(_text(value))


def _row(
    source: str,
    queued: _Queued,
    quote: Callable[[str], str] = _quote,
    number: Callable[[int], str] = int.__repr__,
) -> _Row:
    level, name, created, message, path, line, function, thread, exception, stack, extra = queued
    # Written by hand: a dict and an encoder take twice as long.
    text = (
        f'{{"message":{quote(message)},"path":{quote(path)},"line":{number(line)},'
        f'"function":{quote(function or "")},"thread":{quote(thread or "")}'
    )
    if exception:
        text += f',"exception":{quote(exception)}'
    if stack:
        text += f',"stack":{quote(stack)}'
    if extra:
        text += f',"extra":{extra}'
    text += "}"
    return (source, level, name, text, int(created * 1000))


def _odd_row(source: str, queued: _Queued) -> _Row:
    """The row with texts in place of what is none, with names that can be stored, and lone surrogates escaped."""
    source, level, name, payload, timestamp = _row(source, queued, _quote_any, _json)
    # In JSON a surrogate stands nowhere but in a text, whose backslashes come in pairs.
    payload = payload.encode("utf-8", "backslashreplace").decode()
    return (source, _name(level), None if name is None else _name(name), payload, timestamp)


def _name(value: object) -> str:
    encoded = _text(value).encode("utf-8", "backslashreplace")
    return encoded[:_MOST_NAME_BYTES].decode("utf-8", "ignore")


_formatter = logging.Formatter()
_handlers: WeakSet[StoreHandler] = WeakSet()


def _end_child(known: ReferenceType[StoreHandler]) -> None:
    """At the end of a child of `multiprocessing`: append what is queued, and at once what its threads still log."""
    handler = known()
    if handler is not None:
        handler._is_ending = True  # noqa: SLF001
        handler.flush()


def _in_child() -> None:
    for handler in list(_handlers):
        handler._begin_in_child()  # noqa: SLF001


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_in_child)
