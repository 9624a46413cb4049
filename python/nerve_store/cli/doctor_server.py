"""What `doctor` looks at in a log on PostgreSQL: the server, its settings, the role, the clocks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

from nerve_store import NerveStoreError
from nerve_store.cli.doctor_files import left_of_a_copy
from nerve_store.cli.doctor_log import examine_rows, failure
from nerve_store.cli.doctor_objects import Objects, examine_days
from nerve_store.cli.findings import Finding
from nerve_store.cli.place import Place
from nerve_store.cli.progress import Progress
from nerve_store.cli.stores import open_server
from nerve_store.cli.text import format_bytes, format_count
from nerve_store.protocols import Log

__all__ = ["examine_server"]

_OLDEST = 150_000
_MOST_SKEW_MS = 2_000
_LONG_SECONDS = 3_600
_CONNECT_SECONDS = 5.0
_RESTORE = "restore the server from its backup, or repair the rows by hand"
_WRITTEN = ("logs", "meta", "workflow_runs", "writers", "keys", "alive")
_READ = ("state", "archive_days", "archive_refs")


def examine_server(
    place: Place, objects: Objects | None, *, is_quick: bool, progress: Progress | None
) -> list[Finding]:
    """What is found on the server and in the log; an error of the store is a finding.

    `objects` is what was found in the object store; None if none is named.
    """
    findings: list[Finding] = []
    if objects is not None and not objects.can_be_read:
        place = place._replace(remote=None, options=None)
    try:
        with open_server(place) as store:
            findings += _server(store)
            findings += _settings(store)
            findings += _role(store)
            findings += _clocks(store)
            findings += _sessions(store)
            findings.append(_pooler(place, store.path))
            findings += _tables(store)
            told, can_be_read = examine_days(store, objects)
            findings += told
            findings += left_of_a_copy(store.archive_dir)
            is_quick = is_quick or not can_be_read
            findings += examine_rows(store, is_quick=is_quick, progress=progress, way_out=_RESTORE, told=told)
    except NerveStoreError as error:
        findings.append(failure(error, other="schema", way_out=_RESTORE))
    return findings


def _one(store: Log, query: str, *parameters: object) -> Any:
    return store.sql(query, parameters)[0][0]


def _setting(store: Log, name: str) -> str:
    return str(_one(store, "SELECT current_setting(%s)", name))


def _server(store: Log) -> Iterator[Finding]:
    from nerve_store.postgres.schema import IS_OF_ITS_NAME, lock_key

    version = _setting(store, "server_version")
    if int(_setting(store, "server_version_num")) < _OLDEST:
        yield Finding("error", "server", f"PostgreSQL {version}", "upgrade it to PostgreSQL 15 or newer")
    else:
        yield Finding("ok", "server", f"PostgreSQL {version}")
    number = _one(store, "SELECT schema_version FROM state")
    name = _one(store, "SELECT current_schema()::text")
    if store.sql(IS_OF_ITS_NAME, (name, str(lock_key(name)))):
        yield Finding("ok", "schema", f"version {number}")
    else:
        what = f"version {number}; it was renamed, and its procedures write by its former name"
        yield Finding("error", "schema", what, "open the log once for writing as the owner of the schema")
    encoding = _setting(store, "server_encoding")
    if encoding != "UTF8":
        action = "move the log to a database that was created with the encoding UTF8"
        yield Finding("error", "encoding", f"{encoding}, which cannot hold every text", action)
    if _one(store, "SELECT pg_is_in_recovery()"):
        action = "name the primary in the URL, or several servers and target_session_attrs=read-write"
        yield Finding("warning", "server", "it is a standby, which takes no writes", action)


def _settings(store: Log) -> Iterator[Finding]:
    if _setting(store, "fsync") != "on":
        yield Finding("error", "fsync", "off: a crash of the machine can destroy the database", "set fsync = on")
    if _setting(store, "full_page_writes") != "on":
        action = "set full_page_writes = on, unless the file system writes whole pages"
        yield Finding("warning", "full_page_writes", "off: a power cut can tear a page", action)
    commit, standbys = _setting(store, "synchronous_commit"), _setting(store, "synchronous_standby_names")
    if standbys and commit == "local":
        action = "set synchronous_commit = on for this role"
        what = "local: an acknowledged append is on this server alone, although it has synchronous standbys"
        yield Finding("warning", "synchronous_commit", what, action)
    else:
        # `full` waits for the disk whatever the setting is.
        yield Finding("ok", "synchronous_commit", commit)
    if not standbys:
        message = "none: if a standby takes over, the newest acknowledged rows may be missing there"
        yield Finding("ok", "synchronous standbys", message)
    isolation = _setting(store, "default_transaction_isolation")
    if isolation != "read committed":
        what = f"{isolation} by default; the store's writes are read committed whatever it is"
        yield Finding("ok", "isolation", what)
    if _setting(store, "default_transaction_read_only") == "on":
        action = "ALTER ROLE … or ALTER DATABASE … RESET default_transaction_read_only, unless this role only reads"
        yield Finding("warning", "default_transaction_read_only", "on: the store is refused for writing", action)
    if _setting(store, "data_checksums") != "on":
        message = "off: the server does not notice a page that the disk changed"
        yield Finding("ok", "data_checksums", message, "pg_checksums --enable, while the server is down")
    zone = _setting(store, "TimeZone")
    yield Finding("ok", "time zone", f"{zone}; the store's days and milliseconds are UTC whatever it is")


def _role(store: Log) -> Iterator[Finding]:
    # An older schema does not have them.
    others = ("archive_objects",) if _one(store, "SELECT to_regclass('archive_objects') IS NOT NULL") else ()
    sequences = ("log_id", "given_id") if _one(store, "SELECT to_regclass('given_id') IS NOT NULL") else ("log_id",)
    lacking = [
        f"{privilege} on {table}"
        for tables, privileges in ((_WRITTEN, "SELECT INSERT UPDATE DELETE"), (_READ + others, "SELECT"))
        for table in tables
        for privilege in privileges.split()
        if not _one(store, "SELECT has_table_privilege(%s, %s)", table, privilege)
    ]
    lacking += [
        f"{privilege} on the sequence {sequence}"
        for sequence in sequences
        for privilege in ("SELECT", "UPDATE")
        if not _one(store, "SELECT has_sequence_privilege(%s, %s)", sequence, privilege)
    ]
    role = _one(store, "SELECT current_user::text")
    if lacking:
        action = "grant it, unless this role only reads"
        yield Finding("warning", "role", f"{role} lacks {', '.join(lacking)}", action)
    elif _one(store, "SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE oid = 'logs'::regclass"):
        yield Finding("ok", "role", f"{role} owns the tables")
    elif all(
        _one(store, "SELECT has_table_privilege(%s, %s)", table, privilege)
        for table in ("archive_days", "archive_refs", *others)
        for privilege in ("INSERT", "UPDATE", "DELETE")
    ):
        what = f"{role} may write; an archive job of it deletes rows, since only the owner can drop a partition"
        yield Finding("ok", "role", what)
    else:
        what = f"{role} may write; archive jobs need INSERT, UPDATE and DELETE on the tables archive_…, or the owner"
        yield Finding("ok", "role", what)


def _clocks(store: Log) -> Iterator[Finding]:
    before = time.time_ns()
    theirs = int(_one(store, "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
    after = time.time_ns()
    trip = (after - before) // 1_000_000
    skew = theirs - (before + after) // 2_000_000
    what = f"the server's is {abs(skew)} ms {'ahead' if skew > 0 else 'behind'}, measured over {trip} ms"
    if abs(skew) > _MOST_SKEW_MS + trip:
        action = "synchronize both: rows get this machine's time, leases and not_before the server's"
        yield Finding("warning", "clocks", what, action)
    else:
        yield Finding("ok", "clocks", what)


def _sessions(store: Log) -> Iterator[Finding]:
    used = int(_one(store, "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'"))
    most = int(_setting(store, "max_connections"))
    if used > most * 8 // 10:
        action = "raise max_connections, or put a pooler in front"
        yield Finding("warning", "connections", f"{used} of {most}", action)
    else:
        yield Finding("ok", "connections", f"{used} of {most}")
    longest = _one(
        store,
        "SELECT coalesce(max(extract(epoch FROM clock_timestamp() - xact_start)), 0)::bigint FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )
    if int(longest) > _LONG_SECONDS:
        action = "end it: as long as it lasts, VACUUM frees nothing"
        yield Finding("warning", "transactions", f"one has been open for {int(longest) // 60} minutes", action)


def _pooler(place: Place, shown: str) -> Finding:
    from nerve_store.postgres.address import Address
    from nerve_store.postgres.connections import Connections

    address = Address.of(place.data)
    direct = address.listen_url or address.url
    with closing(Connections(direct, place=shown, busy_timeout=_CONNECT_SECONDS, max_connections=1)) as connections:
        is_shared = connections.read(connections.is_shared)
    if not is_shared:
        return Finding("ok", "pooler", "none that shares the session of archive jobs and notices")
    what = "it shares sessions: archive jobs and copies are refused, and followers and claims hear of nothing"
    return Finding("warning", "pooler", what, "add listen_url=… to the URL, an address that goes around the pooler")


def _tables(store: Log) -> Iterator[Finding]:
    stats = store.stats()
    yield Finding(
        "ok", "database", f"{format_bytes(stats.database_bytes)}, about {format_count(stats.row_count, 'row')}"
    )
    # The server's estimate: who may read the log may not read its partitions by name.
    rest = int(
        _one(
            store,
            "SELECT greatest(pg_stat_get_live_tuples(oid), reltuples, 0)::bigint FROM pg_class "
            "WHERE oid = 'logs_rest'::regclass",
        )
    )
    if rest > 100_000:
        action = "archive: rows of days that had no partition are deleted one by one; ensure_day(day, most) moves a day"
        yield Finding("warning", "partitions", "more than 100,000 rows lie in the default one", action)
