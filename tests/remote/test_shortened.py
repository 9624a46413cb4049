"""Large objects that become shorter while they are read."""

from __future__ import annotations

import os
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, available, made
from nerve_store.remote.blobs.keys import key_of
from nerve_store.remote.days.content import holds

MIB = 1 << 20
CONTENT = os.urandom(36 * MIB)


@pytest.fixture(params=["memory", "file", "s3-versitygw"])
def place(request: pytest.FixtureRequest, tmp_path: Any) -> Place:
    """Each kind of client."""
    reason = available(request.param)
    if reason is not None:
        pytest.skip(reason)
    return made(request.param, tmp_path)


@pytest.mark.parametrize("length", [0, 1_000, 4 * MIB, 20 * MIB, 32 * MIB + 5, 36 * MIB - 1])
def test_an_object_that_became_shorter_is_damage(place: Place, length: int) -> None:
    with place.open() as blobs:
        hash = blobs.write(CONTENT)
        file = blobs.open(hash)
        first = file.read(100)
        bucket = place.bucket()
        bucket.upload(key_of(hash), lambda: [CONTENT[:length]])
        with pytest.raises(ns.BlobCorruptError) as refused:
            first += file.read()
        assert refused.value.hash == hash
        assert CONTENT.startswith(first)
        with pytest.raises(ns.BlobCorruptError):
            file.read()
        with pytest.raises(ns.BlobCorruptError):
            blobs.read(hash)
        assert not blobs.exists(hash)
        assert not holds(bucket, key_of(hash), len(CONTENT), hash)
        bucket.delete([key_of(hash)])
        with pytest.raises(ns.BlobNotFoundError):
            blobs.open(hash)
        assert blobs.read(hash) is None
