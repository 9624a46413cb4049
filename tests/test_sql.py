"""SQL of the user: what it answers, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

import nerve_store as ns


def test_sql_answers_with_tuples(log_store: ns.LogStore) -> None:
    log_store.append("system", "tick", "run-1", "nul \0 and 🧠", 5)
    assert log_store.sql("SELECT id, type, ref_id, payload, timestamp FROM logs") == [
        (1, "tick", "run-1", "nul \0 and 🧠", 5)
    ]
    assert log_store.sql("SELECT 1, 2.5, 'x', x'00ff', NULL") == [(1, 2.5, "x", b"\x00\xff", None)]
    assert log_store.sql("SELECT * FROM meta WHERE 0") == []


def test_sql_takes_positional_and_named_parameters(log_store: ns.LogStore) -> None:
    values: tuple[int | float | str | bytes | None, ...] = (1, 2.5, "nul \0", b"\x00", None)
    assert log_store.sql("SELECT ?, ?, ?, ?, ?", values) == [values]
    assert log_store.sql("SELECT :a, :b", {"a": 1, "b": "x"}) == [(1, "x")]


def test_sql_sees_every_acknowledged_row(log_store: ns.LogStore) -> None:
    for number in range(1, 20):
        log_store.append("system", "tick")
        assert log_store.sql("SELECT count(*) FROM logs") == [(number,)]


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO logs (source, type, timestamp) VALUES ('a', 'b', 0)",
        "UPDATE logs SET type = 'x'",
        "DELETE FROM logs",
        "DROP TABLE logs",
        "CREATE TABLE other (x)",
        "CREATE TEMP TABLE other (x)",
        "WITH gone AS (SELECT 1) DELETE FROM logs",
        "PRAGMA user_version = 7",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA wal_checkpoint(TRUNCATE)",
        "PRAGMA query_only = OFF",
        "ATTACH ':memory:' AS other",
        "VACUUM",
        "VACUUM INTO 'copy.db'",
        "BEGIN",
        "BEGIN IMMEDIATE",
        "COMMIT",
        "SAVEPOINT s",
        "SELECT * FROM nothing",
        "SELECT 1; SELECT 2",
        "SELECT load_extension('x')",
        "not sql",
        "",
    ],
)
def test_sql_refuses_what_is_not_one_reading_statement(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    data_dir.mkdir()
    monkeypatch.chdir(data_dir)
    with ns.LogStore(data_dir / "logs.db") as store:
        store.append("system", "tick", timestamp=0)
        before = sorted(data_dir.rglob("*"))  # names alone: opening a file here would drop the store's locks
        with pytest.raises(ValueError, match=r".") as refused:
            store.sql(statement)
        assert "\n" not in str(refused.value)
        assert [entry.type for entry in store.query()] == ["tick"]
        assert store.sql("SELECT count(*) FROM logs") == [(1,)]
        assert sorted(data_dir.rglob("*")) == before
        assert store.append("system", "tick").id == 2


def test_sql_refuses_parameters_that_do_not_fit(log_store: ns.LogStore) -> None:
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT ?, ?", (1,))
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT ?", (1, 2))
    with pytest.raises(ValueError, match=r"."):
        log_store.sql("SELECT :a", {"b": 1})
    with pytest.raises(TypeError):
        log_store.sql("SELECT ?", (object(),))  # type: ignore[arg-type]


@pytest.mark.parametrize("read_only", [False, True])
def test_reads_of_more_pages_than_a_small_cache_holds_are_followed_by_others(tmp_path: Path, read_only: bool) -> None:
    path = tmp_path / "logs.db"
    with ns.LogStore(path, durability="normal") as store:
        store.append_many(("system", "tick", None, "x" * 3_000, None) for _ in range(1_500))
    with ns.LogStore(path, read_only=read_only) as store:
        for _ in range(3):
            assert store.sql("SELECT sum(length(payload)) FROM logs") == [(4_500_000,)]
            assert sum(len(row.payload or "") for row in store.query()) == 4_500_000


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELECT 1,\n  bad\nFROM logs", "query: no such column: bad (line 2)"),
        ("SELECT 1,\r\n\r\n  bad FROM logs", "query: no such column: bad (line 3)"),
        ("SELECT 'never\nended", 'query: unrecognized token: "\'never\\nended"'),
        ("SELECT \x07", 'query: unrecognized token: "\\x07"'),
        ("SELECT bad", "query: no such column: bad"),
    ],
)
def test_what_is_wrong_with_a_statement_is_said_on_one_line(log_store: ns.LogStore, query: str, says: str) -> None:
    with pytest.raises(ValueError, match="query") as raised:
        log_store.sql(query)
    assert str(raised.value) == says
