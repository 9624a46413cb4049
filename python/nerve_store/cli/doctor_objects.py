"""What `doctor` looks at of the days and the blobs in an object store."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from nerve_store import ArchiveError, BlobStore, NerveStoreError, StoreIOError, StoreUnavailableError
from nerve_store._places import ARCHIVE_MARK, COPY_MARK, below
from nerve_store.cli.doctor_bucket import Access, try_access
from nerve_store.cli.doctor_files import COPY_AGAIN
from nerve_store.cli.findings import Finding
from nerve_store.cli.place import Place
from nerve_store.cli.problem import Problem
from nerve_store.cli.stores import blob_root, remote_of
from nerve_store.cli.text import format_bytes, format_count
from nerve_store.protocols import Log

__all__ = ["Objects", "at_another_place", "examine_days", "examine_objects"]

_SHOWN = 3
_PUT_BACK = "put it back from a version or a copy of the bucket"


@dataclass(frozen=True, slots=True)
class Objects:
    """What was found in the object store."""

    findings: list[Finding]
    days: Access | None
    """None: it gives no answer."""

    @property
    def can_be_read(self) -> bool:
        """Whether a log can be opened with it: it answers, and tells what it has."""
        return self.days is not None and self.days.objects is not None


def examine_objects(place: Place, remote: str, *, is_quick: bool) -> Objects:
    """What is found in the object store without the log."""
    try:
        from nerve_store.remote.bucket import Bucket
    except ImportError as error:
        raise Problem(str(error)) from None
    days = try_access(Bucket(below(remote, "logs"), place.options or {}))
    if isinstance(days, Finding):
        return Objects([days], None)
    findings = [Finding("ok", "object store", f"{days.bucket.place} answers"), *days.findings(), *days.clock()]
    blobs = Bucket(below(remote, "blobs"), place.options or {})
    try:
        findings += _blobs(blobs, place, is_quick=is_quick)
    except NerveStoreError as error:
        findings.append(Finding("error", "object store", str(error), "look at the server, and try again"))
    return Objects(findings, days)


def _blobs(bucket: Any, place: Place, *, is_quick: bool) -> Iterator[Finding]:
    from nerve_store.remote.blobs.keys import COLLECTING, FORMAT, QUARANTINE, hash_of
    from nerve_store.remote.blobs.probe import check_format

    access = try_access(bucket, lambda key: hash_of(key) is None)
    if isinstance(access, Finding):
        yield access
        return
    yield from access.findings()
    check_format(bucket)
    if access.may_write and not is_quick:
        yield _creation(bucket)
    yield from _lease(bucket, access)
    objects = access.objects or {}
    damaged = [one for key, one in objects.items() if key.startswith(f"{QUARANTINE}/")]
    if damaged:
        what = f"{format_count(len(damaged), 'damaged blob')}, {format_bytes(sum(one.size for one in damaged))}, "
        action = "write their content again, then delete the objects"
        yield Finding("warning", "quarantine", f"{what}set aside under {bucket.name(QUARANTINE)}", action)
    others = [key for key in objects if key not in (COLLECTING, FORMAT) and not key.startswith(f"{QUARANTINE}/")]
    yield from _strays(bucket, others, "is no blob")
    at_home = BlobStore(blob_root(place.data), read_only=True) if not place.is_server else None
    if at_home is not None and next(iter(at_home), None) is not None:
        action = (
            f"store them there: nerve-store --remote {bucket.place.removesuffix('/blobs')} blob put {at_home.root}/??/*"
        )
        yield Finding("warning", "blobs", f"{at_home.root} has blobs that are not read with a remote", action)


def _creation(bucket: Any) -> Finding:
    from nerve_store.remote.blobs.probe import check_creation

    try:
        check_creation(bucket)
    except StoreIOError as error:
        return Finding("error", "creation", str(error), "use a server that answers If-None-Match: * correctly")
    return Finding("ok", "creation", f"{bucket.place}: of several that create an object, one alone does")


def _lease(bucket: Any, access: Access) -> Iterator[Finding]:
    from nerve_store.remote.blobs.keys import COLLECTING
    from nerve_store.remote.blobs.turns import LEASE

    held = (access.objects or {}).get(COLLECTING)
    if held is None:
        return
    now = datetime.now(UTC) if access.stored is None else access.stored.modified
    age = (now - held.modified).total_seconds()
    if age > LEASE:
        what = f"{bucket.name(COLLECTING)} is {age:.0f} s old: a collect or verify was killed"
        action = "nothing: writers wait for it a minute at the most, and the next collect takes it over"
        yield Finding("warning", "lease", what, action)
    else:
        yield Finding("ok", "lease", f"{bucket.name(COLLECTING)}: a collect or verify is at work")


def _strays(bucket: Any, keys: list[str], what: str) -> Iterator[Finding]:
    from nerve_store.remote.blobs.probe import PROBE

    probes = [key for key in keys if key.startswith(PROBE)]
    others = sorted(set(keys) - set(probes))
    if others:
        named = ", ".join(others[:_SHOWN]) + (f", and {len(others) - _SHOWN} more" if len(others) > _SHOWN else "")
        action = "look whose they are; move or delete them: nerve-store never will"
        yield Finding("warning", "leftovers", f"{bucket.place} has what {what}: {named}", action)
    if probes:
        action = f"delete those that are older than an hour; their names begin with {PROBE}"
        what = f"{bucket.place} has {format_count(len(probes), 'object')} of programs that tested it, and were killed"
        yield Finding("warning", "leftovers", what, action)


def _elsewhere(store: Log) -> Finding | None:
    """The days that lie in an object store that was not named."""
    try:
        days = [day for day in store.archived_days() if "://" in day.path]
    except ArchiveError:
        return None  # said of the archive
    if not days:
        return None
    remote = remote_of(days[0].path)
    what = f"{format_count(len(days), 'day')} lie at {remote}, which was not named: nothing was verified"
    return Finding("warning", "object store", what, f"name it: --remote {remote}, or NERVE_STORE_REMOTE")


def examine_days(store: Log, objects: Objects | None) -> tuple[list[Finding], bool]:
    """Compare the objects of days with what the database says of them; also whether the days can be read.

    `objects` is what was found in the object store; None if none is named.
    """
    if objects is None:
        elsewhere = _elsewhere(store)
        return ([], True) if elsewhere is None else ([elsewhere], False)
    access = objects.days
    if access is None or access.objects is None:
        return [], False
    return _compared(store, access)


def _compared(store: Log, access: Access) -> tuple[list[Finding], bool]:
    from nerve_store.remote.days.names import DayObject

    manifest: Any = store
    known = DayObject.all_of(manifest)
    current = [one for one in known if one.state == "current"]
    wrong = [what for one in current if (what := _wrong(access, one)) is not None]
    there = format_count(len(current), "day")
    places = {remote_of(day.path) for day in store.archived_days() if "://" in day.path}
    others = [place for place in places if f"{place}/logs" != access.bucket.place]
    if wrong and others and len(wrong) == len(current):
        what = f"none of {there} is in {access.bucket.place}; they were sent to {others[0]}/logs"
        return [Finding("error", "days", what, f"name it: --remote {others[0]}")], False
    findings = [Finding("error", "days", what, _PUT_BACK) for what in wrong]
    if not findings:
        findings.append(Finding("ok", "days", f"{there} in {access.bucket.place}"))
    return [*findings, *_others(access, known)], True


def _wrong(access: Access, one: Any) -> str | None:
    """What is wrong with the object of a day."""
    url = access.bucket.name(one.key)
    found = (access.objects or {}).get(one.key)
    if found is None or found.size != one.size:
        # It may have been sent since.
        found = access.bucket.head(one.key)
    if found is None:
        return f"{url} is missing"
    return None if found.size == one.size else f"{url} has {found.size} bytes and should have {one.size}"


def _others(access: Access, known: list[Any]) -> Iterator[Finding]:
    """The objects that are no day's current one."""
    from nerve_store.remote.days.names import newer_keys, parsed

    bucket, objects = access.bucket, access.objects or {}
    waiting = [one for one in known if one.state != "current" and one.key in objects]
    if waiting:
        what = f"{format_count(len(waiting), 'object')} of jobs that were cut off, or are to be deleted"
        yield Finding("ok", "days", what, "archive: the next job goes on with them")
    names = {one.key for one in known}
    unknown = [key for key in objects if key not in names and key != ARCHIVE_MARK]
    newer = newer_keys(unknown, known)
    if newer:
        what = f"the database is older than the days, or knows other ones: {_named(bucket, newer.values())}"
        action = "keep them: they may be the only copy of their rows. The next archive job takes them in, or names them"
        yield Finding("warning", "days", what, action)
    doubled = [key for key in unknown if parsed(key) is not None and key not in newer.values()]
    if doubled:
        action = "look what they hold, and move them away: programs that read the bucket may find their rows twice"
        what = (
            f"{format_count(len(doubled), 'object')} with the name of a day, which the database does not know: "
            f"{_named(bucket, doubled)}"
        )
        yield Finding("warning", "leftovers", what, action)
    if COPY_MARK in unknown:
        what = f"{bucket.name(COPY_MARK)} is of a copy whose last step was interrupted"
        yield Finding("warning", "leftovers", what, COPY_AGAIN)
    yield from _strays(bucket, [key for key in unknown if key != COPY_MARK and parsed(key) is None], "is no day")


def _named(bucket: Any, keys: Iterable[str]) -> str:
    return ", ".join(map(bucket.name, sorted(keys)[:_SHOWN]))


def at_another_place(error: NerveStoreError, objects: Objects | None) -> Finding | None:
    """The finding that the log's days lie at another remote than the one that was named, if that is the error."""
    remote = remote_of(str(error.path or ""))
    if not isinstance(error, StoreUnavailableError) or objects is None or objects.days is None or not remote:
        return None
    if objects.days.bucket.place == f"{remote}/logs":
        return None
    return Finding("error", "days", str(error), f"name it: --remote {remote}")
