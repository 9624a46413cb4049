"""A closed store refuses every call, and a read-only one every write."""

from __future__ import annotations

from pathlib import Path

import pytest

import nerve_store as ns
from support import LOG_STORE_CALLS, LOG_STORE_READS, LOG_STORE_WRITES, closed_store, public_methods, refused, tree


def test_every_public_method_is_tried_on_a_closed_store() -> None:
    assert set(LOG_STORE_CALLS) == public_methods(ns.LogStore) - {"close"}


@pytest.mark.parametrize("name", LOG_STORE_CALLS)
def test_closed_store_refuses(data_dir: Path, name: str) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append("system", "tick", timestamp=0)
    store.close()
    before = tree(data_dir)
    error = refused(ns.StoreClosedError, lambda: LOG_STORE_CALLS[name](store))
    assert isinstance(error, ns.NerveStoreError)
    assert tree(data_dir) == before


def test_closed_store_is_not_entered_again(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.close()
    with pytest.raises(ns.StoreClosedError), store:
        pytest.fail("entered")


def test_a_closed_data_directory_is_not_entered_again(data_dir: Path) -> None:
    with ns.Store(data_dir) as store:
        pass
    with pytest.raises(ns.StoreClosedError), store:
        pass


def test_closed_store_still_tells_its_path(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.close()
    assert Path(store.path) == (data_dir / "logs.db").resolve()
    assert str(data_dir) in store.archive_dir
    assert "closed" in repr(store) or str(data_dir) in repr(store)


def test_iterators_end_with_their_store(data_dir: Path) -> None:
    store = ns.LogStore(data_dir / "logs.db")
    store.append_many([("system", "tick", None, None, n) for n in range(20_000)])
    rows, unused = store.iter(), store.iter()
    next(rows)
    store.close()

    def exhaust() -> None:
        for _ in rows:
            pass

    refused(ns.StoreClosedError, exhaust)
    refused(ns.StoreClosedError, lambda: next(unused))


@pytest.mark.parametrize("name", LOG_STORE_WRITES)
def test_read_only_store_refuses_every_write(data_dir: Path, name: str) -> None:
    with ns.LogStore(data_dir / "logs.db") as writer:
        writer.upsert_workflow_run(
            ("workflow", "started", "run-1", None, 1),
            ns.WorkflowRun("run-1", "deploy", ns.WorkflowRunStatus.STARTED, 1),
        )
        rows = writer.query()
        with ns.LogStore(data_dir / "logs.db", read_only=True) as store:
            refused(ns.NerveStoreError, lambda: LOG_STORE_WRITES[name](store))
            assert store.query() == rows
        assert writer.query() == rows
        assert not (data_dir / "archive").exists()


@pytest.mark.parametrize("name", LOG_STORE_READS)
def test_read_only_store_answers_every_read(data_dir: Path, name: str) -> None:
    closed_store(data_dir / "logs.db")
    with ns.LogStore(data_dir / "logs.db") as writer, ns.LogStore(data_dir / "logs.db", read_only=True) as store:

        def outcome(of: ns.LogStore) -> object:
            try:
                return LOG_STORE_READS[name](of)
            except ns.ArchiveError as error:
                return type(error)

        assert outcome(store) == outcome(writer)
