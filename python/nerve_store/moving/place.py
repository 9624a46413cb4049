"""An object store that goes with a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nerve_store._places import below, check_remote, directory_path, is_url, without_remote
from nerve_store.exceptions import NerveStoreError

if TYPE_CHECKING:
    from nerve_store.protocols import Blobs
    from nerve_store.types import Path


@dataclass(frozen=True, slots=True)
class Remote:
    """Where days and blobs are, as `Store` takes it."""

    url: str
    options: Mapping[str, Any] | None = None

    @classmethod
    def of(
        cls, place: Path, url: str | None, options: Mapping[str, Any] | None, *, names: tuple[str, str]
    ) -> tuple[str, Remote | None]:
        """The place of a log without the object store that it names, and that, or `url`; None if there is none.

        `names` are those of the arguments `place` and `url`.
        """
        is_server = isinstance(place, str) and is_url(place)
        place = str(place) if is_server else directory_path(place, names[0], remote=f"{names[1]}=")
        place, named = without_remote(place) if is_url(place) else (place, None)
        if named is not None and url is not None:
            raise NerveStoreError(f"two object stores are named: {named} in the URL, and {url}")
        url = named if url is None else url
        check_remote(url, options, 0, name=names[1])
        return place, None if url is None else cls(url, options)

    def blobs(self, *, read_only: bool) -> Blobs:
        """The blobs there."""
        from nerve_store.remote.blobs.store import ObjectBlobStore

        return ObjectBlobStore(below(self.url, "blobs"), options=self.options, read_only=read_only)
