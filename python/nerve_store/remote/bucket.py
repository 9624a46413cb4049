"""One place in an object store: the only file that calls obstore."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

import obstore
from obstore import exceptions
from obstore.store import LocalStore, MemoryStore, ObjectStore, S3Store, from_url

from nerve_store._places import check_query, error_at, without_login
from nerve_store.exceptions import ForkedStoreError, StoreUnavailableError
from nerve_store.remote.failures import ShortObjectError, first_line, is_declined, told, told_of_files, unavailable
from nerve_store.remote.interruptible import interruptible
from nerve_store.remote.link import Link

PAGE = 1000
"""Keys of one answer to a listing."""
PART_BYTES = 8 << 20
"""What is sent or fetched at a time of an object that is larger."""
_PARTS_AT_ONCE = 3
"""Parts that are sent at the same time: a link of 0.5 MB/s sends them within `_UPLOAD`."""
_MOST_SENT = 2 * _PARTS_AT_ONCE * PART_BYTES
"""Bytes that all requests send at the same time: a link of 1 MB/s sends them within `_UPLOAD`."""
_SMALL_BODY = 256 << 10
"""What a request may send without asking whether others send: 32 of them are little."""
_TRIES = 3
_PATIENCE = 20.0
"""Seconds after which no request is begun anew."""
_CONFLICTS = 10
"""How often an object is created anew where a conflict has stored nothing, each time after a longer pause."""
_PAUSE = 0.02
_DELETE_TRIES = 5
_DELETE_PATIENCE = 10.0
"""Seconds after which a deletion that was declined is not begun anew, so that a lease outlives each of them."""
_BULK = 500
"""Objects that one request deletes, where one request can delete several."""

_RETRIES: dict[str, Any] = {
    "max_retries": 6,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {"init_backoff": timedelta(milliseconds=100), "max_backoff": timedelta(seconds=5), "base": 2.0},
}
_NO_RETRIES: dict[str, Any] = {"max_retries": 0, "retry_timeout": timedelta(0)}
_CLIENT_OPTIONS = frozenset(
    "allow_http allow_invalid_certificates connect_timeout default_content_type default_headers http1_only "
    "http2_keep_alive_interval http2_keep_alive_timeout http2_keep_alive_while_idle http2_only pool_idle_timeout "
    "pool_max_idle_per_host proxy_url proxy_ca_certificate proxy_excludes root_certificate randomize_addresses "
    "read_timeout timeout user_agent".split()
)
_VARIABLES = {"s3": "AWS_", "gs": "GOOGLE_", "az": "AZURE_"}
_CLIENT: dict[str, Any] = {
    "connect_timeout": timedelta(seconds=5),
    "read_timeout": timedelta(seconds=30),
    "timeout": timedelta(seconds=120),
}
"""A server may be silent for half a minute; parts that come may take longer, down to 0.25 MB/s."""
_UPLOAD: dict[str, Any] = _CLIENT | {"read_timeout": timedelta(seconds=60), "timeout": timedelta(seconds=60)}
"""The same of what is sent and not small: the client counts the sending as silence."""
_TIMES = frozenset(
    "connect_timeout http2_keep_alive_interval http2_keep_alive_timeout pool_idle_timeout read_timeout timeout".split()
)
_MOST_SECONDS = 1e9
_YES = frozenset(("1", "true", "on", "yes", "y"))
DELETE_TIMEOUT = timedelta(seconds=20)
"""After this a request to delete has ended, whether it was answered or not."""

SCHEMES = ("s3", "gs", "az", "file", "memory")

_Answer = TypeVar("_Answer")

_of_client: int | None = None
"""The process that made the first request, of this one's ancestors or itself.

The client has one runtime a process, which begins with the first request and cannot begin anew: its threads are missing
in a forked child, where every request would hang.
"""
_memory: dict[str, MemoryStore] = {}
"""The stores of `memory:` URLs: one a URL, as long as the process lives."""


@dataclass(frozen=True, slots=True)
class Found:
    """An object."""

    key: str
    size: int
    modified: datetime
    """By the server's clock."""
    tag: str | None


class Bucket:
    """The objects under a URL. Threads share it; a forked child must not use it.

    Once a process has made a request, its forked children can open no bucket, either (`ForkedStoreError`).
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        check_query(url, "url")
        self.place = without_credentials(url)
        self._process = os.getpid()
        self.check()
        # Others report a missing object as the error of the whole request, which may have deleted some of the rest.
        self.deletions = _BULK if urlsplit(url).scheme == "s3" else 1
        config, client = _divided(options)
        given = _of_environment(urlsplit(url).scheme) | client
        self._store = _opened(url, config, _with(_CLIENT, given), _RETRIES)
        self._uploads = _opened(url, config, _with(_UPLOAD, given), _RETRIES)
        self._once = _opened(url, config, _with(_CLIENT, given) | {"timeout": DELETE_TIMEOUT}, _NO_RETRIES)
        self._link = Link(_MOST_SENT)

    @property
    def is_inherited(self) -> bool:
        """Whether this process was forked from the one that opened the bucket."""
        return os.getpid() != self._process

    def check(self) -> None:
        """`ForkedStoreError` in a process that was forked from the one that opened the bucket, or used another one."""
        if not self.is_inherited and _of_client in (None, os.getpid()):
            return
        raise error_at(
            ForkedStoreError,
            self.place,
            "this process was forked from one that had opened an object store, whose client works in no "
            "child; begin the child by spawn or forkserver, or fork before, and open the store in the child",
        )

    def _begin(self) -> None:
        """Called before each request."""
        global _of_client  # noqa: PLW0603 - the client's runtime is the process's
        self.check()
        _of_client = os.getpid()

    def _asked(self, key: str, ask: Callable[[], _Answer]) -> _Answer:
        """The answer to a request that may be repeated.

        The client repeats most of what fails by itself, but not a body that breaks off.
        """
        self._begin()
        end = time.monotonic() + _PATIENCE
        for left in reversed(range(_TRIES)):
            try:
                with told(self.name(key)):
                    return interruptible(ask)
            except StoreUnavailableError:
                if not left or time.monotonic() > end:
                    raise
        raise AssertionError

    def name(self, key: str) -> str:
        """The URL of an object."""
        return f"{self.place}/{key}"

    def create(self, key: str, data: bytes) -> bool:
        """Store an object if there is none; whether this call is known to have done so.

        False is no proof that an object is there: a conflict that stored nothing says the same, and so does a request
        that had stored it and was sent again.
        """

        def create() -> bool:
            try:
                self._send(key, data, mode="create")
            except exceptions.AlreadyExistsError:
                return False
            return True

        return self._asked(key, create)

    def _send(self, key: str, data: bytes, **options: Any) -> None:
        if len(data) <= _SMALL_BODY:
            obstore.put(self._store, key, data, use_multipart=False, **options)
            return
        with self._link.sending(len(data)):
            obstore.put(self._uploads, key, data, use_multipart=False, **options)

    def create_unless_there(self, key: str, data: bytes) -> bool:
        """Store an object, or find one there; whether this call is known to have stored it.

        Requests that conflict with others and store nothing are made again, some times.
        """
        for attempt in range(_CONFLICTS):
            time.sleep(_PAUSE * attempt)
            if self.create(key, data):
                return True
            if self.head(key) is not None:
                return False
        raise unavailable(RuntimeError("it says that an object is there, and there is none"), self.name(key))

    def put(self, key: str, data: bytes) -> None:
        """Store an object, whatever was there."""
        self._asked(key, lambda: self._send(key, data))

    def replace(self, key: str, data: bytes, tag: str | None) -> bool:
        """Store an object in place of the one that has this tag; whether it was still there."""
        self._begin()
        with told(self.name(key)):
            if isinstance(self._store, LocalStore):  # it cannot compare; a directory has one machine's processes
                obstore.put(self._store, key, data)
                return True
            try:
                interruptible(lambda: obstore.put(self._store, key, data, mode={"e_tag": tag}))
            except (exceptions.PreconditionError, exceptions.AlreadyExistsError, FileNotFoundError):
                return False
        return True

    def upload(self, key: str, pieces: Callable[[], Iterable[bytes | memoryview]]) -> None:
        """Store an object of any size, part by part; it is there as a whole or not at all.

        An exception of `pieces` ends the upload. One that the server ended is begun anew.
        """

        def upload() -> None:
            try:
                with self._link.sending(_PARTS_AT_ONCE * PART_BYTES):
                    obstore.put(
                        self._uploads,
                        key,
                        iter(pieces()),
                        use_multipart=True,
                        chunk_size=PART_BYTES,
                        max_concurrency=_PARTS_AT_ONCE,
                    )
            except FileNotFoundError as error:
                # The upload had ended, and the answer to that was lost: the client could not give it up any more.
                raise unavailable(error, self.name(key)) from error

        self._asked(key, upload)

    def get(self, key: str, *, longest: int) -> bytes | int | None:
        """The bytes of an object, or its size if that is larger than `longest`; None if there is none."""

        def get() -> bytes | int | None:
            try:
                answer = obstore.get(self._store, key)
            except FileNotFoundError:
                return None
            size = answer.meta["size"]
            return size if size > longest else bytes(answer.bytes())

        return self._asked(key, get)

    def get_parts(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> list[bytes] | None:
        """Parts of an object, fetched at the same time; None if there is no object.

        `ShortObjectError` if it does not reach so far (any more).
        """

        def get() -> list[bytes] | None:
            try:
                parts = obstore.get_ranges(self._store, key, starts=starts, lengths=lengths, coalesce=0)
            except FileNotFoundError:
                return None
            return [bytes(part) for part in parts]

        try:
            parts = self._asked(key, get)
        except StoreUnavailableError:
            # Clients also answer so when a part lies beyond the end.
            self._check_reach(key, starts, lengths)
            raise
        if parts is not None and [len(part) for part in parts] != list(lengths):
            self._check_reach(key, starts, lengths)
            raise unavailable(RuntimeError("it sent other parts than were asked for"), self.name(key))
        return parts

    def _check_reach(self, key: str, starts: Sequence[int], lengths: Sequence[int]) -> None:
        found = self.head(key)
        end = max((start + length for start, length in zip(starts, lengths, strict=True)), default=0)
        if found is not None and found.size < end:
            raise ShortObjectError(f"it has {found.size} bytes, and should have {end} or more")

    def head(self, key: str) -> Found | None:
        """What the store says of an object; None if there is none."""

        def head() -> Found | None:
            try:
                return _found(obstore.head(self._store, key))
            except FileNotFoundError:
                return None

        return self._asked(key, head)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, at the most `deletions`.

        A request without an answer is not sent again, since it may arrive late; one that was declined is.
        """
        self._begin()
        paths = keys[0] if len(keys) == 1 else keys
        end, pause = time.monotonic() + _DELETE_PATIENCE, 0.05
        for left in reversed(range(_DELETE_TRIES)):
            try:
                with told(self.place), contextlib.suppress(FileNotFoundError):
                    interruptible(lambda: obstore.delete(self._once, paths))
            except StoreUnavailableError as error:
                if not left or not is_declined(error) or time.monotonic() + pause > end:
                    raise
                time.sleep(pause)
                pause *= 3
            else:
                return

    def copy(self, source: str, target: str) -> bool:
        """Copy an object within the store; whether there was one."""
        self._begin()
        with told(self.name(source)):
            try:
                interruptible(lambda: obstore.copy(self._store, source, target))
            except FileNotFoundError:
                return False
        return True

    def signed(self, key: str) -> str | None:
        """A URL by which anyone can ask for the headers of an object for a minute; None where the kind has none."""
        self._begin()
        if not isinstance(self._store, S3Store):
            return None
        with told(self.name(key)):
            return obstore.sign(self._store, "HEAD", key, timedelta(minutes=1))

    def list(self, folder: str | None = None) -> Iterator[list[Found]]:
        """All objects under `folder`, page by page, in whatever order the store has.

        What breaks off goes on after the last key, unless the keys so far do not ascend.
        """
        self._begin()
        pages, last, ascends, left = self._pages(folder, None), "", True, _TRIES - 1
        while True:
            try:
                with told(self.place):
                    page = interruptible(partial(next, pages, None))
            except StoreUnavailableError:
                if not left or not ascends:
                    raise
                pages, left = self._pages(folder, last or None), left - 1
                continue
            if not page:
                return
            keys = [meta["path"] for meta in page]
            ascends, last, left = ascends and [last, *keys] == sorted([last, *keys]), keys[-1], _TRIES - 1
            yield [_found(meta) for meta in page]

    def _pages(self, folder: str | None, last: str | None) -> Iterator[Sequence[Any]]:
        """What there is after the key `last`."""
        with told(self.place):
            return obstore.list(self._store, folder, offset=last, chunk_size=PAGE)


def _found(meta: Any) -> Found:
    return Found(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])


def _divided(options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The options of the service, and those of the HTTP client."""
    options = {_checked_name(name): _checked(name, value) for name, value in options.items()}
    client = {name: value for name, value in options.items() if name in _CLIENT_OPTIONS}
    return {name: value for name, value in options.items() if name not in _CLIENT_OPTIONS}, client


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"the name of an option must be str, not {type(name).__name__}")
    return name


def _checked(name: str, value: Any) -> Any:
    """The option as the client takes it: numbers are text, and seconds where it wants a time."""
    if name == "credential_provider" or (name == "default_headers" and isinstance(value, Mapping)):
        return value
    if isinstance(value, str | bool) or (isinstance(value, timedelta) and name in _TIMES):
        return value
    if not isinstance(value, int | float):
        raise TypeError(f"the option {name} must be str, bool or a number, not {type(value).__name__}")
    if name not in _TIMES:
        return str(value)
    if not 0 <= value < _MOST_SECONDS:
        raise ValueError(f"the option {name} is a number of seconds, not {value}")
    return timedelta(seconds=value)


def _with(ours: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """The options of the client; a `timeout` that was given takes the place of the shorter ones of ours."""
    if "timeout" in given:
        ours = {name: value for name, value in ours.items() if name != "read_timeout"}
    return ours | given


def _of_environment(scheme: str) -> dict[str, str]:
    """The options of the HTTP client there: those that are passed on would take the place of all of them."""
    prefix = _VARIABLES.get(scheme)
    if prefix is None:
        return {}
    named = ((name, os.environ.get(f"{prefix}{name.upper()}")) for name in _CLIENT_OPTIONS)
    return {name: value for name, value in named if value}


def _opened(url: str, config: dict[str, Any], client: dict[str, Any], retries: dict[str, Any]) -> ObjectStore:
    scheme = urlsplit(url).scheme
    if scheme == "memory":
        return _memory.setdefault(url, MemoryStore())
    if scheme == "file":
        try:
            with told_of_files(url):
                return LocalStore.from_url(url, mkdir=True)
        except (exceptions.BaseError, ValueError) as error:
            raise ValueError(f"{url!r} names no directory of this machine: give file:///directory") from error
    if scheme not in SCHEMES or (scheme not in {"file", "memory"} and not urlsplit(url).netloc):
        known = ", ".join(f"{one}://" for one in SCHEMES)
        raise ValueError(f"{without_login(url)!r} is no place in an object store: begin with {known}")
    provider = {name: config[name] for name in ("credential_provider",) if name in config}
    rest: Any = {name: value for name, value in config.items() if name not in provider}
    arguments: Any = {"config": rest, "client_options": client, "retry_config": retries, **provider}
    _check_endpoint(scheme, rest, may_be_plain=_allows_http(client | rest))
    try:
        return from_url(url, **arguments)
    except exceptions.BaseError as error:
        shown = without_login(url)
        raise ValueError(f"{shown}: an option is wrong: {first_line(error).replace(url, shown)}") from None
    except (ValueError, TypeError) as error:
        shown = without_login(url)
        reason = first_line(error).replace(url, shown)
        raise type(error)(f"{shown!r} is no URL, or an option is wrong: {reason}") from None


def _allows_http(options: Mapping[str, Any]) -> bool:
    """Whether the service may be spoken to without encryption."""
    named = (value for name, value in options.items() if name.lower().endswith("allow_http"))
    return any(value is True or str(value).lower() in _YES for value in named)


def _check_endpoint(scheme: str, config: Mapping[str, Any], *, may_be_plain: bool) -> None:
    """What is no URL would end the client in a panic with the first request; it sends nothing to one of http alone."""
    named = {name: os.environ.get(f"{_VARIABLES[scheme]}{name.upper()}") for name in ("endpoint", "endpoint_url")}
    for name, value in (named | dict(config)).items():
        is_endpoint = name.lower().removesuffix("_url").endswith("endpoint")
        if is_endpoint and value and not str(value).startswith(("http://", "https://")):
            raise ValueError(f"{name} is a URL that begins with http:// or https://, not {str(value)[:80]!r}")
        if is_endpoint and not may_be_plain and str(value).startswith("http://"):
            raise ValueError(f"{name} is not encrypted (http://): give the option allow_http=True if that is meant")


def without_credentials(url: str) -> str:
    """The URL as messages may show it, without a slash at its end; a `ValueError` if it is none."""
    try:
        parts = urlsplit(url)
        login, _, host = parts.netloc.rpartition("@")
        if ":" in host and "@" in parts.path:  # a secret may have slashes
            parts = urlsplit(without_login(url))
            host = parts.netloc
    except ValueError as error:
        raise ValueError(f"{without_login(url)!r} is no URL of an object store: {error}") from None
    return urlunsplit((parts.scheme, host if ":" in login else parts.netloc, parts.path, "", "")).rstrip("/")
