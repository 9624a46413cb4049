"""How the objects that hold days are named."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date

from nerve_store._core import LogStore

MARK = ".nerve-store"
"""Says whose days these are. No pattern by which others look for day files matches it."""

_KEY = re.compile(r"(\d{4}-\d{2}-\d{2})(?:\.(\d+))?\.(jsonl(?:\.zst)?)", re.ASCII)


@dataclass(frozen=True, slots=True)
class DayObject:
    """What the database says of an object."""

    day: date
    key: str
    state: str
    """`current`, `pending` (about to be sent, or interrupted), `superseded` (to be deleted)."""
    size: int
    sha256: str

    @staticmethod
    def all_of(log: LogStore) -> list[DayObject]:
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
