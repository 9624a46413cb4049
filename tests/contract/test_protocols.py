"""The types of `nerve_store.protocols`: mypy says whether the stores are what they say."""

from __future__ import annotations

import inspect

import pytest

import nerve_store as ns
from contract.backends import available
from nerve_store import protocols
from support import public_methods


def takes_a_log(log: protocols.Log) -> protocols.Log:
    return log


def takes_an_asynchronous_log(log: protocols.AsyncLog) -> protocols.AsyncLog:
    return log


def takes_blobs(blobs: protocols.Blobs) -> protocols.Blobs:
    return blobs


def takes_asynchronous_blobs(blobs: protocols.AsyncBlobs) -> protocols.AsyncBlobs:
    return blobs


def logs(one: ns.LogStore, other: ns.AsyncLogStore, blobs: ns.BlobStore) -> None:
    """Not called: mypy reads it."""
    takes_a_log(one)
    takes_an_asynchronous_log(other)
    takes_blobs(blobs)


def object_blobs(one: ns.ObjectBlobStore, other: ns.AsyncObjectBlobStore) -> None:
    """The same."""
    takes_blobs(one)
    takes_asynchronous_blobs(other)


def members(protocol: type) -> set[str]:
    return {name for name, value in vars(protocol).items() if inspect.isfunction(value) and not name.startswith("_")}


def test_logs_have_every_method_of_the_protocol() -> None:
    assert members(protocols.Log) <= public_methods(ns.LogStore)
    assert members(protocols.Log) <= members(protocols.AsyncLog)
    assert members(protocols.Blobs) <= public_methods(ns.BlobStore)
    if available("postgresql-15") is not None and available("postgresql-18") is not None:
        pytest.skip("psycopg is not installed; make services installs it")
    from nerve_store.postgres import AsyncPostgresLogStore, PostgresLogStore

    def postgres_logs(one: PostgresLogStore, other: AsyncPostgresLogStore) -> None:
        takes_a_log(one)
        takes_an_asynchronous_log(other)

    assert members(protocols.Log) <= public_methods(PostgresLogStore)
    assert members(protocols.AsyncLog) <= public_methods(AsyncPostgresLogStore)


def test_blobs_on_object_stores_have_the_methods_and_the_parameters_of_those_in_a_directory() -> None:
    pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
    assert members(protocols.AsyncBlobs) <= public_methods(ns.AsyncObjectBlobStore)
    names = public_methods(ns.BlobStore)
    assert names <= public_methods(ns.ObjectBlobStore)
    for name in names:
        original, ours = (getattr(owner, name) for owner in (ns.BlobStore, ns.ObjectBlobStore))
        if callable(original):
            (theirs, found) = (inspect.signature(each).parameters.values() for each in (original, ours))
            assert [(one.name, one.default) for one in found] == [(one.name, one.default) for one in theirs], name
