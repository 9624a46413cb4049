"""What a log has beside its rows and its days, as it travels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class KnownKey:
    """An idempotency key."""

    key: str
    """As SQLite's log stores it: a long one by its digest."""
    id: int
    digest: bytes
    timestamp: int
    appended_at: int
    """Milliseconds."""


@dataclass(frozen=True, slots=True)
class KnownDay:
    """A day's file that was copied and read back."""

    day: str
    format: str
    sha256: str


@dataclass(frozen=True, slots=True)
class Origin:
    """What a log that a copy made says of that copy, in its table `copied_from`."""

    source: str
    """What tells the source from other logs."""
    days: str
    """Where the days of this log were brought; empty if it has no archive."""
    written: str
    """What the source then was (`Source.written`)."""


@dataclass(frozen=True, slots=True)
class RunState:
    """A run and its newest claim."""

    run_id: str
    workflow: str
    status: str
    timestamp: int
    exit_code: int | None
    order: int
    """Runs that were created later have a greater one."""
    attempt: int
    token: int | None
    """None: no claim is valid."""
    owner: str | None
    lease_ms: int | None
    not_before: int | None


@dataclass(frozen=True, slots=True)
class State:
    """All of it."""

    meta: dict[str, str]
    runs: list[RunState]
    keys: list[KnownKey]
    last_id: int
    """The last id that was given to a row, whether the row is there or not."""
