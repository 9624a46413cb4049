"""Meta, figures, and what a server does better than a library."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from types import MappingProxyType
from typing import NoReturn

from nerve_store._core import ARCHIVED_UP_TO, Check
from nerve_store.exceptions import NerveStoreError
from nerve_store.postgres.operations import meta_key
from nerve_store.postgres.reads import Reads
from nerve_store.postgres.texts import decode, encode
from nerve_store.records import LogStats
from nerve_store.types import Path


class Upkeep(Reads):
    """What a daemon does beside its work."""

    def get_meta(self, key: str) -> str | None:
        """The value under `key`, or None."""
        statement = f"SELECT value FROM {self._schema}.meta WHERE key = %s"
        wanted = encode(Check.text(key, "key"))
        row = self._connections.read(lambda session: session.execute(statement.encode(), (wanted,)).fetchone())
        return None if row is None else decode(row[0])

    def set_meta(self, key: str, value: str) -> None:
        """Set the value under `key`, as durable as the store."""
        job = self._job(None)
        job.change({"op": "set_meta", "key": meta_key(key), "value": encode(Check.text(value, "value"))})
        self._commit(job, lambda _: None)

    def delete_meta(self, key: str) -> bool:
        """Delete the value under `key`; False if there was none."""
        job = self._job(None)
        job.change({"op": "delete_meta", "key": meta_key(key)})
        return self._commit(job, lambda job: bool(job.results[0]))

    def list_meta(self, prefix: str = "") -> dict[str, str]:
        """The values whose keys begin with `prefix`, by key, in order."""
        statement = f"SELECT key, value FROM {self._schema}.meta WHERE starts_with(key, %s)"
        wanted = encode(Check.optional_text(prefix, "prefix")) or ""
        rows = self._connections.read(lambda session: session.execute(statement.encode(), (wanted,)).fetchall())
        return dict(sorted((decode(key), decode(value)) for key, value in rows))

    def stats(self, *, exact: bool = False) -> LogStats:
        """Figures of the database. Unless `exact`, the count of rows is the server's estimate, which costs nothing."""
        name = self._name
        if Check.flag(exact, "exact"):
            counted = f"(SELECT count(*) FROM {self._schema}.logs)"
        else:
            counted = (
                "(SELECT coalesce(sum(CASE WHEN pg_stat_get_live_tuples(c.oid) > 0 THEN pg_stat_get_live_tuples(c.oid) "
                "ELSE greatest(c.reltuples, 0) END), 0)::bigint "
                f"FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid WHERE i.inhparent = '{self._schema}.logs'"
                "::regclass)"
            )
        found = self._connections.read(
            lambda session: session.execute(
                (
                    f"SELECT {counted}, (SELECT min(id) FROM {self._schema}.logs), "
                    f"(SELECT max(id) FROM {self._schema}.logs), (SELECT min(timestamp) FROM {self._schema}.logs), "
                    f"(SELECT max(timestamp) FROM {self._schema}.logs), "
                    "(SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c "
                    "JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = %s AND c.relkind = 'r')"
                ).encode(),
                (name,),
            ).fetchone()
        )
        assert found is not None
        runs = self._connections.read(
            lambda session: session.execute(
                f"SELECT status, count(*) FROM {self._schema}.workflow_runs GROUP BY status".encode()
            ).fetchall()
        )
        watermark = self.get_meta(ARCHIVED_UP_TO)
        row_count, first_id, last_id, first_timestamp, last_timestamp, size = found
        return LogStats(
            path=self._path,
            row_count=row_count,
            first_id=first_id,
            last_id=last_id,
            first_timestamp=first_timestamp,
            last_timestamp=last_timestamp,
            runs=MappingProxyType(dict(runs)),
            database_bytes=size,
            wal_bytes=0,
            free_bytes=0,
            archived_up_to=None if watermark is None else date.fromisoformat(watermark),
        )

    def backup(self, target: Path, *, progress: Callable[[int, int], object] | None = None) -> NoReturn:
        """Raises: a server is backed up by its own means, such as pg_basebackup with an archive of its log."""
        self._connections.check()
        raise NerveStoreError(
            f"{self._path}: back up the server with its own means (pg_dump, or pg_basebackup and its write-ahead log), "
            "and the day files beside it"
        )
