"""Days in an object store, where a log is moved from there or to there."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

from nerve_store._core import LogStore
from nerve_store._places import COPY_MARK, below
from nerve_store.exceptions import ArchiveCorruptError, NerveStoreError
from nerve_store.moving.shelf import LONGEST_MARK, Claim, DayFile, ReplacedError, Shelf
from nerve_store.moving.state import KnownDay
from nerve_store.remote.bucket import PART_BYTES, Bucket
from nerve_store.remote.days import mark
from nerve_store.remote.days.content import holds, pieces
from nerve_store.remote.days.names import key_of, next_generation, parsed


class Objects(Shelf):
    """A prefix. At the end of a `put` each day has one object; none is ever changed."""

    def __init__(self, remote: str, options: Mapping[str, Any] | None) -> None:
        self.bucket = Bucket(below(remote, "logs"), options or {})
        self.place = self.bucket.place
        self.objects: dict[str, dict[str, int]] = {}
        """The objects of each day that is there, with their sizes; nobody else changes them once they are claimed."""

    def claim(self, wanted: Claim) -> None:
        found = self.claimed()
        listed = mark.listed(self.bucket)
        if found is None:
            if mark.owner(self.bucket) is not None or any(map(parsed, listed)):
                raise NerveStoreError(f"{self.place} has days of another log; name another prefix")
            self.bucket.create_unless_there(COPY_MARK, wanted.mark)
            found = self.claimed()
        wanted.check(found, self.bucket.name(COPY_MARK))
        for key, size in listed.items():
            name = parsed(key)
            if name is not None:
                self.objects.setdefault(str(name[0]), {})[key] = size

    def claimed(self) -> Claim | None:
        found = self.bucket.get(COPY_MARK, longest=LONGEST_MARK)
        return None if found is None else Claim.read(found)

    def has(self, item: KnownDay, size: int) -> bool:
        there = self.objects.get(item.day, {})
        return any(key.endswith(f".{item.format}") and found == size for key, found in there.items())

    def holds(self, item: KnownDay, size: int) -> bool:
        return any(holds(self.bucket, key, size, item.sha256) for key in self.objects.get(item.day, {}))

    def put(self, file: DayFile) -> None:
        there = self.objects.setdefault(file.item.day, {})
        key = next((key for key in there if holds(self.bucket, key, file.size, file.item.sha256)), None)
        if key is None:
            key = key_of(date.fromisoformat(file.item.day), file.item.format, next_generation(there))
            self._send(file, key)
            there[key] = file.size
        self._remove(file.item.day, but=key)

    def _send(self, file: DayFile, key: str) -> None:
        if file.size > PART_BYTES:
            self.bucket.upload(key, file.pieces)
        else:
            self.bucket.create_unless_there(key, b"".join(file.pieces()))
        if not holds(self.bucket, key, file.size, file.item.sha256):
            raise NerveStoreError(f"{self.bucket.name(key)}: it is not what was sent there a moment ago")

    def sign(self, log: LogStore) -> None:
        """Make the prefix this log's."""
        mark.claim(self.bucket, log)

    def days(self) -> set[str]:
        return {day for day, there in self.objects.items() if there}

    def remove(self, day: str) -> None:
        self._remove(day, but="")

    def _remove(self, day: str, *, but: str) -> None:
        there = self.objects.get(day, {})
        for key in there.keys() - {but}:
            self.bucket.delete([key])
            del there[key]

    def release(self) -> None:
        self.bucket.delete([COPY_MARK])


def object_pieces(bucket: Bucket, url: str, size: int, sha256: str) -> Iterator[bytes]:
    """The content of a day's object; `ReplacedError` if it is another one, or is gone."""
    try:
        yield from pieces(bucket, url.rpartition("/")[2], size, sha256)
    except ArchiveCorruptError as error:
        raise ReplacedError(str(error)) from error
