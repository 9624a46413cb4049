"""What the arguments of a call must be: the same errors as the Rust core raises."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from operator import index
from typing import Any

from nerve_store._json import dumps
from nerve_store.records import WorkflowRunStatus
from nerve_store.types import Durability

MAX_TIMESTAMP = 253_402_300_799_999
MAX_NAME_BYTES = 65_536
_MAX_INTEGER = 2**63 - 1


def text(value: Any) -> str:
    """A text without lone surrogates."""
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'str'")
    value.encode()
    return str(value)


def optional_text(value: Any) -> str | None:
    """A text, or None."""
    return None if value is None else text(value)


def integer(value: Any) -> int:
    """An integer of 64 bits; a bool is none."""
    if isinstance(value, bool):
        raise TypeError("'bool' object cannot be interpreted as an integer here")
    number = index(value)
    if not -_MAX_INTEGER - 1 <= number <= _MAX_INTEGER:
        raise ValueError("the integer does not fit into 64 bits")
    return number


def optional_integer(value: Any) -> int | None:
    """An integer of 64 bits, or None."""
    return None if value is None else integer(value)


def amount(value: Any, name: str = "") -> int:
    """An integer from 0 on; an error names the argument, if it has a name."""
    place = name and f"{name}: "
    try:
        number = integer(value)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}{error}") from None
    if number < 0:
        raise ValueError(f"{place}{number} is negative")
    return number


def flag(value: Any) -> bool:
    """A bool, and nothing that merely counts as one."""
    if not isinstance(value, bool):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'bool'")
    return value


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(value: datetime) -> int:
    """An aware time in milliseconds, rounded down."""
    if value.utcoffset() is None:
        raise ValueError(f"{value!r} is naive: it says no time zone; add one, such as tzinfo=datetime.UTC")
    return (value - _EPOCH) // timedelta(milliseconds=1)


def bound(value: Any) -> int | None:
    """A bound of time: milliseconds, an aware datetime, or None."""
    return milliseconds(value) if isinstance(value, datetime) else optional_integer(value)


def timestamp(value: Any) -> int:
    """Milliseconds of the years 1970 to 9999, or an aware datetime."""
    if isinstance(value, datetime):
        value = milliseconds(value)
    if isinstance(value, bool):
        raise TypeError("'bool' object cannot be interpreted as an integer here")
    number = index(value)
    if not 0 <= number <= MAX_TIMESTAMP:
        bounds = f"milliseconds since the epoch, 0 to {MAX_TIMESTAMP}"
        raise ValueError(f"timestamp {number} is outside of the years 1970 to 9999 ({bounds})")
    return number


def durability(value: Any) -> Durability:
    """`full` or `normal`."""
    if value not in ("full", "normal"):
        if not isinstance(value, str):
            raise TypeError(f"{type(value).__name__!r} object is not an instance of 'str'")
        raise ValueError(f'durability is "full" or "normal", not "{value}"')
    result: Durability = value
    return result


def payload_of(payload: Any, json: Any) -> str | None:
    """The payload of a call that takes `payload` or `json`."""
    if json is ...:
        return optional_text(payload)
    if payload is not None:
        raise TypeError("payload and json were both given; give one of them")
    return dumps(json)


def status(value: Any) -> WorkflowRunStatus:
    """One of the eight states."""
    name = text(value)
    try:
        return WorkflowRunStatus(name)
    except ValueError:
        known = ", ".join(WorkflowRunStatus)
        raise ValueError(f'unknown status "{name}"; known are {known}') from None


def statuses(value: Any) -> list[WorkflowRunStatus]:
    """One state or several."""
    if isinstance(value, str):
        return [status(value)]
    if not hasattr(value, "__iter__"):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'str'")
    return [status(item) for item in value]


def texts(value: Any) -> list[str]:
    """One text or several."""
    if isinstance(value, str):
        return [text(value)]
    if isinstance(value, bytes) or not hasattr(value, "__iter__"):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'str'")
    return [text(item) for item in value]


def day(value: Any) -> date:
    """A date that is no datetime."""
    if not isinstance(value, date) or hasattr(value, "hour"):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'date'")
    return value


def span(value: Any) -> timedelta:
    """A span of time."""
    if not isinstance(value, timedelta):
        raise TypeError(f"{type(value).__name__!r} object is not an instance of 'timedelta'")
    return value


def seconds(value: Any, name: str, *, least: float = 0.0) -> float:
    """Seconds as a number, or a span of time."""
    number: float
    if isinstance(value, timedelta):
        number = value.total_seconds()
    elif isinstance(value, int | float) and not isinstance(value, bool):
        number = float(value)
    else:
        raise TypeError(f"{name} is a number of seconds or a timedelta, not {type(value).__name__!r}")
    if not least <= number < float("inf"):
        raise ValueError(f"{name} is a number of seconds from {least:g} on, not {value}")
    return number
