"""What is sent at the same time is so little that a slow link sends it before requests are given up."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

import obstore

from nerve_store.remote.bucket import PART_BYTES
from nerve_store.remote.link import Link

MIB = 1 << 20


def contents(size: int, count: int) -> list[bytes]:
    return [bytes([number]) * size for number in range(count)]


def by_threads(store: ns.ObjectBlobStore, items: list[bytes]) -> list[str]:
    with ThreadPoolExecutor(len(items)) as pool:
        return list(pool.map(store.write, items))


def again(store: ns.ObjectBlobStore, items: list[bytes]) -> list[str]:
    """Those that are there already are sent again, with `verify`."""
    hashes = store.write_many(items)
    for hash in hashes:
        store._bucket.put(f"{hash[:2]}/{hash[2:]}", b"damaged")
    return store.write_many(items, verify=True)


@pytest.mark.parametrize("write", [ns.ObjectBlobStore.write_many, by_threads, again])
@pytest.mark.parametrize(("size", "count"), [(1000, 64), (MIB, 64), (5 * MIB, 24), (PART_BYTES, 16), (20 * MIB, 6)])
def test_bytes_under_way_are_few(
    memory: Place, monkeypatch: pytest.MonkeyPatch, size: int, count: int, write: Callable[..., list[str]]
) -> None:
    store = memory.open()
    original: Any = obstore.put
    lock, under_way = threading.Lock(), list[int]()
    most_bytes = most_requests = 0

    def put(bucket: Any, key: str, data: Any, **options: Any) -> Any:
        share = 3 * PART_BYTES if options["use_multipart"] else len(data)
        nonlocal most_bytes, most_requests
        with lock:
            under_way.append(share)
            most_bytes, most_requests = max(most_bytes, sum(under_way)), max(most_requests, len(under_way))
        time.sleep(0.01)
        try:
            return original(bucket, key, data, **options)
        finally:
            with lock:
                under_way.remove(share)

    monkeypatch.setattr(obstore, "put", put)
    items = contents(size, count)
    hashes = write(store, items)
    assert hashes == list(map(ns.blob_hash, items))
    assert [store.read(hash) for hash in hashes] == items
    assert most_bytes <= 48 * MIB
    assert most_requests > 1


def test_large_request_is_not_overtaken() -> None:
    link, order = Link(10), list[str]()
    first, others = link.sending(6), ThreadPoolExecutor(2)

    def send(name: str, size: int) -> None:
        with link.sending(size):
            order.append(name)

    with others:
        with first:
            large = others.submit(send, "large", 8)
            while not link._next.locked():
                time.sleep(0.001)
            small = others.submit(send, "small", 2)
            time.sleep(0.05)
            assert order == []
        large.result(30)
        small.result(30)
    assert order == ["large", "small"]


def test_more_than_all_is_sent_alone_and_an_error_frees_its_share() -> None:
    link = Link(10)
    with pytest.raises(KeyError), link.sending(1_000):
        raise KeyError
    with link.sending(10):
        pass
