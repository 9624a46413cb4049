"""Blobs in an object store."""

from __future__ import annotations

import errno
import io
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any, BinaryIO, Self, cast

from nerve_store._core import Check
from nerve_store._pages import Pages
from nerve_store._places import check_options
from nerve_store.exceptions import BlobNotFoundError
from nerve_store.records import BlobStats, BlobVerifyReport, CollectReport
from nerve_store.remote.blobs.collect import Collection
from nerve_store.remote.blobs.content import ChangedError, Content, InMemory, Spool, hashed, read_from
from nerve_store.remote.blobs.keys import key_of
from nerve_store.remote.blobs.listing import hash_pages, in_turn, shards
from nerve_store.remote.blobs.pool import THREADS, Pool
from nerve_store.remote.blobs.probe import check_format, prepare
from nerve_store.remote.blobs.read import VERIFIED_FIRST, ObjectBlobReader, digest_of, missing, read
from nerve_store.remote.blobs.turns import wait_for_turns
from nerve_store.remote.blobs.verify import verify
from nerve_store.remote.blobs.write import store
from nerve_store.remote.blobs.writer import ObjectBlobWriter
from nerve_store.remote.bucket import Bucket
from nerve_store.remote.failures import refusal
from nerve_store.types import Data, File, Progress

_HOUR = timedelta(hours=1)


_LONGEST_GRACE = timedelta(days=365_000)
"""A thousand years, in which every object was written, and before which there still are dates."""


class ObjectBlobStore:
    """Content-addressed bytes under a URL of an object store, named by their sha256: `BlobStore`, for many machines.

    Any number of threads, processes and machines may share it. Reads verify the digest and never return wrong bytes.
    A forked child must open its own, and can open none once its parent has used an object store (`ForkedStoreError`).

    - `url`: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` (with `account_name`); for tests,
      `file:///directory` and `memory://name` (which lives as long as the process).
    - `options`: what obstore takes for this kind of store (`endpoint`, `region`, `access_key_id`, …; also
      `credential_provider`) and for HTTP (`allow_http`, `timeout`, …). What is not given comes from the environment,
      such as `AWS_ACCESS_KEY_ID`.
    - `read_only`: refuse every write.
    - `grace`: the least that `collect` is called with while others write.

    Opening it for writing tests once whether the store creates objects atomically, and refuses it if not
    (`StoreIOError`). A store that gives no answer is a `StoreUnavailableError`.

    `hash in store` is `exists(hash, verify=False)`. Iterating yields the hashes of all blobs, in order; a blob that is
    written or deleted meanwhile may or may not come up.
    """

    def __init__(
        self,
        url: str,
        *,
        options: Mapping[str, Any] | None = None,
        read_only: bool = False,
        grace: timedelta = _HOUR,
    ) -> None:
        place = Check.text(url, "url")
        check_options(options, "options")
        self._is_read_only = Check.flag(read_only, "read_only")
        self._grace = _checked_grace(grace)
        self._bucket = Bucket(place, options or {})
        self._threads = Pool()
        if read_only:
            check_format(self._bucket)
        else:
            prepare(self._bucket)

    @property
    def root(self) -> str:
        """The URL, without credentials."""
        return self._bucket.place

    def write(self, data: Data, *, verify: bool = False) -> str:
        """Store `data` (text as UTF-8) and return its sha256, lowercase hex.

        Idempotent. A blob of the same size that is there is relied on, or with `verify` read and replaced if it is
        damaged. When this returns, the blob is as durable as the object store makes it, and for half of `grace` no
        `collect` deletes it.
        """
        self._check_writable()
        is_verified = Check.flag(verify, "verify")
        return self._store(InMemory.of(Check.data(data)), verify=is_verified)

    def write_many(self, items: Iterable[Data], *, verify: bool = False) -> list[str]:
        """Store many items, up to 32 at the same time, and return their hashes, in their order.

        All are stored when this returns; if it raises, some of them may have been, and none is acknowledged. A
        generator may yield any number.
        """
        self._check_writable()
        is_verified, given = Check.flag(verify, "verify"), Check.items(items)

        def write(item: tuple[int, Data]) -> str:
            index, data = item
            return self._store(InMemory.of(Check.data(data, index)), verify=is_verified)

        return list(in_turn(self._pool(), write, enumerate(given), at_once=2 * THREADS))

    def write_file(self, file: File, *, verify: bool = False) -> str:
        """Store the content of a file, in constant memory, and return its sha256, lowercase hex.

        `file` is a path, or an object whose `read(size)` returns bytes; such an object is read from where it stands,
        into a temporary file if it is large, and stays open. A path that cannot be read is an `OSError`.
        """
        self._check_writable()
        Check.flag(verify, "verify")
        if not hasattr(file, "read"):
            Check.path(file, "file")
            with open(file, "rb") as opened:
                if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                    return self._write_stream(opened, verify=verify)
                try:
                    return self._store(hashed(opened), verify=verify)
                except ChangedError:  # it is being written to: store what one reading finds
                    opened.seek(0)
                    return self._write_stream(opened, verify=verify)
        return self._write_stream(file, verify=verify)

    def _write_stream(self, file: Any, *, verify: bool) -> str:
        spool = Spool()
        try:
            read_from(file, spool)
            return self._store(spool.content(), verify=verify)
        finally:
            spool.close()

    def writer(self, *, verify: bool = False) -> ObjectBlobWriter:
        """A file to write to, whose content becomes a blob when it is closed."""
        self._check_writable()
        is_verified = Check.flag(verify, "verify")
        return ObjectBlobWriter(lambda content: self._store(content, verify=is_verified))

    def _store(self, content: Content, *, verify: bool) -> str:
        return store(self._bucket, content, grace=self._grace, verify=verify)

    def read(self, hash: str) -> bytes | None:
        """The bytes under `hash`; None if there are none, or if it is no sha256. `BlobCorruptError` if they differ."""
        name = Check.hash(hash)
        if name is None:
            return None
        try:
            return read(self._bucket, name)
        except BlobNotFoundError:  # deleted while it was read
            return None

    def open(self, hash: str) -> BinaryIO:
        """The blob as a file to read from, in constant memory; `BlobNotFoundError` if there is none.

        Bytes are verified as they are read. A blob of up to 4 MiB is verified before its first byte is returned. The
        last bytes of a larger one are withheld until all are verified: a caller that reads to the end has read the
        blob, or gets `BlobCorruptError`. Do not act on bytes before the end. A blob that is deleted meanwhile is a
        `BlobNotFoundError` of a later read. The file cannot seek.
        """
        raw = ObjectBlobReader(self._bucket, self._name(hash), self.size(hash))
        return cast(BinaryIO, io.BufferedReader(raw, VERIFIED_FIRST))

    def exists(self, hash: str, *, verify: bool = True) -> bool:
        """Whether the blob is there and its bytes match; `verify` False: whether an object is there."""
        name, is_read = Check.hash(hash), Check.flag(verify, "verify")
        found = None if name is None else self._bucket.head(key_of(name))
        if name is None or found is None:
            return False
        if not is_read:
            return True
        try:
            return digest_of(self._bucket, name, found.size) == name
        except BlobNotFoundError:
            return False

    def verify(self, *, progress: Progress | None = None) -> BlobVerifyReport:
        """Read every blob, several at the same time.

        A damaged one is copied to `quarantine/`, deleted (not with `read_only`) and reported; the next write of its
        content heals it. `progress` is called with (done, total) bytes.
        """
        Check.progress(progress)
        return verify(self._bucket, self._pool(), is_writable=not self._is_read_only, progress=progress)

    def collect(
        self,
        keep: Iterable[str],
        *,
        grace: timedelta = _HOUR,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> CollectReport:
        """Delete the blobs that are not in `keep` and were not written for `grace`, by default an hour.

        Choose `grace` at least twice as long as it takes from the beginning of a write until its hash can be in `keep`,
        and not shorter than the `grace` of the stores that write; then any number of writers on any number of machines
        may go on meanwhile. With less, there must be none. What is no sha256 in `keep` is a `ValueError`, and nothing
        is deleted. `progress` is called with (done, total) shards. Another `collect` or `verify` that is deleting is
        waited for (`StoreBusyError` after three minutes).
        """
        oldest, is_dry = _checked_grace(grace), Check.flag(dry_run, "dry_run")
        Check.progress(progress)
        if not is_dry:
            self._check_writable()
        names = frozenset(Check.keep(keep))
        return Collection(self._bucket, self._pool(), names, oldest, is_dry).run(progress)

    def delete(self, hash: str) -> bool:
        """Remove the blob; False if there was none. It waits for a `collect` that is deleting."""
        self._check_writable()
        name = Check.hash(hash)
        if name is None or self._bucket.head(key_of(name)) is None:
            return False
        wait_for_turns(self._bucket)
        self._bucket.delete([key_of(name)])
        return True

    def size(self, hash: str) -> int:
        """The blob's size in bytes, as the store says; `BlobNotFoundError` if there is none."""
        name = self._name(hash)
        found = self._bucket.head(key_of(name))
        if found is None:
            raise missing(self._bucket, name)
        return found.size

    def stats(self) -> BlobStats:
        """How many blobs there are and how many bytes they hold; lists all of them."""
        count = size = 0
        for shard in shards(self._bucket, self._pool()):
            count += len(shard)
            size += sum(one.size for one in shard)
        return BlobStats(self.root, count, size)

    def close(self) -> None:
        """Let go of the threads; calls under way, and the next one, make new ones. There is nothing else to close."""
        if not self._bucket.is_inherited:
            self._threads.close()

    def _name(self, hash: str) -> str:
        name = Check.hash(hash)
        if name is None:
            raise missing(self._bucket, hash.encode(errors="surrogatepass").decode(errors="replace"))
        return name

    def _check_writable(self) -> None:
        if self._is_read_only:
            raise refusal(errno.EROFS, "the store was opened with read_only", self.root)

    def _pool(self) -> Pool:
        self._bucket.check()
        return self._threads

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __contains__(self, hash: str) -> bool:
        return self.exists(hash, verify=False)

    def __iter__(self) -> Iterator[str]:
        return Pages(lambda last, _: hash_pages(self._bucket, self._pool(), last or ""), self._bucket.check)

    def __repr__(self) -> str:
        return f"ObjectBlobStore({self.root!r})"


def _checked_grace(grace: timedelta) -> timedelta:
    return min(Check.span(grace, "grace"), _LONGEST_GRACE)
