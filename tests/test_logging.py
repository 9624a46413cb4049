"""`StoreHandler`: records of `logging` as rows, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.logging import StoreHandler
from nerve_store.protocols import Log
from support.argument_names import check_that_what_is_no_log_is_refused


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.Logger("app.worker")  # noqa: LOG001 - of no other test
    yield made
    for handler in made.handlers:
        handler.close()


def payloads(store: ns.LogStore) -> list[dict[str, Any]]:
    return [entry.json() for entry in store.query(source="logging")]


def test_a_record_is_a_row(log_store: ns.LogStore, logger: logging.Logger) -> None:
    handler = StoreHandler(log_store)
    logger.addHandler(handler)
    before = time.time() * 1000
    logger.warning("%s of %d", "grüß dich", 3, extra={"run": "r-1", "parts": {1, 2}})
    try:
        os.environ["GONE"]
    except KeyError:
        logger.exception("failed", stack_info=True)
    handler.flush()
    first, second = log_store.query(source="logging")
    assert (first.type, first.ref_id) == ("WARNING", "app.worker")
    assert before - 1 <= first.timestamp <= time.time() * 1000
    said = first.json()
    assert said["message"] == "grüß dich of 3"
    assert said["path"] == __file__
    assert said["function"] == "test_a_record_is_a_row"
    assert said["thread"] == "MainThread"
    assert said["extra"] == {"run": "r-1", "parts": "{1, 2}"}
    assert isinstance(said["line"], int)
    said = second.json()
    assert second.type == "ERROR"
    assert said["exception"].endswith("KeyError: 'GONE'")
    assert "test_a_record_is_a_row" in said["stack"]
    assert "extra" not in said
    assert handler.dropped == 0


def test_a_record_is_stored_as_it_was_logged(log_store: ns.LogStore, logger: logging.Logger) -> None:
    """Whatever the handlers after this one do to it."""

    class Colours(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            for name in ("levelname", "name", "pathname", "funcName", "threadName", "stack_info"):
                setattr(record, name, f"\x1b[31m{getattr(record, name)}\x1b[0m")
            record.lineno, record.created = 0, 0.0

    store_handler = StoreHandler(log_store)
    for handler in (store_handler, Colours()):
        logger.addHandler(handler)
    for _ in range(5):
        logger.error("failed")
    store_handler.flush()
    rows = log_store.query(type="ERROR", ref_id="app.worker")
    assert len(rows) == 5
    for row in rows:
        said = row.json()
        assert (said["path"], said["thread"], "stack" in said) == (__file__, "MainThread", False)
        assert said["function"] == "test_a_record_is_stored_as_it_was_logged"
        assert said["line"] > 0
        assert row.timestamp > 1_000_000_000_000


def test_a_store_source_level_and_filters(data_dir: Path, logger: logging.Logger) -> None:
    with ns.Store(data_dir) as store:
        handler = StoreHandler(store, source="app", level="ERROR")
        handler.addFilter(lambda record: "secret" not in record.getMessage())
        logger.addHandler(handler)
        logger.warning("too low")
        logger.error("secret")
        logger.error("seen")
        handler.close()
        (entry,) = store.logs.query()
        assert (entry.source, entry.json()["message"]) == ("app", "seen")


def test_any_log_of_the_protocol(log_store: ns.LogStore, logger: logging.Logger) -> None:
    """As a program wraps one."""

    def forwarded(name: str) -> Any:
        def call(_: object, *arguments: Any, **options: Any) -> Any:
            return getattr(log_store, name)(*arguments, **options)

        return call if callable(getattr(log_store, name)) else property(lambda _: getattr(log_store, name))

    names = {name for name, found in vars(Log).items() if callable(found) or isinstance(found, property)}
    members = {name: forwarded(name) for name in names if not name.startswith("_") or name in {"__enter__", "__exit__"}}
    wrapped = type("Wrapped", (), members)()
    logger.addHandler(handler := StoreHandler(wrapped))
    logger.error("seen")
    handler.close()
    assert [each["message"] for each in payloads(log_store)] == ["seen"]


def test_what_is_no_log_is_refused(tmp_path: Path) -> None:
    check_that_what_is_no_log_is_refused(StoreHandler, tmp_path)


def test_what_is_logged_is_what_was_there(log_store: ns.LogStore, logger: logging.Logger) -> None:
    """Arguments that change after the call are not those that were logged."""
    logger.addHandler(handler := StoreHandler(log_store))
    parts = ["a"]
    logger.error("%s", parts, extra={"parts": parts})
    parts.append("b")
    handler.flush()
    (said,) = payloads(log_store)
    assert said["message"] == "['a']"
    assert said["extra"] == {"parts": ["a"]}


def test_threads_log_at_once(log_store: ns.LogStore, logger: logging.Logger) -> None:
    logger.addHandler(handler := StoreHandler(log_store))

    def log(name: str) -> None:
        for n in range(400):
            logger.error("%s %d", name, n)

    threads = [threading.Thread(target=log, args=(name,)) for name in "abcdefgh"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler.flush()
    said = [each["message"].split() for each in payloads(log_store)]
    for name in "abcdefgh":
        assert [int(n) for who, n in said if who == name] == list(range(400))
    assert handler.dropped == 0


def test_a_full_queue_drops_and_counts(data_dir: Path, logger: logging.Logger) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        logger.addHandler(handler := StoreHandler(store, capacity=50))
        begun = time.monotonic()
        for n in range(20_000):
            logger.error("%d", n)
        assert time.monotonic() - begun < 20
        handler.close()
        assert handler.dropped > 0
        assert store.count() + handler.dropped == 20_000


def test_a_record_that_cannot_be_stored_costs_itself_alone(data_dir: Path, logger: logging.Logger) -> None:
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=4000) as store:
        logger.addHandler(handler := StoreHandler(store))
        logger.error("before")
        logger.error("x" * 5000)
        logger.error("lone \ud800")
        logger.error("after")
        handler.flush()
        assert [each["message"] for each in payloads(store)] == ["before", "lone \ud800", "after"]
        assert handler.dropped == 1
        assert isinstance(handler.last_error, ValueError)
        handler.close()


def test_a_wrong_record_is_the_business_of_logging(
    log_store: ns.LogStore, logger: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    logger.addHandler(handler := StoreHandler(log_store))
    logger.error("%d", "no number")
    logger.error("fine")
    handler.flush()
    assert "--- Logging error ---" in capsys.readouterr().err
    assert [each["message"] for each in payloads(log_store)] == ["fine"]
    assert handler.dropped == 1


def test_a_closed_store_raises_nothing(data_dir: Path, logger: logging.Logger) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    logger.addHandler(handler := StoreHandler(store))
    logger.error("first")
    handler.flush()
    store.close()
    for _ in range(10):
        logger.error("lost")
    handler.flush()
    assert handler.dropped == 10
    assert isinstance(handler.last_error, ns.StoreClosedError)
    handler.close()
    logger.error("later")
    assert handler.dropped == 11


def test_what_the_store_logs_itself_ends_in_no_circle(upstream_data: Path) -> None:
    """The store warns while it is read, and its own warnings become rows."""
    with ns.LogStore(upstream_data / "logs.db") as store:
        store.append("workflow", "started", "run-x", "{no json")
        own = logging.getLogger("nerve_store")
        own.addHandler(handler := StoreHandler(store))
        try:
            for _ in range(3):
                store.get_trigger_payload("run-x")
            handler.flush()
            said = [entry.ref_id for entry in store.query(source="logging")]
            assert set(said) <= {"nerve_store"}
            assert handler.dropped == 0
        finally:
            own.removeHandler(handler)
            handler.close()


def test_a_record_in_the_middle_of_another(log_store: ns.LogStore, logger: logging.Logger) -> None:
    """A `__str__` that logs, as a finalizer or a signal handler may."""

    class Talkative:
        def __str__(self) -> str:
            logger.warning("inner")
            return "outer"

    logger.addHandler(handler := StoreHandler(log_store))
    logger.error("%s", Talkative())
    handler.flush()
    assert [each["message"] for each in payloads(log_store)] == ["inner", "outer"]


def test_an_event_loop_is_not_blocked(data_dir: Path, logger: logging.Logger) -> None:
    with ns.LogStore(data_dir / "logs.db") as store:
        logger.addHandler(handler := StoreHandler(store))

        async def main() -> None:
            for n in range(500):
                logger.info("%d", n)
                await asyncio.sleep(0)

        logger.setLevel(logging.INFO)
        asyncio.run(main())
        handler.close()
        assert store.count() == 500


def test_no_thread_to_be_had_loses_the_record_alone(
    log_store: ns.LogStore, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    logger.addHandler(handler := StoreHandler(log_store))
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        logger.error("first")
    logger.error("second")
    handler.flush()
    assert [each["message"] for each in payloads(log_store)] == ["first", "second"]
