"""`StoreHandler`: records of `logging` as rows, and what becomes of them when something goes wrong."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.logging import StoreHandler
from support import child_environment


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


@pytest.mark.parametrize("capacity", [0, -1])
def test_capacity_is_at_least_one(log_store: ns.LogStore, capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        StoreHandler(log_store, capacity=capacity)


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


@pytest.mark.parametrize("attribute", ["pathname", "funcName", "threadName", "stack_info", "created"])
def test_an_attribute_of_another_type_costs_its_record_alone(
    log_store: ns.LogStore, logger: logging.Logger, attribute: str
) -> None:
    """As `makeLogRecord` makes them of what came from elsewhere."""
    logger.addHandler(handler := StoreHandler(log_store))
    wrong: list[object] = [["a list"]]
    made = {
        "msg": "wrong",
        "name": "a",
        "levelno": logging.ERROR,
        "levelname": "ERROR",
        "created": 1.0,
        attribute: wrong,
    }
    logger.handle(logging.makeLogRecord(made))
    handler.flush(timeout=5)
    logger.error("fine")
    handler.flush(timeout=5)
    assert [each["message"] for each in payloads(log_store)] == ["fine"]
    assert handler.dropped == 1
    assert isinstance(handler.last_error, TypeError)


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


# --- ends and forks ----------------------------------------------------------------------------------------------


def ran(program: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def test_the_end_of_the_interpreter_appends_what_is_queued(data_dir: Path) -> None:
    done = ran(f"""
import logging, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(data_dir / "logs.db")!r})
logging.getLogger().addHandler(StoreHandler(store))
for n in range(500):
    logging.error("%d", n)
""")
    assert (done.returncode, done.stderr) == (0, "")
    with ns.LogStore(data_dir / "logs.db") as store:
        assert [each["message"] for each in payloads(store)] == [str(n) for n in range(500)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_begins_anew(data_dir: Path) -> None:
    done = ran(f"""
import logging, os, nerve_store as ns
from nerve_store.logging import StoreHandler
store = ns.LogStore({str(data_dir / "logs.db")!r})
handler = StoreHandler(store)
logging.getLogger().addHandler(handler)
for n in range(300):
    logging.error("parent %d", n)
pid = os.fork()
if pid == 0:
    logging.error("child")
    logging.shutdown()
    os._exit(handler.dropped)
logging.error("parent after")
status = os.waitpid(pid, 0)[1]
logging.shutdown()
raise SystemExit(os.waitstatus_to_exitcode(status))
""")
    assert (done.returncode, done.stderr) == (0, "")
    with ns.LogStore(data_dir / "logs.db") as store:
        said = [each["message"] for each in payloads(store)]
    assert sorted(said) == sorted([*(f"parent {n}" for n in range(300)), "child", "parent after"])


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


def test_names_that_no_row_can_hold(log_store: ns.LogStore) -> None:
    strange = logging.Logger("n\ud800" + "x" * 70_000)  # noqa: LOG001 - it is not to stay
    strange.addHandler(handler := StoreHandler(log_store))
    strange.error("seen")
    handler.close()
    (entry,) = log_store.query()
    assert entry.ref_id is not None
    assert entry.ref_id.startswith("n\\ud800xxx")
    assert json.loads(entry.payload or "")["message"] == "seen"
