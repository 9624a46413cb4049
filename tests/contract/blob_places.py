"""The places for blobs, and the stores that a test opens on them."""

from __future__ import annotations

import importlib.util
import itertools
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from support import objects

PLACES = ("directory", "file", "memory", "s3-versitygw", "s3-moto")

_numbers = itertools.count()


@dataclass
class Place:
    """Where the blobs of one test are; it can be opened any number of times."""

    name: str
    path: Path
    url: str = ""
    options: dict[str, Any] = field(default_factory=dict)

    def open(self, **options: Any) -> Any:
        """The store: what is asked for is in `nerve_store.protocols.Blobs`, and `verify=` of writes."""
        if self.name == "directory":
            return ns.BlobStore(self.path, durability="normal", **options)
        return ns.ObjectBlobStore(self.url, options=self.options, **options)

    def open_async(self) -> Any:
        if self.name == "directory":
            return ns.AsyncBlobStore(self.path, durability="normal")
        return ns.AsyncObjectBlobStore(self.url, options=self.options)

    def damage(self, hash: str, content: bytes) -> None:
        """Put something else in a blob's place."""
        if self.name == "directory":
            (self.path / hash[:2] / hash[2:]).write_bytes(content)
        else:
            self.bucket().put(f"{hash[:2]}/{hash[2:]}", content)

    def bucket(self) -> Any:
        from nerve_store.remote.bucket import Bucket

        return Bucket(self.url, self.options)


def available(name: str) -> str | None:
    """Why a place cannot be tested here, if it cannot."""
    if name == "directory":
        return None
    if importlib.util.find_spec("obstore") is None:
        return "obstore is not installed; make venv installs it"
    return objects.missing(name.removeprefix("s3-")) if name.startswith("s3-") else None


def made(name: str, directory: Path) -> Place:
    """A place for one test."""
    reason = available(name)
    if reason is not None:
        pytest.skip(reason)
    place = Place(name, directory / "blobs")
    if name == "file":
        place.url = place.path.as_uri()
    elif name == "memory":
        place.url = f"memory://{os.getpid()}-{next(_numbers)}"
    elif name.startswith("s3-"):
        place.url, place.options = objects.shared(name.removeprefix("s3-")).bucket()
    return place
