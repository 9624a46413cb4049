"""Deletions that the store refuses, declines for now, or answers badly; and listings that break off."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place
from support import is_one_line, objects
from support.flaky import Flaky, Request, flaky

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket

CONTENTS = [b"%d" % number for number in range(6)]
CALLS: dict[str, Callable[[Any], object]] = {
    "delete": lambda blobs: blobs.delete(ns.blob_hash(CONTENTS[0])),
    "collect": lambda blobs: blobs.collect([], grace=timedelta(0)),
}
LISTINGS: dict[str, Callable[[Any], object]] = {
    "stats": lambda blobs: blobs.stats(),
    "iteration": list,
    "dry run": lambda blobs: blobs.collect([], grace=timedelta(0), dry_run=True),
    "verify": lambda blobs: blobs.verify(),
}


def before(place: Place, proxy: Flaky) -> Place:
    """The same bucket by way of the proxy."""
    return Place(place.name, place.path, place.url, objects.S3Server.options(proxy.port))


def port_of(place: Place) -> int:
    return int(place.options["endpoint"].rpartition(":")[2])


def is_deletion(request: Request) -> bool:
    return request.method == "DELETE" or request.path.endswith("?delete")


def is_of_lease(request: Request) -> bool:
    return request.path.endswith(".collecting") or b".collecting" in request.body


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    "fault",
    ["forbid", "key:AccessDenied", "key:InvalidAccessKeyId", "key:MethodNotAllowed", "key:SignatureDoesNotMatch"],
)
def test_deletion_that_is_refused_is_not_called_unanswered(s3: Place, fault: str, call: str) -> None:
    s3.open().write_many(CONTENTS)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        proxy.fault = lambda request: fault if is_deletion(request) and not is_of_lease(request) else None
        with pytest.raises(ns.StoreIOError) as caught:
            CALLS[call](shaky)
        assert caught.value.errno == 13
        assert "credentials" in str(caught.value)
        assert is_one_line(caught.value)
    assert s3.bucket().head(".collecting") is None


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("fault", ["busy", "key:SlowDown", "key:InternalError"])
def test_deletion_that_is_declined_once_is_repeated(s3: Place, fault: str, call: str) -> None:
    s3.open().write_many(CONTENTS)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        seen: set[str] = set()

        def once(request: Request) -> str | None:
            what = f"{request.path} {request.body!r}"
            if not is_deletion(request) or what in seen:
                return None
            seen.add(what)
            return fault

        proxy.fault = once
        assert CALLS[call](shaky)
    assert list(s3.open()) == (sorted(map(ns.blob_hash, CONTENTS[1:])) if call == "delete" else [])
    assert s3.bucket().head(".collecting") is None


def test_deletions_that_are_always_declined_end_with_their_lease(s3: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bucket, "_DELETE_TRIES", 2)
    s3.open().write_many(CONTENTS)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        proxy.fault = lambda request: "busy" if is_deletion(request) and not is_of_lease(request) else None
        with pytest.raises(ns.StoreUnavailableError):
            shaky.collect([], grace=timedelta(0))
    assert s3.bucket().head(".collecting") is None
    assert len(list(s3.open())) == len(CONTENTS)


def test_deletion_without_an_answer_is_sent_once(s3: Place) -> None:
    """It may arrive late."""
    s3.open().write_many(CONTENTS)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        proxy.fault = lambda request: "lose" if is_deletion(request) else None
        with pytest.raises(ns.StoreUnavailableError):
            shaky.delete(ns.blob_hash(CONTENTS[0]))
        assert len(list(filter(is_deletion, proxy.requests))) == 1


@pytest.mark.parametrize("fault", ["refuse", "busy", "lose", "cut"])
@pytest.mark.parametrize("call", LISTINGS)
def test_bad_answer_to_a_listing_does_not_end_it(
    s3: Place, monkeypatch: pytest.MonkeyPatch, call: str, fault: str
) -> None:
    """Each page meets it, the first time that it is asked for."""
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)
    blobs = s3.open()
    blobs.write_many(CONTENTS)
    expected = LISTINGS[call](blobs)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        seen: set[str] = set()

        def once(request: Request) -> str | None:
            if "list-type" not in request.path or request.path in seen:
                return None
            seen.add(request.path)
            return fault

        proxy.fault = once
        assert LISTINGS[call](shaky) == expected
        assert seen


@pytest.mark.parametrize("page", [1, 2, 3])
def test_listing_goes_on_after_the_page_that_broke_off(s3: Place, monkeypatch: pytest.MonkeyPatch, page: int) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)
    place = s3.bucket()
    keys = [f"a/{number:04}" for number in range(2500)]
    s3.open().write_many(CONTENTS)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda key: place.put(key, b""), keys))
    with flaky(port_of(s3)) as proxy:
        listings = 0

        def at_page(request: Request) -> str | None:
            nonlocal listings
            listings += "list-type" in request.path
            return "cut" if listings == page and "list-type" in request.path else None

        proxy.fault = at_page
        found = [one.key for some in before(s3, proxy).bucket().list("a") for one in some]
    assert found == keys
