"""What `doctor` looks at in an object store: whether it answers, what the credentials may do, its clock, its rules."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from nerve_store import NerveStoreError, StoreIOError, StoreUnavailableError
from nerve_store.cli.findings import Finding

__all__ = ["Access", "try_access"]

_GRACE = timedelta(hours=1)
"""Of those who store blobs, unless they say otherwise."""
_NOTICED = timedelta(minutes=1)
_STEP = timedelta(seconds=1)
"""Of the time that a server gives an object."""
_NEVER = (datetime.fromtimestamp(0, UTC), datetime.fromtimestamp(0, UTC))
_FROZEN = ("GLACIER", "DEEP_ARCHIVE")


@dataclass(slots=True)
class Access:
    """What came of storing, listing, reading and deleting an object under a prefix."""

    bucket: Any
    lacking: list[str] = field(default_factory=list[str])
    objects: dict[str, Any] | None = None
    """What is there, by key; None if it may not be listed."""
    headers: dict[str, str] | None = None
    """What the server says of an object there; None if it cannot be asked."""
    stored: Any = None
    """The object that was stored, as the store says it is."""
    span: tuple[datetime, datetime] = _NEVER
    """Before and after the storing, by this machine's clock."""

    @property
    def may_write(self) -> bool:
        """Whether objects can be stored and deleted."""
        return not {"store", "delete"} & {*self.lacking}

    def findings(self) -> Iterator[Finding]:
        """What is to be said of it."""
        place = self.bucket.place
        if self.lacking:
            is_useless = {"list", "read"} & {*self.lacking}
            action = "let the credentials do that" + ("" if is_useless else ", unless they are those of a reader")
            what = f"they may not {', '.join(self.lacking)} objects under {place}"
            yield Finding("error" if is_useless else "warning", "credentials", what, action)
        else:
            yield Finding("ok", "credentials", f"they may store, read, list and delete objects under {place}")
        yield from _rules(self)

    def clock(self) -> Iterator[Finding]:
        """What its clock shows, beside this machine's."""
        if self.stored is not None:
            yield _clock(self)


def try_access(bucket: Any, keep: Callable[[str], bool] = bool) -> Access | Finding:
    """Store, list, read and delete an object, and keep of the listing what `keep` says.

    A store that gives no answer, or refuses everything, is a finding.
    """
    from nerve_store.remote.blobs.probe import PROBE

    access = Access(bucket)
    try:
        _try(access, f"{PROBE}{uuid.uuid4().hex}", keep)
    except StoreUnavailableError as error:
        return Finding(
            "error", "object store", str(error), "look at the endpoint, the network and the server, and try again"
        )
    except NerveStoreError as error:
        return Finding("error", "object store", str(error), "look at the name of the bucket, and at the credentials")
    return access


def _try(access: Access, key: str, keep: Callable[[str], bool]) -> None:
    bucket = access.bucket

    def listed() -> dict[str, Any]:
        return {one.key: one for page in bucket.list() for one in page if keep(one.key)}

    def may(what: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except StoreIOError:
            access.lacking.append(what)
            return None

    before = datetime.now(UTC)
    is_stored = may("store", lambda: bucket.create(key, b"stored by nerve-store doctor\n"))
    access.span = before, datetime.now(UTC)
    try:
        access.objects = may("list", listed)
        known = key if is_stored else next(iter(access.objects or ()), None)
        if known is not None:
            found = may("read", lambda: bucket.get(known, longest=1 << 10) and bucket.head(known))
            access.stored = found if is_stored else None
            access.headers = _headers(bucket, known)
        if access.lacking == ["store", "list"]:
            # The bucket is missing, or these are nobody's credentials: the error says which.
            next(iter(bucket.list()), None)
    finally:
        if is_stored:
            may("delete", lambda: bucket.delete([key]))
    if access.objects is not None:
        access.objects.pop(key, None)


def _headers(bucket: Any, key: str) -> dict[str, str] | None:
    """What the server says of an object, in lower case: the client does not pass all of it on."""
    from urllib.request import Request, urlopen

    try:
        url = bucket.signed(key)
        if url is None:
            return None
        asked = Request(url, method="HEAD")  # noqa: S310 - an endpoint begins with http
        with urlopen(asked, timeout=30) as answer:  # noqa: S310
            return {name.lower(): value for name, value in answer.headers.items()}
    except (OSError, NerveStoreError):
        return None


def _clock(access: Access) -> Finding:
    """The least by which the clocks differ: an object's time is that of its storing, in whole seconds."""
    theirs: datetime = access.stored.modified
    ahead, behind = theirs - access.span[1], access.span[0] - (theirs + _STEP)
    skew = max(ahead, behind, timedelta(0))
    what = f"{access.bucket.place}: it is {'ahead of' if ahead > behind else 'behind'} this machine's by {_shown(skew)}"
    if skew > _GRACE / 4:
        action = (
            f"set the clocks: beyond a quarter of the grace ({_shown(_GRACE / 4)}) collect may delete what was written"
        )
        return Finding("error", "clock of the object store", what, action)
    if skew > _NOTICED:
        action = "set the clocks, and give collect and the stores that write a grace of four times the difference"
        return Finding("warning", "clock of the object store", what, action)
    return Finding(
        "ok", "clock of the object store", f"{access.bucket.place}: it is this machine's, to {_shown(_NOTICED)}"
    )


def _shown(span: timedelta) -> str:
    return f"{span.total_seconds():.0f} s"


def _rules(access: Access) -> Iterator[Finding]:
    place = access.bucket.place
    if not place.startswith(("s3://", "gs://", "az://")):
        return
    headers = access.headers
    wanted = "give the bucket one rule alone, which removes incomplete multipart uploads after a day"
    if headers is None:
        what = f"{place}: this program cannot look at the rules of the bucket, nor list unfinished uploads"
        yield Finding("ok", "lifecycle", what, f"look at them yourself: {wanted}")
        return
    if expiry := headers.get("x-amz-expiration"):
        what = f"{place}: a rule of the bucket deletes what is stored there ({expiry})"
        yield Finding("error", "lifecycle", what, f"remove the rule: it deletes days and blobs; {wanted}")
    elif (kind := headers.get("x-amz-storage-class", "")) in _FROZEN:
        what = f"{place}: objects are in the class {kind}, from which they cannot be read at once"
        yield Finding("error", "lifecycle", what, "restore them, and remove the rule that moves them there")
    else:
        what = f"{place}: the server names no rule that deletes an object there; unfinished uploads cannot be listed"
        yield Finding("ok", "lifecycle", what, f"not every server names its rules: {wanted}")
