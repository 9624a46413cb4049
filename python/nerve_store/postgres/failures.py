"""What an error of the server becomes."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

import psycopg
from psycopg import errors

from nerve_store.exceptions import (
    CorruptStoreError,
    NerveStoreError,
    QueryTimeoutError,
    StoreBusyError,
    StoreFullError,
    StoreIOError,
    StoreMovedError,
    StoreUnavailableError,
)

ANOTHER_LOG = "NS002"
"""What `recover` says where the schema has another log than the one that was opened."""
_NO_CONNECTION = "08"
"""The class of errors of connections; those of pgbouncer are of it, too."""
_AWAY = (
    errors.AdminShutdown,
    errors.CrashShutdown,
    errors.CannotConnectNow,
    errors.IdleSessionTimeout,
    errors.TooManyConnections,
)
"""The server is going away, or coming back."""


class ConnectionLostError(Exception):
    """A connection broke in the middle of a call, whose outcome it took along."""


def is_lost(error: psycopg.Error, connection: psycopg.Connection[Any] | None) -> bool:
    """Whether the connection is of no use any more, so that another one may do."""
    if isinstance(error, _AWAY):
        return True
    if connection is not None and connection.closed:
        return True
    if error.sqlstate is None:
        return isinstance(error, psycopg.OperationalError | psycopg.InterfaceError)
    # A pooler that has no server takes the login, and refuses what comes after it.
    return error.sqlstate.startswith(_NO_CONNECTION) and not is_pooled_by_statement(error)


def is_pooled_by_statement(error: psycopg.Error) -> bool:
    """Whether a pooler takes no transaction, only single statements; pgbouncer has one code for all that it says."""
    return "statement pooling mode" in str(error)


def is_demoted(error: psycopg.Error) -> bool:
    """Whether the server takes no writes (any more): another one may have taken over."""
    return isinstance(error, errors.ReadOnlySqlTransaction)


def not_utf8(place: str, reason: str) -> StoreIOError:
    """The error where the database has another encoding than UTF8."""
    error = StoreIOError(errno.EILSEQ, f"{reason}: make the log in a database of its own, with ENCODING 'UTF8'", place)
    error.path = place
    return error


def read_only(place: str, reason: str) -> StoreIOError:
    """The error of a write where the server takes none."""
    error = StoreIOError(
        errno.EROFS,
        f"{reason}: a standby takes no writes, nor does a role or a database with default_transaction_read_only = on; "
        "name the primary, take the setting back, or open with read_only=True",
        place,
    )
    error.path = place
    return error


def moved(place: str, reason: str) -> StoreMovedError:
    """The error of a call of a store whose schema has another name now."""
    error = StoreMovedError(
        errno.ESTALE,
        f"{reason}: the schema was renamed, dropped or replaced; close the log, and open it by the name it has now",
        place,
    )
    error.path = place
    return error


def unavailable(place: str, reason: object, *, is_unknown: bool = False) -> StoreUnavailableError:
    """The error of a call that no server answered."""
    outcome = "; its outcome is unknown: repeat it with a key" if is_unknown else ""
    error = StoreUnavailableError(f"{place}: the server cannot be reached ({_line(reason)}){outcome}")
    error.path = place
    return error


def translated(error: psycopg.Error, place: str) -> Exception:
    """The error of ours that says the same."""
    if is_lost(error, None):
        return unavailable(place, error)
    if is_demoted(error):
        return read_only(place, _line(error))
    if isinstance(error, errors.InvalidSchemaName) or error.sqlstate == ANOTHER_LOG:
        return moved(place, _line(error))
    if isinstance(error, errors.UntranslatableCharacter | errors.CharacterNotInRepertoire):
        return not_utf8(place, _line(error))
    return _translated(error, place)


def _translated(error: psycopg.Error, place: str) -> NerveStoreError:
    message = f"{place}: {_line(error)}"
    result: NerveStoreError
    match error:
        case errors.LockNotAvailable() | errors.DeadlockDetected():
            result = StoreBusyError(f"{place}: another session held a lock for longer than busy_timeout; try again")
        case errors.QueryCanceled():
            result = QueryTimeoutError(f"{message}; give it more time, or ask for less")
        case errors.DiskFull() | errors.OutOfMemory():
            result = StoreFullError(errno.ENOSPC, _line(error), place)
        case errors.InsufficientPrivilege():
            result = StoreIOError(errno.EACCES, f"{_line(error)}; grant it to this role", place)
        case errors.UndefinedTable() | errors.UndefinedFunction():
            result = CorruptStoreError(f"{message}; the schema is not what this version of nerve_store made")
        case _ if is_pooled_by_statement(error):
            way_out = "the log needs a pooler in transaction or session mode, or an address that goes around it"
            result = StoreIOError(errno.ENOTSUP, f"{_line(error)}; {way_out}", place)
        case errors.DataCorrupted() | errors.IndexCorrupted():
            result = CorruptStoreError(message)
        case _:
            result = StoreIOError(errno.EIO, _line(error), place)
    result.path = place
    return result


def fail(error: psycopg.Error, place: str) -> NoReturn:
    """Raise the error of ours that says the same."""
    raise translated(error, place) from error


def _line(reason: object) -> str:
    """On one line."""
    return " ".join(str(reason).split()) or type(reason).__name__
