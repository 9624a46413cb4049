"""Deleting the blobs that nobody keeps."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from nerve_store.records import CollectReport
from nerve_store.remote.blobs.keys import hash_of
from nerve_store.remote.blobs.listing import AT_ONCE, SHARDS, folder_groups, in_turn, listed
from nerve_store.remote.blobs.pool import Pool
from nerve_store.remote.blobs.turns import Turn, turn
from nerve_store.remote.bucket import Bucket, Found
from nerve_store.types import Progress

_DELETIONS_AT_ONCE = 32


@dataclass
class Collection:
    """One call of `collect`."""

    bucket: Bucket
    pool: Pool
    keep: frozenset[str]
    grace: timedelta
    is_dry: bool
    seen: set[str] = field(default_factory=set[str])
    young_count: int = 0
    deleted_count: int = 0
    deleted_size: int = 0

    def run(self, progress: Progress | None) -> CollectReport:
        """Look at all blobs, and delete those that are old and not kept."""
        groups = deque(folder_groups(self.bucket))
        total = len(SHARDS)
        if progress is not None:
            progress(0, total)
        while groups:
            for _ in self._dry(groups) if self.is_dry else self._round(groups):
                if progress is not None:
                    progress(max(0, total - AT_ONCE * len(groups)), total)
        missing = tuple(sorted(self.keep - self.seen))
        return CollectReport(
            self.deleted_count, self.deleted_size, len(self.seen), self.young_count, missing, dry_run=self.is_dry
        )

    def _dry(self, groups: deque[tuple[str | None, ...]]) -> Iterator[None]:
        limit = datetime.now(UTC) - self.grace
        while groups:
            for one in self._old(groups.popleft(), limit):
                self._count(one)
            yield

    def _round(self, groups: deque[tuple[str | None, ...]]) -> Iterator[None]:
        """As many groups as one lease has time for."""
        with turn(self.bucket) as held:
            while groups and not held.is_over:
                seen, young_count = set(self.seen), self.young_count
                if not self._delete(self._old(groups[0], held.began - self.grace), held):
                    self.seen, self.young_count = seen, young_count  # the group is looked at again
                    return
                groups.popleft()
                yield

    def _old(self, group: tuple[str | None, ...], limit: datetime) -> list[Found]:
        """The blobs of a group that may be deleted; the others are counted."""
        old: list[Found] = []
        for shard in in_turn(self.pool, lambda folder: listed(self.bucket, folder), group, at_once=AT_ONCE):
            for one in shard:
                if (hash := hash_of(one.key)) in self.keep and hash is not None:
                    self.seen.add(hash)
                elif one.modified > limit:
                    self.young_count += 1
                else:
                    old.append(one)
        return old

    def _delete(self, old: list[Found], held: Turn) -> bool:
        """Delete blobs; whether the lease sufficed for all."""

        def delete(some: list[Found]) -> list[Found] | None:
            if held.is_over:
                return None
            held.delete([one.key for one in some])
            return some

        size = self.bucket.deletions
        chunks = (old[at : at + size] for at in range(0, len(old), size))
        is_whole = True
        for done in in_turn(self.pool, delete, chunks, at_once=_DELETIONS_AT_ONCE):
            if done is None:
                is_whole = False
            for one in done or ():
                self._count(one)
        return is_whole

    def _count(self, one: Found) -> None:
        self.deleted_count += 1
        self.deleted_size += one.size
