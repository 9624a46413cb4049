"""`StoreHandler` and records that are not as `logging` makes them: none costs another, and few cost themselves."""

from __future__ import annotations

import enum
import json
import logging
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from nerve_store.logging import StoreHandler

ATTRIBUTES = ["name", "levelname", "pathname", "lineno", "funcName", "threadName", "stack_info", "exc_text", "msg"]


class Level(enum.Enum):
    NOTICE = "NOTICE"


class Silent:
    """What cannot be shown."""

    def __repr__(self) -> str:
        raise RuntimeError("no")


class Lost(dict[str, int]):
    """What cannot be looked into."""

    def items(self) -> Any:
        raise LookupError


def deep() -> list[Any]:
    found: list[Any] = []
    for _ in range(100_000):
        found = [found]
    return found


def circular() -> dict[str, Any]:
    found: dict[str, Any] = {}
    found["again"] = found
    return found


ODD: dict[str, Callable[[], object]] = {
    "int": lambda: 5,
    "bool": lambda: True,
    "huge int": lambda: 10**5000,
    "NaN": lambda: float("nan"),
    "infinity": lambda: [float("-inf")],
    "None": lambda: None,
    "bytes": lambda: b"\xff",
    "list": lambda: ["a"],
    "tuple": lambda: ("a", 1),
    "Enum": lambda: Level.NOTICE,
    "silent": Silent,
    "list of silent": lambda: [Silent()],
    "lost": lambda: Lost(a=1),
    "deep": deep,
    "circle": circular,
    "keys": lambda: {(1, 2): 3},
    "surrogate": lambda: "\\\ud800",
    "NUL": lambda: "a\0b",
    "long": lambda: "x" * 70_000,
}


@pytest.fixture
def logger(log_store: ns.LogStore) -> Iterator[logging.Logger]:
    made = logging.Logger("app.worker")  # noqa: LOG001 - of no other test
    made.addHandler(StoreHandler(log_store))
    yield made
    handler_of(made).close()


def handler_of(logger: logging.Logger) -> StoreHandler:
    (handler,) = logger.handlers
    assert isinstance(handler, StoreHandler)
    return handler


def said(log: ns.LogStore) -> list[dict[str, Any]]:
    """The payloads, each of which is JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(constant)

    found = [json.loads(entry.payload or "", parse_constant=refuse) for entry in log.query()]
    assert found == [entry.json() for entry in log.query()]
    return found


def record_with(**attributes: object) -> logging.LogRecord:
    made = {"msg": "odd", "name": "a", "levelno": logging.ERROR, "levelname": "ERROR", "created": 1000.0}
    return logging.makeLogRecord(made | attributes)


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("attribute", ATTRIBUTES)
def test_an_attribute_of_another_type_is_stored_as_text(
    log_store: ns.LogStore, logger: logging.Logger, attribute: str, odd: str
) -> None:
    """As `makeLogRecord` makes them of what came from elsewhere, and `addLevelName` of a member of an Enum."""
    logger.error("before")
    logger.handle(record_with(**{attribute: ODD[odd]()}))
    logger.error("after")
    handler_of(logger).flush(timeout=5)
    handler = handler_of(logger)
    messages = [each["message"] for each in said(log_store)]
    if attribute == "msg" and odd in {"silent", "list of silent", "deep", "huge int"}:
        assert messages == ["before", "after"], "there is no message"
        assert handler.dropped == 1
        assert handler.last_error is not None
    else:
        assert (handler.dropped, handler.last_error) == (0, None)
        assert (messages[0], messages[2]) == ("before", "after")
        assert attribute == "msg" or messages[1] == "odd"


def test_what_an_odd_attribute_is_stored_as(log_store: ns.LogStore, logger: logging.Logger) -> None:
    logger.handle(record_with(levelname=Level.NOTICE, name=5, lineno="x", pathname=["a"], threadName=Silent()))
    logger.handle(record_with(name="n\ud800" + "x" * 70_000, lineno=None))
    handler_of(logger).flush()
    first, second = log_store.query()
    assert (first.type, first.ref_id) == ("Level.NOTICE", "5")
    assert second.ref_id is not None
    assert second.ref_id.startswith("n\\ud800xxx")
    found, other = said(log_store)
    assert (found["line"], found["path"], found["thread"]) == ("x", "['a']", "<Silent>")
    assert other["line"] is None


@pytest.mark.parametrize("created", [["a"], "x", None, float("nan"), float("inf"), 1e18, -5.0])
def test_a_time_that_is_none_costs_its_record_alone(
    log_store: ns.LogStore, logger: logging.Logger, created: object
) -> None:
    for number in range(3):
        logger.error("%d", number)
        logger.handle(record_with(created=created, extra="x"))
    handler = handler_of(logger)
    handler.flush(timeout=5)
    assert [each["message"] for each in said(log_store)] == ["0", "1", "2"]
    assert handler.dropped == 3
    assert isinstance(handler.last_error, TypeError | ValueError | OverflowError)


def test_many_odd_records_are_appended_together(
    log_store: ns.LogStore, logger: logging.Logger, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit a record is more than a queue can wait for."""
    calls = 0

    class Counting:
        def append_many(self, rows: Any) -> range:
            nonlocal calls
            calls += 1
            return log_store.append_many(rows)

    handler = handler_of(logger)
    monkeypatch.setattr(handler, "_store", Counting())
    for number in range(900):
        logger.handle(record_with(name=number))
    logger.handle(record_with(created="x"))
    for number in range(100):
        logger.handle(record_with(name=number))
    handler.flush()
    assert log_store.count() == 1000
    assert handler.dropped == 1
    assert calls < 100


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, RuntimeError, LookupError, TypeError])
def test_no_record_ends_the_thread(log_store: ns.LogStore, logger: logging.Logger, error: type[BaseException]) -> None:
    class Deadly:
        """Made to harm."""

        def __bool__(self) -> bool:
            raise error

    logger.error("before")
    logger.handle(record_with(funcName=Deadly()))
    logger.error("after")
    handler = handler_of(logger)
    handler.flush(timeout=5)
    logger.error("later")
    handler.flush(timeout=5)
    assert [each["message"] for each in said(log_store)] == ["before", "after", "later"]
    assert handler.dropped == 1
    assert isinstance(handler.last_error, error)


@pytest.mark.parametrize("odd", ODD)
def test_extra_never_costs_the_message(log_store: ns.LogStore, logger: logging.Logger, odd: str) -> None:
    logger.error("with", extra={"odd": ODD[odd](), "run": "run-1"})
    logger.error("in a list", extra={"odd": [ODD[odd]()], "run": "run-1"})
    handler = handler_of(logger)
    handler.flush(timeout=5)
    assert [(each["message"], each["extra"]["run"]) for each in said(log_store)] == [
        ("with", "run-1"),
        ("in a list", "run-1"),
    ]
    assert handler.dropped == 0


def test_what_is_no_json_in_extra_is_stored_as_its_repr(log_store: ns.LogStore, logger: logging.Logger) -> None:
    logger.error("one", extra={"loss": float("nan"), "keys": {(1, 2): 3}, "silent": Silent(), "plain": [1, {"a": "ä"}]})
    keys: Any = {5: "five", (1, 2): "two", "loss": float("inf")}
    logger.error("two", extra=keys)
    handler_of(logger).flush()
    one, two = said(log_store)
    assert one["extra"] == {"loss": "nan", "keys": "{(1, 2): 3}", "silent": "<Silent>", "plain": [1, {"a": "ä"}]}
    assert two["extra"] == {"5": "five", "(1, 2)": "two", "loss": "inf"}


def test_an_extra_that_is_too_long_is_left_out(data_dir: Path) -> None:
    with ns.LogStore(data_dir / "logs.db", max_payload_bytes=4000) as store:
        logger = logging.Logger("short")  # noqa: LOG001 - it is not to stay
        logger.addHandler(handler := StoreHandler(store))
        logger.error("kept", extra={"body": "x" * 5000})
        logger.error("x" * 5000, extra={"body": "y"})
        logger.error("whole", extra={"body": "z"})
        handler.close()
        assert [(each["message"], each["extra"]) for each in said(store)] == [
            ("kept", "<left out>"),
            ("whole", {"body": "z"}),
        ]
        assert handler.dropped == 1


@pytest.mark.parametrize("message", ["%s", "%d"])
@pytest.mark.parametrize("argument", [deep, Silent, lambda: 10**5000])
def test_a_message_that_cannot_be_made_raises_nothing(
    log_store: ns.LogStore, logger: logging.Logger, message: str, argument: Callable[[], object]
) -> None:
    logger.error(message, argument())
    logger.error("after")
    handler = handler_of(logger)
    handler.flush()
    assert [each["message"] for each in said(log_store)] == ["after"]
    assert handler.dropped == 1
    assert isinstance(handler.last_error, Exception)
    assert handler.last_error.__traceback__ is None, "it would keep the variables of the program"


def test_threads_of_odd_records(log_store: ns.LogStore, logger: logging.Logger) -> None:
    def log(number: int) -> None:
        for odd in ODD.values():
            logger.error("%d", number, extra={"odd": odd()})

    threads = [threading.Thread(target=log, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    handler_of(logger).flush()
    assert len(said(log_store)) == 4 * len(ODD)
    assert handler_of(logger).dropped == 0
