"""Doubtful and missing answers: what is acknowledged is stored, and nothing wrong is read."""

from __future__ import annotations

import os
import random
import re
import subprocess
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place, made
from support import child_environment, is_one_line, objects
from support.flaky import FAULTS, Flaky, Request, flaky

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")

from nerve_store.remote import bucket
from nerve_store.remote.blobs import content
from nerve_store.remote.bucket import Bucket

Patch = pytest.MonkeyPatch
HASH = ns.blob_hash(b"x")
MIB = 1 << 20


def before(place: Place, proxy: Flaky) -> Place:
    """The same bucket by way of the proxy."""
    return Place(place.name, place.path, place.url, objects.S3Server.options(proxy.port))


def port_of(place: Place) -> int:
    return int(place.options["endpoint"].rpartition(":")[2])


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch: Patch) -> None:
    retries = {"max_retries": 6, "retry_timeout": timedelta(seconds=60), "backoff": {
        "init_backoff": timedelta(milliseconds=2), "max_backoff": timedelta(milliseconds=20), "base": 2.0}}  # fmt: skip
    monkeypatch.setattr(bucket, "_RETRIES", retries)


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_acknowledged_by_a_bad_server_is_there(s3: Place, fault: str) -> None:
    """Each request but a deletion meets a fault at its first try."""
    blobs = s3.open()
    seen: set[tuple[str, str]] = set()

    def once(request: Request) -> str | None:
        # A conflict is an answer to a conditional put alone.
        is_conditional = request.method == "PUT" and "uploadId" not in request.path
        if request.method == "DELETE" or (fault == "conflict" and not is_conditional):
            return None
        what = (request.method, re.sub("uploadId=[^&]*", "", request.path))
        if what in seen:
            return None
        seen.add(what)
        return fault

    contents = [b"x", b"", random.Random(1).randbytes(3 * MIB), random.Random(2).randbytes(20 * MIB)]
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        proxy.fault = once
        for data in contents:
            hash = shaky.write(data)
            assert hash == ns.blob_hash(data)
            assert blobs.read(hash) == data
            assert shaky.read(hash) == data
        assert seen
    assert blobs.verify().ok


def test_success_that_was_answered_only_the_second_time_is_one(s3: Place) -> None:
    """The client sends the request again and is told that the object exists: its own."""
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        first = len(proxy.requests)
        proxy.fault = lambda request: "lose" if request.number == first else None
        assert shaky.write("x") == HASH
        assert [request.method for request in proxy.requests[first:]] == ["PUT", "PUT", "HEAD"]
    assert s3.open().read(HASH) == b"x"


def test_conflict_that_stored_nothing_is_no_success(s3: Place, monkeypatch: Patch) -> None:
    """The control believes what the client calls AlreadyExists, and acknowledges what is not there."""
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        first = len(proxy.requests)

        def conflict(request: Request) -> str | None:
            return "conflict" if request.method == "PUT" and request.number < first + 9 else None

        proxy.fault = conflict
        assert shaky.write("x") == HASH
        assert s3.open().read(HASH) == b"x"
        shaky.delete(HASH)
        first = len(proxy.requests)
        found = Bucket.head

        def believed(self: Bucket, key: str) -> Any:
            return found(self, key) or bucket.Found(key, 1, datetime.now(UTC), "tag")

        monkeypatch.setattr(Bucket, "head", believed)
        assert shaky.write("x") == HASH
    assert s3.open().read(HASH) is None


@pytest.mark.parametrize("what", ["source", "server"])
def test_torn_upload_of_a_large_blob_leaves_nothing_and_can_be_repeated(
    s3: Place, tmp_path: Path, monkeypatch: Patch, what: str
) -> None:
    data = random.Random(3).randbytes(25 * MIB)
    source = tmp_path / "source"
    source.write_bytes(data)
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        if what == "server":
            proxy.fault = lambda request: "busy" if "partNumber=2" in request.path else None
            with pytest.raises(ns.StoreUnavailableError) as caught:
                shaky.write_file(source)
            assert is_one_line(caught.value)
        else:
            original = content.InFile._pieces

            def torn(self: content.InFile) -> Any:
                for number, piece in enumerate(original(self)):
                    if number == 2:
                        raise OSError(5, "broken")
                    yield piece

            with monkeypatch.context() as patch:
                patch.setattr(content.InFile, "_pieces", torn)
                with pytest.raises(OSError, match="broken"):
                    shaky.write_file(source)
        assert list(s3.open()) == []
        proxy.fault = None
        assert shaky.write_file(source) == ns.blob_hash(data)
    assert s3.open().read(ns.blob_hash(data)) == data


def test_file_that_changes_while_it_is_sent_is_stored_as_one_reading_finds_it(
    s3: Place, tmp_path: Path, monkeypatch: Patch
) -> None:
    data = bytes(20 * MIB)
    source = tmp_path / "source"
    source.write_bytes(data)
    original = content.hashed

    def changed_after(file: Any) -> Any:
        result = original(file)
        with source.open("r+b") as other:
            other.write(b"changed")
        return result

    monkeypatch.setattr("nerve_store.remote.blobs.store.hashed", changed_after)
    blobs = s3.open()
    now = b"changed" + data[7:]
    assert blobs.write_file(source) == ns.blob_hash(now)
    assert list(blobs) == [ns.blob_hash(now)]
    assert blobs.read(ns.blob_hash(now)) == now


def test_server_that_is_away_is_unavailable(s3: Place, monkeypatch: Patch) -> None:
    monkeypatch.setattr(bucket, "_RETRIES", bucket._NO_RETRIES)
    with flaky(port_of(s3)) as proxy, before(s3, proxy).open() as shaky:
        hash = shaky.write("x")
        proxy.fault = lambda _: "refuse"
        for call in (
            lambda: shaky.write("y"), lambda: shaky.read(hash), lambda: shaky.exists(hash), lambda: list(shaky),
            lambda: shaky.delete(hash), shaky.stats, shaky.verify, lambda: shaky.collect([], grace=timedelta(0)),
        ):  # fmt: skip
            with pytest.raises(ns.StoreUnavailableError) as caught:
                call()
            assert isinstance(caught.value, ConnectionError)
            assert caught.value.path is not None
            assert caught.value.path.startswith("s3://bucket-")
            assert is_one_line(caught.value)
        proxy.fault = None
        assert shaky.read(hash) == b"x"


def test_wrong_secret_is_refused_and_not_shown(tmp_path: Path) -> None:
    place = made("s3-versitygw", tmp_path)
    options = place.options | {"secret_access_key": "not-the-secret"}
    with pytest.raises(ns.StoreIOError) as caught:
        ns.ObjectBlobStore(place.url, options=options)
    assert caught.value.errno == 13
    assert is_one_line(caught.value)
    assert "not-the-secret" not in "".join(traceback.format_exception(caught.value))


def test_bucket_that_is_not_there_is_refused(s3: Place) -> None:
    with pytest.raises(ns.StoreIOError) as caught:
        ns.ObjectBlobStore("s3://no-such-bucket", options=s3.options)
    assert is_one_line(caught.value)


@pytest.mark.parametrize("url", ["ftp://host/x", "blobs", "https://example.org/x", "", "s3:"])
def test_url_of_no_object_store_is_a_value_error(url: str) -> None:
    with pytest.raises(ValueError, match="object store"):
        ns.ObjectBlobStore(url)


def test_arguments_of_another_kind_are_refused(memory: Place) -> None:
    for options in ({"grace": 3}, {"read_only": 1}, {"options": 3}):
        with pytest.raises(TypeError):
            ns.ObjectBlobStore(memory.url, **options)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ns.ObjectBlobStore(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="negative"):
        memory.open().collect([], grace=timedelta(-1))


# --- what the store must be --------------------------------------------------------------------------------------


def test_store_that_does_not_create_atomically_is_refused(memory: Place, monkeypatch: Patch) -> None:
    original: Callable[[Bucket, str, bytes], bool] = Bucket.create

    def create(self: Bucket, key: str, data: bytes) -> bool:
        """Looks, waits until all have looked, and puts."""
        if self.head(key) is not None:
            return False
        with suppress(threading.BrokenBarrierError):
            together.wait()
        self.put(key, data)
        return True

    together = threading.Barrier(8, timeout=5)
    monkeypatch.setattr(Bucket, "create", create)
    with pytest.raises(ns.StoreIOError, match="atomically"):
        memory.open()
    assert memory.bucket().head(".nerve-store") is None
    monkeypatch.setattr(Bucket, "create", original)
    memory.open().write("x")
    assert [one.key for page in memory.bucket().list() for one in page] == [".nerve-store", f"{HASH[:2]}/{HASH[2:]}"]


@pytest.mark.parametrize("conflicts", [7, 8, 9])
def test_conflicts_that_store_nothing_are_no_reason_to_refuse_a_store(
    memory: Place, monkeypatch: Patch, conflicts: int
) -> None:
    """S3 may answer so to all that create the same object at the same time."""
    original: Callable[[Bucket, str, bytes], bool] = Bucket.create
    asked: Counter[str] = Counter()
    lock = threading.Lock()

    def create(self: Bucket, key: str, data: bytes) -> bool:
        with lock:
            asked[key] += key.startswith(".probe")
            return not 0 < asked[key] <= conflicts and original(self, key, data)

    monkeypatch.setattr(Bucket, "create", create)
    memory.open()
    assert memory.bucket().head(".nerve-store") is not None


def test_store_is_probed_once(memory: Place, monkeypatch: Patch) -> None:
    memory.open()
    monkeypatch.setattr("nerve_store.remote.blobs.probe._race", None)
    memory.open()


def test_blobs_of_a_newer_version_are_left_alone(memory: Place) -> None:
    memory.bucket().put(".nerve-store", b'{"format": 2}')
    for options in ({}, {"read_only": True}):
        with pytest.raises(ns.SchemaVersionError) as caught:
            memory.open(**options)
        assert (caught.value.found, caught.value.supported) == (2, 1)


def test_forked_child_is_told_to_open_its_own(s3: Place) -> None:
    """The client would hang in the child."""
    blobs = s3.open()
    blobs.write_many(["x", "y"])
    calls = (
        lambda: blobs.read(HASH), lambda: blobs.write("z"), lambda: blobs.write_many(["z"]), lambda: list(blobs),
        blobs.stats, lambda: blobs.delete(HASH), lambda: blobs.open(HASH), lambda: blobs.collect([]), blobs.verify,
    )  # fmt: skip
    child = os.fork()
    if child == 0:
        forked = 0
        for call in calls:
            try:
                call()
            except ns.ForkedStoreError:
                forked += 1
        blobs.close()
        os._exit(0 if forked == len(calls) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert blobs.read(HASH) == b"x"


def test_credentials_in_a_url_are_not_shown() -> None:
    assert bucket.without_credentials("s3://key:secret@bucket/p/?token=1#x") == "s3://bucket/p"
    assert bucket.without_credentials("az://container@account/p/") == "az://container@account/p"


def test_write_many_stops_at_the_first_error(memory: Place, monkeypatch: Patch) -> None:
    blobs = memory.open()
    original = Bucket.create

    def create(self: Bucket, key: str, data: bytes) -> bool:
        if data == b"7":
            raise ns.StoreUnavailableError("no answer")
        return original(self, key, data)

    monkeypatch.setattr(Bucket, "create", create)
    taken: list[int] = []

    def items() -> Any:
        for number in range(10_000):
            taken.append(number)
            yield str(number)

    with pytest.raises(ns.StoreUnavailableError):
        blobs.write_many(items())
    assert len(taken) < 200


def test_reader_and_deleter_at_the_same_time(s3: Place) -> None:
    """A blob that is deleted while it is read is not found, and no wrong byte is taken for it."""
    data = random.Random(4).randbytes(40 * MIB)
    blobs = s3.open()
    hash = blobs.write(data)
    with blobs.open(hash) as file:
        file.read(1)
        assert blobs.delete(hash)
        with pytest.raises(ns.BlobNotFoundError):
            file.read()
    assert blobs.read(hash) is None


def test_writers_of_the_same_blob_agree(s3: Place) -> None:
    stores = [s3.open() for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        for number in range(10):
            hashes = list(pool.map(lambda store, number=number: store.write(f"same {number}"), stores))
            assert set(hashes) == {ns.blob_hash(f"same {number}")}
    assert len(list(stores[0])) == 10


INTERRUPTED = """
import os, signal, socket, sys, threading, time
import nerve_store as ns

class Away:
    \"\"\"A server that takes connections and never answers.\"\"\"
    def __init__(self):
        self.socket = socket.socket()
        self.socket.bind(("127.0.0.1", 0))
        self.socket.listen(50)
        self.port = self.socket.getsockname()[1]

blobs = ns.ObjectBlobStore(sys.argv[1], options=eval(sys.argv[2]))
hash = blobs.write("x")
from nerve_store.remote.bucket import Bucket
away = Away()
options = eval(sys.argv[2]) | {"endpoint": f"http://127.0.0.1:{away.port}", "timeout": "200s"}
blobs._bucket = Bucket(sys.argv[1], options)
calls = {
    "read": lambda: blobs.read(hash), "write": lambda: blobs.write("y"), "list": lambda: list(blobs),
    "write_many": lambda: blobs.write_many(["y"] * 100), "delete": lambda: blobs.delete(hash),
    "write_file": lambda: blobs.write_file(__file__ if "__file__" in globals() else sys.executable),
}
threading.Timer(1, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
try:
    calls[sys.argv[3]]()
except KeyboardInterrupt:
    print("interrupted", flush=True)
    os._exit(0)
"""


@pytest.mark.parametrize("call", ["read", "write", "list", "write_many", "write_file", "delete"])
def test_ctrl_c_ends_a_call_to_a_server_that_does_not_answer(tmp_path: Path, call: str) -> None:
    """The client itself would wait for 200 seconds."""
    place = made("s3-versitygw", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, place.url, repr(place.options), call],
        env=child_environment(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.stdout == "interrupted\n", done.stderr
