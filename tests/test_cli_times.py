"""Times and days on the command line: each form that ISO 8601 has, and nothing that could mean two things."""

from __future__ import annotations

import argparse
import time
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import nerve_store as ns
from nerve_store.cli import main
from nerve_store.cli.arguments import calendar_day, since, until

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DAY = 86_400_000
NOON = 1_773_057_600_000
"""2026-03-09T12:00Z"""
MIDNIGHT = NOON - DAY // 2


def milliseconds(moment: datetime) -> int:
    return (moment - EPOCH) // timedelta(milliseconds=1)


def refused(text: str) -> str:
    messages = []
    for parse in (since, until):
        with pytest.raises(argparse.ArgumentTypeError) as raised:
            parse(text)
        messages.append(str(raised.value))
    assert messages[0] == messages[1]
    assert repr(text) in messages[0]
    return messages[0]


@pytest.mark.parametrize(
    ("text", "first", "last"),
    [
        ("20260309", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("2026-03-09", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("2026-068", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("2026-W11-1", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("2026W111", MIDNIGHT, MIDNIGHT + DAY - 1),
        ("2026-W11", MIDNIGHT, MIDNIGHT + 7 * DAY - 1),
        ("2026W11", MIDNIGHT, MIDNIGHT + 7 * DAY - 1),
        ("2026-03", MIDNIGHT - 8 * DAY, MIDNIGHT + 23 * DAY - 1),
        ("1970-12", 334 * DAY, 365 * DAY - 1),
        ("2024-02", 19_754 * DAY, 19_783 * DAY - 1),
        ("1970-01-01", 0, DAY - 1),
        ("19700101", 0, DAY - 1),
        ("0001-01-01", -62_135_596_800_000, -62_135_596_800_000 + DAY - 1),
        ("9999-12-31", 253_402_214_400_000, 253_402_300_799_999),
        ("9999-12", 253_399_622_400_000, 253_402_300_799_999),
        *(
            (text, NOON, NOON)
            for text in (
                "2026-03-09T12",
                "2026-03-09T12:00",
                "2026-03-09 12:00",
                "2026-03-09t12:00:00z",
                "2026-03-09T12:00:00.000Z",
                "2026-03-09T12:00:00,0",
                "20260309T12",
                "20260309T1200",
                "20260309T120000Z",
                "20260309T120000.000+0000",
                "2026-W11-1T12:00",
                "2026W111T1200",
                "2026-068T12:00",
                "2026-03-09T13:00+01",
                "2026-03-09T13:30+01:30",
                "2026-03-09T04:00-0800",
                "2026-03-08T24:00-12:00",
                str(NOON),
                f"+{NOON}",
            )
        ),
        ("2026-03-09T12:00:00.301", NOON + 301, NOON + 301),
        ("2026-03-09T12:00:00.3", NOON + 300, NOON + 300),
        ("2026-03-09T12:00:00.0005", NOON + 1, NOON),
        ("2026-03-09T12:00:00.000000000000000000001", NOON + 1, NOON),
        ("2026-03-08T24:00", MIDNIGHT, MIDNIGHT),
        ("100000000000", 10**11, 10**11),
        ("-100000000000", -(10**11), -(10**11)),
    ],
)
def test_a_time_is_what_it_says(text: str, first: int, last: int) -> None:
    assert (since(text), until(text)) == (first, last)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "now", "yesterday", "tomorrow", "0", "-1", "5", "2026", "202603", "2026068", "1773057600",
        "17730576000", "99999999999", "-20260309", "+20260309", "20261301", "20260230", "00000101", "20260009",
        "2026-13", "2026-02-30", "2025-366", "2026-000", "2026-W54", "2026-W00", "2026-W11-0", "2026-W11-8",
        "2026-3-9", "26-03-09", "2026/03/09", "2026-03-09T", "2026-03-09T1", "2026-03-09T25", "2026-03-09T24:01",
        "2026-03-09T12:60", "2026-03-09T12:00:60", "2026-03-09T12:00Z+01", "2026-03-09Z", "2026-03-09+01:00",
        "2026-03-09-05:00", "2026-03T12:00", "2026-W11T12:00", "2026-03-09T12:00+24:00", "2026-03-09T12:00+01:60",
        "2026-03-09T12:00:00.", "2026-03-09T12:00:00.3.1", "2026-03-09T12:00 Europe/Berlin", "2026-03-09 12:00 ",
        " 2026-03-09", "2h ", "h", "1.5h", "-2h", "2H", "2y", "2h3m", "2 h", "99999999999999d", "999999999d",
        "9999999999999999999999999999999999999999", "0001-01-01T00:00+01:00", "9999-12-31T23:59-01:00",
        "2026-03-09T12:00\n", "12:00", "T12:00", "1e12", "0x10", "\uff12h",
        "\uff12\uff10\uff12\uff16\uff10\uff13\uff10\uff19",
    ],
)  # fmt: skip
def test_what_is_no_time_is_refused_and_never_1970(text: str) -> None:
    refused(text)


@pytest.mark.parametrize("text", ["202603091200", "20260309120000", "197001010000", "999912312359", "20240229235959"])
def test_a_date_and_a_time_run_together_are_refused(text: str) -> None:
    """ISO 8601 once allowed to leave the T out, and as milliseconds they are moments as well."""
    assert f"{text[:8]}T{text[8:]}" in refused(text)
    assert since(f"+{text}") == int(text)
    assert since(f"{text[:8]}T{text[8:]}") != int(text)


@pytest.mark.parametrize("text", ["202613091200", "202602301200", "202603092500", "20260309126000", "100000000000"])
def test_digits_that_are_no_date_are_milliseconds(text: str) -> None:
    assert since(text) == until(text) == int(text)


@pytest.mark.parametrize(("unit", "size"), [("s", 1_000), ("m", 60_000), ("h", 3_600_000), ("d", DAY), ("w", 7 * DAY)])
@pytest.mark.parametrize("count", [0, 1, 2, 90, 1_000])
def test_ages_count_back_from_now(unit: str, size: int, count: int) -> None:
    for parse in (since, until):
        before = time.time_ns() // 1_000_000
        moment = parse(f"{count}{unit}")
        assert before <= moment + count * size <= time.time_ns() // 1_000_000


def test_today_is_the_day_of_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        for moment in (MIDNIGHT, NOON, MIDNIGHT + DAY - 1):
            monkeypatch.setattr(time, "time_ns", lambda moment=moment: moment * 1_000_000)
            assert (since("today"), until("today")) == (MIDNIGHT, MIDNIGHT + DAY - 1)
    finally:
        monkeypatch.undo()
        time.tzset()


@given(
    moment=st.datetimes(timezones=st.integers(-1_439, 1_439).map(lambda m: timezone(timedelta(minutes=m)))),
    timespec=st.sampled_from(["hours", "minutes", "seconds", "milliseconds", "microseconds"]),
    basic=st.booleans(),
    separator=st.sampled_from("Tt "),
)
def test_every_iso_time_is_the_moment_that_python_reads(
    moment: datetime, timespec: str, basic: bool, separator: str
) -> None:
    text = moment.isoformat(separator, timespec)
    moment = datetime.fromisoformat(text)
    try:
        exact = moment.astimezone(UTC) - EPOCH
    except OverflowError:
        refused(text)
        return
    if basic:
        day, _, rest = text.partition(separator)
        zone = rest[-6:]
        text = day.replace("-", "") + separator + rest[:-6].replace(":", "") + zone.replace(":", "")
    millisecond = timedelta(milliseconds=1)
    assert (since(text), until(text)) == (-(-exact // millisecond), exact // millisecond)


@given(day=st.dates())
def test_every_form_of_a_day_is_that_day(day: date) -> None:
    first = (day - EPOCH.date()).days * DAY
    year, week, weekday = day.isocalendar()
    assume(1 <= year <= 9999)
    forms = [
        day.isoformat(),
        f"{day.year:04}{day.month:02}{day.day:02}",
        f"{day.year:04}-{day.timetuple().tm_yday:03}",
        f"{year:04}-W{week:02}-{weekday}",
        f"{year:04}W{week:02}{weekday}",
    ]
    for form in forms:
        assert (since(form), until(form)) == (first, first + DAY - 1)
    assert calendar_day(day.isoformat()) == day


@given(text=st.from_regex(r"\A[+-]?[0-9]{1,20}\Z"))
def test_digits_are_a_date_or_milliseconds_or_refused(text: str) -> None:
    """Whatever is accepted is the date with those eight digits, or has twelve digits or more: never early 1970."""
    try:
        first, last = since(text), until(text)
    except argparse.ArgumentTypeError:
        return
    if len(text) == 8 and text.isdecimal():
        assert first == milliseconds(datetime.strptime(text, "%Y%m%d").replace(tzinfo=UTC))
        assert last == first + DAY - 1
    else:
        assert first == last == int(text)
        assert len(text.lstrip("+-")) >= 12


@given(text=st.text(max_size=30) | st.text("0123456789TWZ:-+., hdm", max_size=28))
def test_any_text_is_a_time_or_a_usage_error(text: str) -> None:
    for parse in (since, until, calendar_day):
        with suppress(argparse.ArgumentTypeError):
            parse(text)


@pytest.mark.parametrize("text", ["20260309", "2026-03", "2026-W11-1", "today", "2026-03-09T00", "", "2026-02-30", "1"])
def test_a_day_is_given_in_one_form(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="day"):
        calendar_day(text)


@pytest.mark.parametrize("option", ["--since", "--until"])
@pytest.mark.parametrize("text", ["5", "2026", "1773057600", "20261332"])
def test_every_option_that_takes_a_time_refuses_a_doubtful_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, text: str
) -> None:
    ns.Store(tmp_path).close()
    with pytest.raises(SystemExit) as exited:
        main(["--data", str(tmp_path), "logs", option, text])
    assert exited.value.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "20260309"], ["midnight", "noon", "next"]),
        (["--until", "20260309"], ["before", "midnight", "noon"]),
        (["--since", "2026-W11-1T12", "--until", "2026W111"], ["noon"]),
        (["--since", "1h"], []),
    ],
)
def test_rows_of_a_time_are_found(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: list[str]
) -> None:
    with ns.Store(tmp_path) as store:
        for name, moment in (
            ("before", MIDNIGHT - 1),
            ("midnight", MIDNIGHT),
            ("noon", NOON),
            ("next", MIDNIGHT + DAY),
        ):
            store.logs.append("s", name, timestamp=moment)
    assert main(["--data", str(tmp_path), "logs", "--json", *arguments]) == 0
    printed = capsys.readouterr().out
    assert [ns.LogEntry(1, "s", "t", None, line, 0).json()["type"] for line in printed.splitlines()] == expected
