"""The tables and procedures in the database: made, brought up to date, or refused."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg import errors

from nerve_store._places import error_at
from nerve_store.exceptions import NerveStoreError, SchemaVersionError
from nerve_store.postgres import failures
from nerve_store.postgres.connections import Session

VERSION = 5
MIGRATIONS: dict[int, str] = {
    2: """
ALTER TABLE @S@.archive_days ADD COLUMN place text COLLATE "C", ADD COLUMN object text COLLATE "C";
CREATE TABLE @S@.archive_objects (
  day date NOT NULL, key text COLLATE "C" NOT NULL, state text COLLATE "C" NOT NULL, size bigint NOT NULL,
  sha256 text NOT NULL, place text COLLATE "C" NOT NULL, PRIMARY KEY (day, key)
);
ALTER TABLE @S@.archive_refs ADD COLUMN expired boolean NOT NULL DEFAULT false;
UPDATE @S@.archive_refs SET expired = true WHERE day NOT IN (SELECT day FROM @S@.archive_days WHERE state = 0);
""",
    3: "",
    4: "DROP FUNCTION IF EXISTS @S@.ensure_day(date);",
    5: """
ALTER TABLE @S@.alive DROP COLUMN IF EXISTS one, ADD COLUMN IF NOT EXISTS started timestamptz,
  ADD COLUMN IF NOT EXISTS file text, ADD COLUMN IF NOT EXISTS xid xid, ADD COLUMN IF NOT EXISTS after bigint,
  ADD COLUMN IF NOT EXISTS mask bigint;
CREATE UNLOGGED SEQUENCE IF NOT EXISTS @S@.given_id MINVALUE 0;
DO $$
DECLARE given record;  -- who may write has the rights on both sequences
BEGIN
  FOR given IN SELECT privilege_type, CASE grantee WHEN 0 THEN 'PUBLIC' ELSE grantee::regrole::text END AS role
      FROM pg_class, aclexplode(relacl) WHERE oid = '@S@.log_id'::regclass AND grantee <> relowner LOOP
    EXECUTE format('GRANT %s ON SEQUENCE @S@.given_id TO %s', given.privilege_type, given.role);
  END LOOP;
END $$;
""",
}
"""What brings a schema from the version before to this one; the procedures are made anew with it."""

_ENCODING = "UTF8"
_STATE = "state"
COPYING = "copying"
"""The table that a schema has until the copy that makes it is finished (moving/server.py)."""
COPYING_SUFFIX = "_copying"
"""What the name of the schema ends with until then."""
IS_OF_ITS_NAME = (
    "SELECT 1 FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace "
    "WHERE n.nspname = %s AND p.proname = 'lock_ids' AND strpos(p.prosrc, %s) > 0"
)
"""Gives a row if the procedures of a schema were made for its name: they have the key of its append lock."""
_PROCEDURES = ("runs.sql", "write.sql")


def quoted(name: str) -> str:
    """The name of a schema in SQL; `ValueError` for what is none."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,39}", name):
        raise ValueError(f"schema is a name of up to 40 letters, digits and _, not {name!r}")
    return f'"{name}"'


def channel(name: str) -> str:
    """The channel of the schema's notices."""
    return f"nerve_store.{name}"


def lock_key(name: str, purpose: str = "append") -> int:
    """The key of an advisory lock of the schema: two schemas of a database share none."""
    digest = hashlib.sha256(f"nerve_store {purpose} {name}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


class Opened(NamedTuple):
    """What opening finds."""

    version: int
    log: str
    """Which log it is, and the name of its schema; `recover` compares them."""


def prepare(
    session: Session,
    name: str,
    place: str,
    *,
    lock_timeout_ms: int,
    read_only: bool,
    before_making: Callable[[], object],
    takes_unfinished: bool = False,
) -> Opened:
    """Make the schema, or bring it up to date, under a lock; one that was renamed gets procedures for its name.

    An unfinished copy is refused, unless `takes_unfinished`, and so is the name that one is to get. `before_making` is
    called before a schema is made, and may refuse that.
    """
    schema = quoted(name)
    try:
        if not read_only:
            _check_writable(session, place)
        there = tables(session, name)
        if _STATE not in there:
            _leave_to_copy(session, name, place)
            if read_only:
                error = SchemaVersionError(f"{place}: there is no log in this schema; open it for writing first")
                error.path, error.supported = place, VERSION
                raise error
            before_making()
            with session.transaction():
                lock_name(session, name, lock_timeout_ms)
                there = tables(session, name)
                if _STATE not in there:
                    _leave_to_copy(session, name, place)
                    _create(session, name, place)
        if COPYING in there and not takes_unfinished:
            raise _unfinished(place, "the schema")
        found = _version(session, schema)
        if found > VERSION:
            error = SchemaVersionError(
                f"{place}: the schema has version {found}, and this nerve_store knows {VERSION} at the most; upgrade it"
            )
            error.path, error.found, error.supported = place, found, VERSION
            raise error
        if found < VERSION and not read_only:
            _migrate(session, name, place, lock_timeout_ms)
            found = VERSION
        elif not read_only and not session.execute(IS_OF_ITS_NAME, (name, str(lock_key(name)))).fetchone():
            _follow_name(session, name, place, lock_timeout_ms)
        return Opened(found, _log(session, name))
    except psycopg.Error as error:
        failures.fail(error, place)


def _check_writable(session: Session, place: str) -> None:
    """Refuse what is read-only on purpose; a standby may become the primary while the store is open."""
    found = session.execute(
        "SELECT current_setting('default_transaction_read_only') = 'on' AND NOT pg_is_in_recovery()"
    )
    if found.fetchone() == (True,):
        raise failures.read_only(place, "this session may only read")


def _leave_to_copy(session: Session, name: str, place: str) -> None:
    """Refuse to make a schema that a copy will make."""
    if COPYING in tables(session, name + COPYING_SUFFIX):
        raise _unfinished(place, f"the schema {name}{COPYING_SUFFIX}")


def _unfinished(place: str, schema: str) -> NerveStoreError:
    return error_at(
        NerveStoreError,
        place,
        f"a copy that was not finished: finish it (nerve-store copy --finish), or drop {schema}",
    )


def create(session: Session, name: str, beside: str, place: str, *, lock_timeout_ms: int) -> bool:
    """Make a schema with tables of the caller's beside its own; false if there is a log in it.

    In the caller's transaction, and in no savepoint: the row in `alive` says of itself which transaction wrote it.
    """
    lock_name(session, name, lock_timeout_ms)
    if is_there(session, name):
        return False
    _create(session, name, place)
    session.execute(beside.encode())
    return True


def is_there(session: Session, name: str) -> bool:
    """Whether the schema has a log."""
    return _STATE in tables(session, name)


def tables(session: Session, name: str) -> set[str]:
    """Which the schema has of the tables `state`, as each log has, and `copying`."""
    # Not to_regclass: what it has cached may be older than the lock.
    found = session.execute(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = %s AND c.relname = ANY(%s)",
        (name, [_STATE, COPYING]),
    )
    return {str(row[0]) for row in found}


def _log(session: Session, name: str) -> str:
    row = session.execute(f"SELECT store_id FROM {quoted(name)}.state").fetchone()
    return f"{row[0]}#{name}" if row else ""


def _version(session: Session, schema: str) -> int:
    row = session.execute(f"SELECT schema_version FROM {schema}.state").fetchone()
    return int(row[0]) if row else 0


def _create(session: Session, name: str, place: str) -> None:
    encoding = str((session.execute("SELECT current_setting('server_encoding')").fetchone() or ("",))[0])
    if encoding != _ENCODING:
        raise failures.not_utf8(place, f"the database has the encoding {encoding}, which cannot hold every text")
    # A role that may not create schemas can be given one.
    found = session.execute("SELECT FROM pg_namespace WHERE nspname = %s", (name,)).fetchone()
    if found is None:
        session.execute(f"CREATE SCHEMA {quoted(name)}".encode())
    session.execute(_script(name, "tables.sql"))
    _make_procedures(session, name)
    session.execute(f"SELECT {quoted(name)}.go_on_after(0)".encode())


@contextmanager
def _as_owner(session: Session, name: str, place: str, reason: str) -> Iterator[None]:
    """A transaction of the role that owns the log: what is made in it is that role's, by whichever member of it."""
    owner = "SELECT set_config('role', pg_get_userbyid(relowner), true) FROM pg_class WHERE oid = %s::regclass"
    try:
        with session.transaction():
            session.execute(owner, (f"{quoted(name)}.{_STATE}",))
            yield
    except errors.InsufficientPrivilege as error:
        way_out = "open the log once for writing as the owner of the schema, which brings it up to date"
        raise error_at(SchemaVersionError, place, f"{reason}: {way_out}") from error


def _migrate(session: Session, name: str, place: str, lock_timeout_ms: int) -> None:
    with _as_owner(session, name, place, "the schema has an earlier version"):
        lock_name(session, name, lock_timeout_ms)
        # No writer is between two versions.
        _lock(session, lock_key(name), lock_timeout_ms)
        for version in range(_version(session, quoted(name)) + 1, VERSION + 1):
            session.execute(_filled(MIGRATIONS[version], name))
            session.execute(f"UPDATE {quoted(name)}.state SET schema_version = %s", (version,))
        _make_procedures(session, name)


def lock_name(session: Session, name: str, timeout_ms: int) -> None:
    """Until the transaction ends, nobody else makes a schema of this name or changes its version."""
    _lock(session, lock_key(name, "schema"), timeout_ms)


def _follow_name(session: Session, name: str, place: str, lock_timeout_ms: int) -> None:
    with _as_owner(session, name, place, "the schema was renamed, and its procedures write by its former name"):
        lock_name(session, name, lock_timeout_ms)
        _lock(session, lock_key(name), lock_timeout_ms)
        _make_procedures(session, name)


def _lock(session: Session, key: int, timeout_ms: int) -> None:
    """Take an advisory lock until the transaction ends, which then waits as long for every lock."""
    session.execute("SELECT set_config('lock_timeout', %s, true), pg_advisory_xact_lock(%s)", (str(timeout_ms), key))


def rename(session: Session, name: str, new_name: str) -> None:
    """Give a schema that no store has open another name, in the caller's transaction."""
    session.execute(f"ALTER SCHEMA {quoted(name)} RENAME TO {quoted(new_name)}".encode())
    # They name the schema, its lock and its channel.
    _make_procedures(session, new_name)


def _make_procedures(session: Session, name: str) -> None:
    for file in _PROCEDURES:
        session.execute(_script(name, file))


def _script(name: str, file: str) -> bytes:
    return _filled((files("nerve_store.postgres") / "sql" / file).read_text("utf-8"), name)


def _filled(script: str, name: str) -> bytes:
    return (
        script.replace("@S@", quoted(name))
        .replace("@LOCK@", str(lock_key(name)))
        .replace("@DAYS_LOCK@", str(lock_key(name, "days")))
        .replace("@CHANNEL@", channel(name))
        .replace("@NAME@", name)
        .encode()
    )
