"""Every public call that writes is in the tables of the sweeps that kill it and fail it at each of its calls."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest.mock import Mock

import pytest

import nerve_store as ns
from programs.faulted import ASYNC_BLOB_WRITES, ASYNC_WRITES, BLOB_READS, BLOB_WRITES
from support import LOG_STORE_READS, fill_batch, public_methods
from test_backup_faults import SCENARIOS as BACKUPS
from test_write_faults import WRITES

NO_WRITES = {"arrow", "close"}
"""Of a `LogStore`, besides its reads: a sweep of a write ends with `close`."""


def methods(names: Iterable[str]) -> set[str]:
    """The methods that the names in a table begin with."""
    return {name.partition(" ")[0] for name in names}


@pytest.mark.parametrize(("cls", "table"), [(ns.LogStore, WRITES), (ns.AsyncLogStore, ASYNC_WRITES)])
def test_every_write_of_a_log_is_swept(cls: type, table: dict[str, Any]) -> None:
    """The reads are those that a read-only store answers, as another test shows."""
    assert methods(table) | {"backup"} == public_methods(cls) - LOG_STORE_READS.keys() - NO_WRITES


@pytest.mark.parametrize(("cls", "table"), [(ns.BlobStore, BLOB_WRITES), (ns.AsyncBlobStore, ASYNC_BLOB_WRITES)])
def test_every_write_of_blobs_is_swept(cls: type, table: dict[str, Any]) -> None:
    assert methods(table) == public_methods(cls) - BLOB_READS.keys() - {"close"}


def test_every_backup_is_swept() -> None:
    assert {cls.__name__ for cls in (ns.Store, ns.AsyncStore) if public_methods(cls) != {"backup", "close"}} == set()
    works = {scenario.work.__name__ for scenario in BACKUPS.values()}
    assert works == {"back_up", "back_up_async", "copy_database", "copy_database_async"}


def test_a_swept_batch_makes_every_change_that_a_batch_takes() -> None:
    batch = Mock()
    fill_batch(batch)
    assert {call[0] for call in batch.method_calls} == public_methods(ns.WriteBatch)
