"""The table of the objects that hold days, as those see it who move files of days to an object store."""

from __future__ import annotations

from datetime import date

from nerve_store.postgres.archive.known import DaySummary, KnownDay
from nerve_store.postgres.archive.manifest import Manifest


class Objects:
    """A `nerve_store.remote.days.names.Manifest` in which a name is never given to two objects.

    A job that has lost its session, and with it the lock, may still end a request to store or to delete: it meets no
    object of the job after it.
    """

    def __init__(self, manifest: Manifest, day: tuple[KnownDay, DaySummary] | None = None) -> None:
        """`day` is the content that is about to be sent."""
        self._manifest, self._day = manifest, day

    @property
    def path(self) -> str:
        """Which log it is."""
        return self._manifest.path

    @property
    def _identity(self) -> str:
        return self._manifest.identity()

    def _objects(self) -> list[tuple[date, str, str, int, str]]:
        return self._manifest.objects()

    def _begin_upload(self, day: date, key: str, size: int, sha256: str, place: str) -> bool:
        self._manifest.execute(
            "INSERT INTO @.archive_objects (day, key, state, size, sha256, place) "
            "VALUES (%s, %s, 'pending', %s, %s, %s) ON CONFLICT (day, key) DO UPDATE SET place = excluded.place",
            (day, key, size, sha256, place),
        )
        return True

    def _finish_upload(self, key: str) -> bool:
        assert self._day is not None
        known, summary = self._day
        places = self._manifest.execute(
            "SELECT place FROM @.archive_objects WHERE day = %s AND key = %s", (known.day, key)
        )
        self._manifest.settle(known.at(places[0][0], key), summary)
        return True

    def _supersede_object(self, key: str) -> None:
        self._manifest.execute("UPDATE @.archive_objects SET state = 'superseded' WHERE key = %s", (key,))

    def _forget_object(self, key: str) -> None:
        self._manifest.execute("UPDATE @.archive_objects SET state = 'gone' WHERE key = %s", (key,))

    def _release_day(self, day: date) -> None:
        """The file that was sent is the job's own, and goes with it."""
