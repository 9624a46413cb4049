"""Where the files of a target's days are to lie."""

from __future__ import annotations

import hashlib
import json
import os
import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass

from nerve_store._places import ARCHIVE_MARK, COPY_MARK, make_directory, sync_directory
from nerve_store.exceptions import NerveStoreError
from nerve_store.moving.state import KnownDay

LONGEST_MARK = 64 << 10
_STAGE = ".stage-"
_DAY_FILE = re.compile(r"\d{4}-\d{2}-\d{2}\.jsonl(\.zst)?", re.ASCII)
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


@dataclass(frozen=True, slots=True)
class Claim:
    """What the mark says of the copy that the days are for."""

    source: str
    target: str
    """What tells the log that is made from all others."""
    place: str
    """What a person calls it."""

    @classmethod
    def read(cls, mark: object) -> Claim:
        """What a mark says; nothing, if it cannot be read."""
        try:
            fields = json.loads(mark if isinstance(mark, bytes) else b"")
            return cls(*(str(fields[name]) for name in ("source", "target", "place")))
        except (ValueError, TypeError, KeyError, RecursionError):
            return cls("", "", "")

    @property
    def mark(self) -> bytes:
        """As it is stored."""
        return json.dumps(asdict(self)).encode() + b"\n"

    def check(self, found: Claim | None, mark: str) -> None:
        """Refuse a place that another copy has claimed."""
        if found is None or found.target != self.target:
            whose = "another copy" if found is None or not found.place else f"the copy to {found.place}"
            raise NerveStoreError(
                f"{mark}: the days of {whose} are there; name another place, or, if that copy was given up, delete"
                " what is there"
            )


@contextmanager
def named(path: str) -> Generator[None]:
    """Let an error of the operating system name this path if it names none, as one of a write does."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = path
        raise


class Shelf(ABC):
    """A place for the files of days, that no other log may use."""

    place: str
    """What a person calls it."""

    @abstractmethod
    def claim(self, wanted: Claim) -> None:
        """Take it for a copy, until that is whole; `NerveStoreError` if it has days of another log or copy."""

    @abstractmethod
    def claimed(self) -> Claim | None:
        """Which copy it is claimed for."""

    @abstractmethod
    def has(self, item: KnownDay, size: int) -> bool:
        """Whether a day that was stored is here, as long as it was, and not in a place that an earlier call named."""

    @abstractmethod
    def holds(self, item: KnownDay, size: int) -> bool:
        """The same, with the same bytes, which are read."""

    @abstractmethod
    def put(self, file: DayFile) -> None:
        """Store a day, in place of what was there of it; it is durable, and was read back."""

    @abstractmethod
    def days(self) -> set[str]:
        """The days of which something is here. Once the place is claimed, all of it is this copy's."""

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

    def claim(self, wanted: Claim) -> None:
        make_directory(self.place)
        if self.claimed() is None:
            if any(".jsonl" in name or name == ARCHIVE_MARK for name in os.listdir(self.place)):
                raise NerveStoreError(
                    f"{self.place} is the archive of another log, or has day files of which it is not known whose they"
                    " are; name another directory"
                )
            with self._staged([wanted.mark]) as staged:
                try:
                    os.link(staged, self._mark)
                except FileExistsError:
                    pass  # Another copy was faster.
                except OSError:
                    os.rename(staged, self._mark)  # The file system has no links.
            sync_directory(self.place)
        wanted.check(self.claimed(), self._mark)
        for name in os.listdir(self.place):
            if name.startswith(_STAGE):
                os.unlink(os.path.join(self.place, name))

    @property
    def _mark(self) -> str:
        return os.path.join(self.place, COPY_MARK)

    def claimed(self) -> Claim | None:
        try:
            with open(self._mark, "rb") as file:
                return Claim.read(file.read(LONGEST_MARK))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def has(self, item: KnownDay, size: int) -> bool:
        try:
            return os.stat(os.path.join(self.place, _name(item))).st_size == size
        except FileNotFoundError:
            return False

    def holds(self, item: KnownDay, size: int) -> bool:
        return self.has(item, size) and _digest(os.path.join(self.place, _name(item))) == item.sha256

    @contextmanager
    def _staged(self, pieces: Iterable[bytes]) -> Generator[str]:
        """A durable file that only its owner may read; unless it is given another name, nothing of it is left."""
        path = os.path.join(self.place, f"{_STAGE}{secrets.token_hex(8)}")
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with named(self.place):
                with open(descriptor, "wb") as file:
                    file.writelines(pieces)
                    file.flush()
                    os.fsync(descriptor)
                yield path
        finally:
            with suppress(FileNotFoundError):
                os.unlink(path)

    def put(self, file: DayFile) -> None:
        name = _name(file.item)
        with self._staged(file.pieces()) as staged:
            if _digest(staged) != file.item.sha256:
                raise ReplacedError(file.place)
            if file.archived_at is not None:
                archived_at = file.archived_at * 1_000_000
                os.utime(staged, ns=(archived_at, archived_at))
            self._remove(file.item.day, but=name)
            os.rename(staged, os.path.join(self.place, name))
        sync_directory(self.place)

    def days(self) -> set[str]:
        return {name.partition(".")[0] for name in os.listdir(self.place) if _DAY_FILE.fullmatch(name)}

    def remove(self, day: str) -> None:
        self._remove(day, but="")

    def _remove(self, day: str, *, but: str) -> None:
        for name in (f"{day}.jsonl", f"{day}.jsonl.zst"):
            if name != but:
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.place, name))

    def release(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._mark)


def _name(item: KnownDay) -> str:
    return f"{item.day}.{item.format}"


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_pieces(path: str, sha256: str) -> Iterator[bytes]:
    """The content of a file; `ReplacedError` at its end if it is another one."""
    digest = hashlib.sha256()
    with named(path), open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            yield chunk
    if digest.hexdigest() != sha256:
        raise ReplacedError(path)
