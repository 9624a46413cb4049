"""Where the files of a target's days are to lie."""

from __future__ import annotations

import hashlib
import os
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass

from nerve_store._places import ARCHIVE_MARK, sync_directory
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.state import KnownDay

MARK = ".copying"
"""Says whose days they are, until the copy is whole."""
_CHUNK = 1 << 20


class ReplacedError(Exception):
    """A file was another one than the source said."""


@dataclass(frozen=True, slots=True)
class DayFile:
    """The file of a day, as the source says it is."""

    item: KnownDay
    size: int
    archived_at: int | None
    place: str
    pieces: Callable[[], Iterator[bytes]]
    """Its content; `ReplacedError` or `FileNotFoundError` at its end, or before, if it is another one."""


class Shelf(ABC):
    """A place for the files of days, that no other log may use."""

    place: str
    """What a person calls it."""

    @abstractmethod
    def claim(self, source: str) -> None:
        """Take it for a copy of this log; `NerveStoreError` if it has days of another one."""

    @abstractmethod
    def has(self, item: KnownDay) -> bool:
        """Whether a day that was stored is here, and not in a place that an earlier call was told of."""

    @abstractmethod
    def put(self, file: DayFile) -> None:
        """Store a day, in place of what was there of it; it is durable, and was read back."""

    @abstractmethod
    def remove(self, day: str) -> None:
        """Remove a day."""

    @abstractmethod
    def release(self) -> None:
        """The days are those of a whole log."""


class Directory(Shelf):
    """A directory of files."""

    def __init__(self, path: str) -> None:
        self.place = path

    def claim(self, source: str) -> None:
        os.makedirs(self.place, mode=0o700, exist_ok=True)
        mark = os.path.join(self.place, MARK)
        with suppress(FileNotFoundError), open(mark, encoding="utf-8") as file:
            if file.read() == source:
                # What an unfinished log had marked as its own, which may have been made anew since.
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.place, ARCHIVE_MARK))
                return
        if any(".jsonl" in name or name == ARCHIVE_MARK for name in os.listdir(self.place)):
            raise NerveStoreError(
                f"{self.place} is the archive of another log, or has day files of which it is not known whose they"
                " are; name another directory"
            )
        with open(mark, "w", encoding="utf-8") as file:
            file.write(source)
            file.flush()
            os.fsync(file.fileno())
        sync_directory(self.place)

    def has(self, item: KnownDay) -> bool:
        return os.path.exists(os.path.join(self.place, _name(item)))

    def put(self, file: DayFile) -> None:
        name = _name(file.item)
        staged = os.path.join(self.place, f".stage-{secrets.token_hex(8)}")
        try:
            with open(staged, "xb") as copy:
                copy.writelines(file.pieces())
                copy.flush()
                os.fsync(copy.fileno())
            with open(staged, "rb") as copy:
                if hashlib.file_digest(copy, "sha256").hexdigest() != file.item.sha256:
                    raise ReplacedError(file.place)
            if file.archived_at is not None:
                archived_at = file.archived_at * 1_000_000
                os.utime(staged, ns=(archived_at, archived_at))
            self._remove(file.item.day, but=name)
            os.rename(staged, os.path.join(self.place, name))
        finally:
            with suppress(FileNotFoundError):
                os.unlink(staged)
        sync_directory(self.place)

    def remove(self, day: str) -> None:
        self._remove(day, but="")

    def _remove(self, day: str, *, but: str) -> None:
        for name in (f"{day}.jsonl", f"{day}.jsonl.zst"):
            if name != but:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.place, name))

    def release(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(self.place, MARK))


def _name(item: KnownDay) -> str:
    return f"{item.day}.{item.format}"


def file_pieces(path: str, sha256: str) -> Iterator[bytes]:
    """The content of a file; `ReplacedError` at its end if it is another one."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            yield chunk
    if digest.hexdigest() != sha256:
        raise ReplacedError(path)
