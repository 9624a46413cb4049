"""Rows, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator

from nerve_store._core import LogEntry
from nerve_store.exceptions import NerveStoreError

PAGE_ROWS = 2_000
PAGE_BYTES = 8 << 20
"""Bytes of payloads that a page has at the most, if its rows are like those of the page before."""


def paged(rows: Iterator[LogEntry]) -> Iterator[list[LogEntry]]:
    """The rows, some at a time; those before an error come before it."""
    page: list[LogEntry] = []
    size = 0
    try:
        for entry in rows:
            page.append(entry)
            size += len(entry.payload or "")
            if len(page) == PAGE_ROWS or size >= PAGE_BYTES:
                yield page
                page, size = [], 0
    except NerveStoreError:
        if page:
            yield page
        raise
    if page:
        yield page
