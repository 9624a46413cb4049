"""What the arguments of a call must be: the same errors as the Rust core raises."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from operator import index
from typing import Any

from nerve_store._json import dumps
from nerve_store.records import RunClaim, WorkflowRunStatus
from nerve_store.types import Durability

MAX_TIMESTAMP = 253_402_300_799_999
MAX_NAME_BYTES = 65_536
_MAX_INTEGER = 2**63 - 1
_MOST_SECONDS = 2.0**64
"""More are more than can be waited for."""


def refused(value: Any, name: str, wanted: str) -> TypeError:
    """The error of a value of another type."""
    return TypeError(f"{name} must be {wanted}, not {'None' if value is None else type(value).__name__}")


def text(value: Any, name: str) -> str:
    """A text without lone surrogates."""
    if not isinstance(value, str):
        raise refused(value, name, "str")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        error.reason = f"surrogates not allowed in {name}"
        raise
    return str(value)


def optional_text(value: Any, name: str) -> str | None:
    """A text, or None."""
    return None if value is None else text(value, name)


def integer(value: Any, name: str) -> int:
    """An integer of 64 bits; a bool is none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise refused(value, name, "int")
    number = index(value)
    if not -_MAX_INTEGER - 1 <= number <= _MAX_INTEGER:
        raise ValueError(f"{name} does not fit into 64 bits")
    return number


def optional_integer(value: Any, name: str) -> int | None:
    """An integer of 64 bits, or None."""
    return None if value is None else integer(value, name)


def amount(value: Any, name: str) -> int:
    """An integer from 0 on."""
    number = integer(value, name)
    if number < 0:
        raise ValueError(f"{name} is negative: {number}")
    return number


def optional_amount(value: Any, name: str) -> int | None:
    """An integer from 0 on, or None."""
    return None if value is None else amount(value, name)


def flag(value: Any, name: str) -> bool:
    """A bool, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise refused(value, name, "bool")
    return value


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def _milliseconds(value: datetime, name: str) -> int:
    if value.utcoffset() is None:
        raise ValueError(
            f"{name} is a naive datetime, whose zone is not known: give it one (datetime.now(UTC), time.astimezone())"
        )
    return (value - _EPOCH) // timedelta(milliseconds=1)


def _time(value: Any, name: str) -> int:
    if isinstance(value, datetime):
        return _milliseconds(value, name)
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise refused(value, name, "int (milliseconds) or an aware datetime")
    return integer(value, name)


def bound(value: Any, name: str) -> int | None:
    """A bound of time: milliseconds, an aware datetime, or None."""
    return None if value is None else _time(value, name)


def timestamp(value: Any, name: str) -> int:
    """Milliseconds of the years 1970 to 9999, or an aware datetime."""
    number = _time(value, name)
    if not 0 <= number <= MAX_TIMESTAMP:
        bounds = f"milliseconds since the epoch, 0 to {MAX_TIMESTAMP}"
        raise ValueError(f"{name} {number} is outside of the years 1970 to 9999 ({bounds})")
    return number


def durability(value: Any) -> Durability:
    """`full` or `normal`."""
    if value not in ("full", "normal"):
        if not isinstance(value, str):
            raise refused(value, "durability", "str")
        raise ValueError(f"durability is 'full' or 'normal', not {value!r}")
    result: Durability = value
    return result


def claim(value: Any) -> RunClaim:
    """A claim on a run."""
    if not isinstance(value, RunClaim):
        raise refused(value, "claim", "a RunClaim")
    return value


def progress(value: Any) -> None:
    """None, or what can be told of progress."""
    if value is not None and not callable(value):
        raise TypeError(f"progress is a function of (done, total), not {value!r}")


def payload_of(payload: Any, json: Any) -> str | None:
    """The payload of a call that takes `payload` or `json`."""
    if json is ...:
        return optional_text(payload, "payload")
    if payload is not None:
        raise TypeError("payload and json are both given; a row has one of them")
    return text(dumps(json), "json")


def status(value: Any, name: str = "status") -> WorkflowRunStatus:
    """One of the eight states."""
    found = text(value, name)
    try:
        return WorkflowRunStatus(found)
    except ValueError:
        known = ", ".join(WorkflowRunStatus)
        raise ValueError(f"{name} is one of {known}, not {found!r}") from None


def statuses(value: Any, name: str) -> list[WorkflowRunStatus]:
    """One state or several."""
    if isinstance(value, str):
        return [status(value, name)]
    if isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise refused(value, name, "a status or a collection of them")
    return [status(item, f"{name}[{position}]") for position, item in enumerate(value)]


def texts(value: Any, name: str) -> list[str]:
    """One text or several."""
    if isinstance(value, str):
        return [text(value, name)]
    if isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise refused(value, name, "str or a collection of them")
    return [text(item, f"{name}[{position}]") for position, item in enumerate(value)]


def day(value: Any, name: str) -> date:
    """A date that is no datetime."""
    if not isinstance(value, date) or isinstance(value, datetime):
        raise refused(value, name, "a date")
    return value


def span(value: Any, name: str) -> timedelta:
    """A span of time."""
    if not isinstance(value, timedelta):
        raise refused(value, name, "a timedelta")
    return value


def seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """Seconds as a number, or a span of time."""
    number: float
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise refused(value, name, "a number of seconds or a timedelta")
    if not least <= number < _MOST_SECONDS:
        raise ValueError(f"{name} is a number of seconds from {least:g} on, not {value}")
    return number
