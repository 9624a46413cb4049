"""Times as they are given on the command line.

`2h` and `3d` ago, `today`, ISO 8601, or milliseconds of 12 digits or more. What could be read in two ways is read as
the date or refused: a short number of digits is never some moment of 1970.
"""

from __future__ import annotations

import argparse
import re
import time
from datetime import date, timedelta
from typing import NamedTuple

__all__ = ["calendar_day", "since", "start_of_day", "until"]

_DAY_MS = 86_400_000
_UNITS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": _DAY_MS, "w": 7 * _DAY_MS}
_EARLIEST = (date.min - date(1970, 1, 1)).days * _DAY_MS
_LATEST = ((date.max - date(1970, 1, 1)).days + 1) * _DAY_MS - 1
_LEAST_DIGITS = 12
"""Milliseconds have so many from March 1973 on; fewer digits are seconds, or a date."""

_DATE = re.compile(
    r"""(?P<year>[0-9]{4})
    (?: -(?P<month>[0-9]{2})(?:-(?P<day>[0-9]{2}))?    # 2026-03-09, 2026-03
      | (?P<basic>[0-9]{4})                            # 20260309
      | -(?P<ordinal>[0-9]{3})                         # 2026-068
      | -?W(?P<week>[0-9]{2})(?:-?(?P<weekday>[0-9]))? # 2026-W11-1, 2026W111, 2026-W11
    )""",
    re.VERBOSE,
)
_TIME = re.compile(
    r"""(?P<hour>[0-9]{2})
    (?: :(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?:[.,](?P<fraction>[0-9]+))?)?
      | (?P<basic_minute>[0-9]{2})(?:(?P<basic_second>[0-9]{2})(?:[.,](?P<basic_fraction>[0-9]+))?)?
    )?
    (?: (?P<utc>[Zz]) | (?P<sign>[+-])(?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))? )?""",
    re.VERBOSE,
)


class _Span(NamedTuple):
    """From the first millisecond that is not earlier than what was given, to the last that is not later."""

    first: int
    last: int


def since(text: str) -> int:
    """A type for the first millisecond wanted; a bare date begins with its first."""
    return _span(text).first


def until(text: str) -> int:
    """A type for the last millisecond wanted; a bare date, week or month ends with its last."""
    return _span(text).last


def calendar_day(text: str) -> date:
    """A type for UTC days, `YYYY-MM-DD`."""
    if not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: YYYY-MM-DD")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a day: {error}") from None


def _span(text: str) -> _Span:
    if re.fullmatch(r"[+-]?[0-9]+", text) and len(text) != len("20260309"):
        return _milliseconds(text)
    ago = re.fullmatch(r"([0-9]{1,12})([smhdw])", text)
    if ago is not None:
        moment = time.time_ns() // 1_000_000 - int(ago[1]) * _UNITS[ago[2]]
        return _moment(moment, text)
    if text == "today":
        return _whole_days(_today(), 1)
    if match := _DATE.fullmatch(text):
        return _whole_days(*_days(match, text))
    day, separator, rest = text.partition(next((mark for mark in "Tt " if mark in text[4:]), "T"))
    match, of_day = _DATE.fullmatch(day), _TIME.fullmatch(rest)
    if not separator or match is None or of_day is None:
        raise _no_time(text)
    first, days = _days(match, text)
    if days != 1:
        raise _no_time(text)
    milliseconds, is_between = _time_of_day(of_day, text)
    return _moment(start_of_day(first) + milliseconds, text, is_between=is_between)


def _milliseconds(text: str) -> _Span:
    digits = text.lstrip("+-")
    if len(digits) < _LEAST_DIGITS:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no time: milliseconds have {_LEAST_DIGITS} digits or more; seconds are not taken"
        )
    if digits == text and re.fullmatch(r"[0-9]{12}|[0-9]{14}", digits):
        # Some write a date and a time of day without anything between them.
        date_match, time_match = _DATE.fullmatch(digits[:8]), _TIME.fullmatch(digits[8:])
        try:
            if date_match and time_match:
                _days(date_match, text)
                _time_of_day(time_match, text)
                raise argparse.ArgumentTypeError(
                    f"{text!r} could be milliseconds, or a date and a time: write {digits[:8]}T{digits[8:]} or +{text}"
                )
        except _NotThereError:
            pass
    return _moment(int(text[:40]), text)


class _NotThereError(argparse.ArgumentTypeError):
    """A date or a time of day that no calendar or clock has."""


def _today() -> date:
    return date(1970, 1, 1) + timedelta(days=time.time_ns() // (_DAY_MS * 1_000_000))


def _days(match: re.Match[str], text: str) -> tuple[date, int]:
    """The first day, and how many there are: 1, those of a week, or those of a month."""
    part = match.groupdict()
    year = int(part["year"])
    try:
        if part["basic"] is not None:
            return date(year, int(part["basic"][:2]), int(part["basic"][2:])), 1
        if part["week"] is not None:
            day = date.fromisocalendar(year, int(part["week"]), int(part["weekday"] or 1))
            return day, 1 if part["weekday"] else 7
        if part["ordinal"] is not None:
            in_year = int(part["ordinal"])
            most = (date(year, 12, 31) - date(year, 1, 1)).days + 1
            # No month has 32 days, which is what the error then says.
            return date(year, 1, 1 if 1 <= in_year <= most else 32) + timedelta(days=in_year - 1), 1
        month = int(part["month"])
        if part["day"] is not None:
            return date(year, month, int(part["day"])), 1
        first = date(year, month, 1)
        return first, 31 if month == 12 else (date(year, month + 1, 1) - first).days
    except (ValueError, OverflowError) as error:
        raise _NotThereError(f"{text!r} is not a time: {error}") from None


def _time_of_day(match: re.Match[str], text: str) -> tuple[int, bool]:
    """Milliseconds since midnight UTC, rounded down, and whether something was left over."""
    part = match.groupdict()
    hour = int(part["hour"])
    minute = int(part["minute"] or part["basic_minute"] or 0)
    second = int(part["second"] or part["basic_second"] or 0)
    fraction = part["fraction"] or part["basic_fraction"] or ""
    is_end_of_day = hour == 24 and minute == second == 0 and not fraction.strip("0")
    if (hour > 23 and not is_end_of_day) or minute > 59 or second > 59:
        raise _NotThereError(f"{text!r} is not a time: no clock shows that")
    zone_hour, zone_minute = int(part["zone_hour"] or 0), int(part["zone_minute"] or 0)
    if zone_hour > 23 or zone_minute > 59:
        raise _NotThereError(f"{text!r} is not a time: no zone is so far from UTC")
    offset = (zone_hour * 60 + zone_minute) * (-1 if part["sign"] == "-" else 1)
    milliseconds = ((hour * 60 + minute - offset) * 60 + second) * 1_000 + int(fraction[:3].ljust(3, "0"))
    return milliseconds, bool(fraction[3:].strip("0"))


def start_of_day(day: date) -> int:
    """The timestamp at which a day begins."""
    return (day - date(1970, 1, 1)).days * _DAY_MS


def _whole_days(first: date, days: int) -> _Span:
    return _Span(start_of_day(first), start_of_day(first) + days * _DAY_MS - 1)


def _moment(milliseconds: int, text: str, *, is_between: bool = False) -> _Span:
    if not _EARLIEST <= milliseconds <= _LATEST:
        raise argparse.ArgumentTypeError(f"{text!r} is out of range: the years 1 to 9999")
    return _Span(milliseconds + is_between, milliseconds)


def _no_time(text: str) -> argparse.ArgumentTypeError:
    return argparse.ArgumentTypeError(
        f"{text!r} is no time: 2h, 3d, today, 2026-03-11, 20260311, 2026-W11, 2026-03-11T05:26:18.301+01:00,"
        f" or milliseconds of {_LEAST_DIGITS} digits or more"
    )
