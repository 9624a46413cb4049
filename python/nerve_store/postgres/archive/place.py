"""Which archive a log was opened with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from nerve_store._places import check_cache, check_remote, directory_path
from nerve_store.postgres.archive.days import Days
from nerve_store.postgres.archive.files import DirectoryDays


def days_at(
    archive: str | os.PathLike[str] | None,
    options: Mapping[str, Any] | None,
    cache: str | os.PathLike[str] | None,
    max_cache_bytes: int,
) -> Days:
    """The days in a directory, under the URL of an object store, or nowhere."""
    url = archive if isinstance(archive, str) and "://" in archive else None
    check_remote(url, options, max_cache_bytes, name="archive")
    if url is None:
        return DirectoryDays(None if archive is None else directory_path(archive, "archive"))
    from nerve_store.postgres.archive.bucket import ObjectDays

    directory = None if cache is None else directory_path(cache, "cache")
    if directory is not None:
        check_cache(directory, url)
    return ObjectDays(url, options or {}, cache=directory, max_cache_bytes=max_cache_bytes)
