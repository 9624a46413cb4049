"""The errors themselves: their bases, and that they pickle with their fields."""

from __future__ import annotations

import pickle
from datetime import date
from pathlib import Path

import nerve_store as ns
from support import refused


def test_errors_have_the_bases_of_the_contract() -> None:
    bases: dict[type[Exception], tuple[type[Exception], ...]] = {
        ns.StoreClosedError: (),
        ns.ForkedStoreError: (),
        ns.StoreBusyError: (TimeoutError,),
        ns.StoreIOError: (OSError,),
        ns.StoreFullError: (ns.StoreIOError, OSError),
        ns.CorruptStoreError: (),
        ns.SchemaVersionError: (),
        ns.IllegalTransitionError: (ValueError,),
        ns.ArchiveError: (),
        ns.ArchiveBusyError: (ns.ArchiveError, ns.StoreBusyError),
        ns.ArchiveCorruptError: (ns.ArchiveError, ns.CorruptStoreError),
        ns.BlobCorruptError: (),
        ns.BlobNotFoundError: (FileNotFoundError,),
    }
    for error, more in bases.items():
        assert issubclass(error, ns.NerveStoreError)
        for base in more:
            assert issubclass(error, base)


def test_errors_pickle_with_their_fields(kept: ns.LogStore, tmp_path: Path) -> None:
    (tmp_path / "file.db").write_bytes(b"no database" * 1000)
    errors = [
        refused(ns.IllegalTransitionError, lambda: kept.transition("run-1", "queued")),
        refused(ns.StoreIOError, lambda: ns.LogStore(tmp_path)),
        refused(ns.CorruptStoreError, lambda: ns.LogStore(tmp_path / "file.db")),
        refused(ns.ArchiveError, lambda: list(kept.read_archive(date(2026, 1, 1)))),
        refused(ns.BlobNotFoundError, lambda: ns.BlobStore(tmp_path / "blobs").size("0" * 64)),
    ]
    for error in errors:
        copy = pickle.loads(pickle.dumps(error))
        assert type(copy) is type(error)
        assert str(copy) == str(error)
        assert vars(copy) == vars(error)
        assert getattr(copy, "errno", None) == getattr(error, "errno", None)
