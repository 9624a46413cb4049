"""An object store that goes with a log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nerve_store.store import below, check_remote

if TYPE_CHECKING:
    from nerve_store.protocols import Blobs


@dataclass(frozen=True, slots=True)
class Remote:
    """Where days and blobs are, as `Store` takes it."""

    url: str
    options: Mapping[str, Any] | None = None

    @classmethod
    def named(cls, url: str | None, options: Mapping[str, Any] | None) -> Remote | None:
        """None if there is none; a URL that names no place is a `ValueError`."""
        check_remote(url, options, 0)
        return None if url is None else cls(url, options)

    def blobs(self, *, read_only: bool) -> Blobs:
        """The blobs there."""
        from nerve_store.remote.blobs.store import ObjectBlobStore

        return ObjectBlobStore(below(self.url, "blobs"), options=self.options, read_only=read_only)
