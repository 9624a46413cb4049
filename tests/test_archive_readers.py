"""Archive files are read by the programs that people use: zstd, Python's zstandard, DuckDB, Polars, pandas, pyarrow.

The last four weigh 165 MB and are installed by `pip install --require-hashes -r requirements-readers.txt`; without them
their tests are skipped.
"""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any, Literal

import pytest
import zstandard

import nerve_store as ns
from reference import Row, archive_line
from support import database_rows, day_files
from support.archive import NOW, append, at, day, message

COLUMNS = ["id", "source", "type", "refId", "payload", "timestamp"]
FORMATS = pytest.mark.parametrize("compression", [None, "zstd"], ids=["plain", "zstd"])
Compression = Literal["zstd"] | None


def archived(store: ns.LogStore, compression: Compression) -> tuple[Path, list[Row]]:
    """A day of many frames, late rows among them, and its rows."""
    store.append_many(
        ("workflow", "thread_workflow_message", f"ü-{n % 5}" if n % 3 else None, message(n) * 20, at(0, n))
        for n in range(3_000)
    )
    rows = database_rows(store)
    store.archive_logs(now=NOW, compression=compression)
    rows.append(append(store, at(0), None, None))
    store.archive_logs(now=NOW, compression=compression)
    return day_files(store.archive_dir)[day(0)], rows


def as_records(rows: list[Row]) -> list[dict[str, Any]]:
    return [dict(zip(COLUMNS, row, strict=True)) for row in rows]


def cleaned(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Without what a table makes of a missing text."""
    return [{key: None if value != value else value for key, value in record.items()} for record in records]


def test_zstdcat_and_the_standard_tools_read_it(log_store: ns.LogStore) -> None:
    if shutil.which("zstd") is None:
        pytest.skip("zstd is not installed")
    path, rows = archived(log_store, "zstd")
    lines = subprocess.run(["zstd", "-dc", str(path)], capture_output=True, check=True).stdout
    assert lines.decode().splitlines() == [archive_line(row) for row in rows]
    subprocess.run(["zstd", "-tq", str(path)], check=True)
    listed = subprocess.run(["zstd", "-lv", str(path)], capture_output=True, check=True, text=True).stdout
    assert "Check: XXH64" in listed
    assert f"({len(lines)} B)" in listed


def test_zstandard_reads_it_as_a_stream_and_frame_by_frame(log_store: ns.LogStore) -> None:
    path, rows = archived(log_store, "zstd")
    content = path.read_bytes()
    with zstandard.ZstdDecompressor().stream_reader(io.BytesIO(content), read_across_frames=True) as stream:
        assert stream.read().decode().splitlines() == [archive_line(row) for row in rows]
    found: list[dict[str, Any]] = []
    frames = 0
    while content[:4] == zstandard.FRAME_HEADER:
        parameters = zstandard.get_frame_parameters(content)
        assert parameters.has_checksum
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        lines = decompressor.decompress(content)
        assert len(lines) == parameters.content_size
        assert lines.endswith(b"\n"), "a frame holds whole lines"
        found += [json.loads(line) for line in lines.splitlines()]
        content = decompressor.unused_data
        frames += 1
    assert frames > 3
    assert found == as_records(rows)
    # What is left is the table of frames, in one that decompressors skip.
    assert int.from_bytes(content[:4], "little") & 0xFFFFFFF0 == 0x184D2A50
    assert int.from_bytes(content[4:8], "little") == len(content) - 8


@FORMATS
def test_duckdb_reads_it(log_store: ns.LogStore, compression: Compression) -> None:
    duckdb = pytest.importorskip("duckdb")
    path, rows = archived(log_store, compression)
    found = duckdb.sql(f"SELECT * FROM read_json('{path}', format = 'newline_delimited') ORDER BY id")
    # A column of JSON text is read as text only if it is said to be.
    assert found.columns == COLUMNS
    assert [row[0] for row in found.fetchall()] == [row.id for row in rows]
    text = ", ".join(f"{name}: '{'BIGINT' if name in {'id', 'timestamp'} else 'VARCHAR'}'" for name in COLUMNS)
    query = f"SELECT * FROM read_json('{path.parent}/*.jsonl*', columns = {{{text}}}, format = 'newline_delimited')"
    assert [Row(*row) for row in duckdb.sql(f"{query} ORDER BY id").fetchall()] == rows


@FORMATS
def test_polars_reads_it(log_store: ns.LogStore, compression: Compression) -> None:
    polars = pytest.importorskip("polars")
    path, rows = archived(log_store, compression)
    assert polars.read_ndjson(path, infer_schema_length=None).to_dicts() == as_records(rows)
    counted = polars.scan_ndjson(path, infer_schema_length=None).select(polars.len()).collect()
    assert counted.item() == len(rows)


@FORMATS
def test_pandas_reads_it(log_store: ns.LogStore, compression: Compression) -> None:
    pandas = pytest.importorskip("pandas")
    path, rows = archived(log_store, compression)
    # The suffix .zst says how it is compressed.
    found = pandas.read_json(path, lines=True, dtype=False)
    assert cleaned(found.to_dict("records")) == as_records(rows)


@FORMATS
def test_pyarrow_reads_it(log_store: ns.LogStore, compression: Compression) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    reader = pytest.importorskip("pyarrow.json")
    path, rows = archived(log_store, compression)
    with pyarrow.input_stream(str(path), compression=compression) as stream:
        assert reader.read_json(stream).to_pylist() == as_records(rows)
