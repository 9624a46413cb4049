"""Where a log lies, and its archive: in a directory, on a server, or in an object store."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, TypeVar

    from nerve_store.exceptions import NerveStoreError, StoreIOError
    from nerve_store.types import Path

    AnyError = TypeVar("AnyError", bound=NerveStoreError)

MAX_CACHE_BYTES = 1 << 30
ARCHIVE_MARK = ".nerve-store"
"""The file, or the object, that says whose days lie beside it (docs/format.md). No pattern for day files matches it."""
COPY_MARK = ".copying"
"""The file, or the object, that says which copy the days beside it are for, until that is whole."""
COPY_DATABASE = ".copying.db"
"""The database of a data directory until the copy that makes it is finished."""
_SCHEMES = ("s3://", "gs://", "az://", "file://", "memory://")
_SECRETS = ("password", "sslpassword", "oauth_client_secret", "scram_client_key", "scram_server_key")


def is_url(place: str) -> bool:
    """Whether it names a log on a server, and no directory."""
    return place.startswith(("postgresql://", "postgres://"))


def refuse_url(place: str, name: str, remote: str = "remote=") -> None:
    """Refuse a URL where a directory is wanted: it would be taken for one below the current directory.

    `name` is that of the argument; `remote` is what names an object store instead.
    """
    scheme, found, _ = place.partition("://")
    letters = scheme.replace("+", "").replace("-", "").replace(".", "")
    if not (found and scheme[:1].isalpha() and scheme.isascii() and letters.isalnum()):
        return
    if is_url(place):
        raise ValueError(f"{name} is a URL of PostgreSQL's, and must be a directory: {without_password(place)}")
    if f"{scheme}://" in _SCHEMES:
        way_out = f"an object store is named by {remote}"
    else:
        way_out = "a log on a server begins with postgresql://"
    raise ValueError(f"{name} {without_login(place)!r} is a URL, and no directory: {way_out}")


def directory_path(path: Path, name: str = "path", *, remote: str = "remote=") -> str:
    """The absolute path of a directory; `name` is that of the argument, `remote` of one for an object store."""
    given: Any = path  # what a caller without a type checker passes
    text: Any = os.fspath(given) if isinstance(given, str) or hasattr(given, "__fspath__") else given
    if not isinstance(text, str):
        raise TypeError(f"{name} must be str or os.PathLike, not {type(text).__name__}")
    if not text:
        raise ValueError(f"{name} is an empty path")
    if "\0" in text:
        raise ValueError(f"{name} is no path: it contains a NUL character")
    refuse_url(text, name, remote)
    try:
        os.fsencode(text)
    except UnicodeEncodeError as error:
        error.reason += f" in {name}"
        raise
    return os.path.abspath(text)


def check_remote(
    remote: object, options: Mapping[str, Any] | None, max_cache_bytes: object, *, name: str = "remote"
) -> None:
    """Refuse what names no place in an object store; `name` is that of the argument."""
    if not isinstance(remote, str | None):
        raise TypeError(f"{name} must be a URL or None, not {type(remote).__name__}")
    if remote is not None and not remote.startswith(_SCHEMES):
        known = ", ".join(_SCHEMES)
        raise ValueError(f"{name} {without_login(remote)!r} is no place in an object store: begin with {known}")
    if remote is not None:
        check_query(remote, name)
    check_options(options, f"{name}_options")
    if remote is None and options is not None:
        raise ValueError(f"{name}_options are for {name} in an object store, and there is none")
    if isinstance(max_cache_bytes, bool) or not isinstance(max_cache_bytes, int):
        raise TypeError(f"max_cache_bytes must be int, not {type(max_cache_bytes).__name__}")
    if max_cache_bytes < 0:
        raise ValueError(f"max_cache_bytes is at least 0, not {max_cache_bytes}")


def check_options(options: object, name: str) -> None:
    """Refuse what has no names; `name` is that of the argument."""
    from collections.abc import Mapping

    if not isinstance(options, Mapping | None):
        raise TypeError(f"{name} must be a mapping or None, not {type(options).__name__}")


def check_query(url: str, name: str) -> None:
    """Refuse what clients of object stores drop in silence: the days would lie under a shorter prefix."""
    for sign in "?#":
        if sign in url:
            raise ValueError(f"{name} {without_login(url)!r} must not contain {sign}; options are given beside it")


def without_login(url: str) -> str:
    """A URL of an object store, or what was given for one, without what stands before its last @."""
    import re

    return re.sub(r"^([^/@]*://)?.*@", r"\1", url, flags=re.DOTALL)


def check_cache(directory: str, *others: str) -> None:
    """Refuse a cache that holds one of these directories or `file:` URLs, or lies in it."""
    from urllib.parse import unquote, urlsplit

    for other in others:
        is_url = "://" in other
        if is_url and not other.startswith("file:"):
            continue
        place = unquote(urlsplit(other).path) if is_url else other
        ways = [os.path.realpath(directory), os.path.realpath(place)]
        if os.path.commonpath(ways) in ways:
            raise ValueError(f"cache must be a directory of its own: {directory} is not apart from {place}")


def below(remote: str, folder: str) -> str:
    """The URL of a folder."""
    return f"{remote.rstrip('/')}/{folder}"


def without_remote(url: str) -> tuple[str, str | None]:
    """The URL of a log on a server without the object store that it names (`?archive=s3://…`), and that."""
    from urllib.parse import unquote

    place, _, query = url.partition("?")
    items = query.split("&")
    named = [item for item in items if item.startswith("archive=") and "://" in unquote(item)]
    if not named:
        return url, None
    rest = "&".join(item for item in items if item not in named)
    return f"{place}?{rest}" if rest else place, unquote(named[0].removeprefix("archive="))


def sync_directory(path: str) -> None:
    """Make the names in it durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def error_at(kind: type[AnyError], path: str, reason: str) -> AnyError:
    """An error of this kind about a place, which its message begins with."""
    error = kind(f"{path}: {reason}")
    error.path = path
    return error


def system_error(error: OSError, reason: str, path: str) -> StoreIOError:
    """An error of the operating system as ours: a full disk is told from all else."""
    import errno

    from nerve_store.exceptions import StoreFullError, StoreIOError

    is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    result = (StoreFullError if is_full else StoreIOError)(error.errno, reason, path)
    result.path = path
    return result


def make_directory(path: str) -> None:
    """Make a directory and what is missing above it, durably, each with mode 0700."""
    if not os.path.isdir(path):
        above = os.path.dirname(path)
        if above not in ("", path):
            make_directory(above)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            if not os.path.isdir(path):
                raise
        sync_directory(above or ".")


def without_password(url: str) -> str:
    """A server's URL, or libpq's `name=value` pairs, as they may be shown: without any secret."""
    import re
    from urllib.parse import quote, unquote

    scheme, found, rest = url.partition("://")
    if not is_url(url):
        value = r"('(?:\\.|[^'\\])*'?|(?:\\.|[^\s\\])*)"
        return re.sub(rf"\b({'|'.join(_SECRETS)})\s*=\s*{value}\s*", "", url, flags=re.DOTALL).strip()
    # As libpq does: whatever stands before an @ before the first slash says who logs in.
    login = re.match(r"[^/]*@", rest)
    end = login.end() if login else 0
    name, has_password, _ = rest[:end].partition(":")
    place, _, query = rest[end:].partition("?")
    kept: list[str] = []
    for item in filter(None, query.split("&")):
        key, _, content = item.partition("=")
        if unquote(key).strip() == "listen_url":
            kept.append(f"{key}={quote(without_password(unquote(content)), safe='')}")
        elif unquote(key).strip() not in _SECRETS:
            kept.append(item)
    shown = f"{scheme}{found}{name}{'@' if has_password else ''}{place}"
    return f"{shown}?{'&'.join(kept)}" if kept else shown
