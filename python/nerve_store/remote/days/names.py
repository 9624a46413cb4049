"""How the objects that hold days are named, and what a log's database says of them."""

from __future__ import annotations

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass
from datetime import date
from typing import Protocol

_KEY = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?\.(jsonl(?:\.zst)?)", re.ASCII)


class Manifest(Protocol):
    """What a log's database says of its objects: that of a `LogStore`, or tables on a server.

    Who changes it holds the lock of archive jobs. Each change is durable when the call returns.
    """

    @property
    def path(self) -> str:
        """Which log it is."""

    @property
    def _identity(self) -> str | None:
        """What no other log has."""

    def _objects(self) -> list[tuple[date, str, str, int, str]]:
        """The fields of each `DayObject`."""

    def _begin_upload(self, day: date, key: str, size: int, sha256: str, place: str) -> bool:
        """Note an object that is about to be sent; false if the day's file is another one by now."""

    def _finish_upload(self, key: str) -> bool:
        """Note that it was read back and is the day's; false if the day's file is another one by now."""

    def _supersede_object(self, key: str) -> None:
        """Note that an object is to be deleted."""

    def _forget_object(self, key: str) -> None:
        """Note that it was."""

    def _release_day(self, day: date) -> object:
        """Remove the file that was sent."""


@dataclass(frozen=True, slots=True)
class DayObject:
    """What the database says of an object."""

    day: date
    key: str
    state: str
    """`current`, `pending` (about to be sent, or interrupted), `superseded` (to be deleted), `gone` (deleted)."""
    size: int
    sha256: str

    @staticmethod
    def all_of(log: Manifest) -> list[DayObject]:
        """Those that the log's database knows, by day."""
        return [DayObject(*fields) for fields in log._objects()]


def key_of(day: date, format: str, generation: int) -> str:
    """The name of a day's object; a day that gains rows gets another one."""
    return f"{day}.{format}" if generation == 0 else f"{day}.{generation}.{format}"


def parsed(key: str) -> tuple[date, int, str] | None:
    """The day, the generation and the format of an object; None if it is none of a day."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        day = date.fromisoformat(match[1])
    except ValueError:
        return None
    return day, int(match[2] or 0), match[3]


def next_generation(keys: Iterable[str]) -> int:
    """The first generation after those of a day's objects."""
    found = [parsed(key) for key in keys]
    return max((name[1] for name in found if name is not None), default=-1) + 1


def lost_keys(keys: Container[str], objects: Iterable[DayObject]) -> dict[date, str]:
    """The objects that were about to be sent for a day and are there, while the day's current one is missing.

    The database was restored from a backup of a time between the note and the end of a job: that the object is there
    and the one before is gone shows that a later job has ended the work.
    """
    known = list(objects)
    missing = {item.day for item in known if item.state == "current" and item.key not in keys}
    return {
        item.day: item.key for item in known if item.state == "pending" and item.day in missing and item.key in keys
    }


def newer_keys(keys: Iterable[str], objects: Iterable[DayObject]) -> dict[date, str]:
    """The newest object of each day of which the database knows none that is as new."""
    known: dict[date, int] = {}
    for item in objects:
        name = parsed(item.key)
        if name is not None:
            known[item.day] = max(name[1], known.get(item.day, -1))
    newest: dict[date, tuple[int, str]] = {}
    for key in keys:
        name = parsed(key)
        if name is not None and name[1] > known.get(name[0], -1):
            newest[name[0]] = max((name[1], key), newest.get(name[0], (-1, "")))
    return {day: key for day, (_, key) in newest.items()}
