"""The commands of the command line that look after storage: `blob`, `stats`; and upstream's directory."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

import support
from nerve_store.cli import main
from support.cli import MISSING_HASH, Cli

# --- upstream's directory ----------------------------------------------------------------------------------------


def test_upstreams_directory_answers(upstream_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(upstream_data, capsys)
    expected = json.loads((support.UPSTREAM / "expected.json").read_text("utf-8"))
    (all_rows,) = (call["result"] for call in expected["calls"] if call["call"] == "query" and call["args"] == [{}])
    assert cli("logs", "--all", "--json").json_lines == [
        {"ref_id" if key == "refId" else key: value for key, value in row.items()} for row in all_rows
    ]
    runs = cli("runs", "--json").json
    assert len(runs) == 24
    for run in runs:
        shown = cli("runs", "show", run["run_id"], "--json").json
        assert shown["run"] == run
        assert len(cli("runs", "messages", run["run_id"], "--json").json) == shown["message_count"]
        for flags in ([], ["--json"]):
            outcome = cli("runs", "rounds", run["run_id"], "--limit", str(shown["round_count"]), *flags)
            assert (outcome.exit_code, outcome.err) == (0, "")
    assert [blob["hash"] for blob in cli("blob", "ls", "--json").json] == sorted(
        str(path.parent.name + path.name) for path in (upstream_data / "blobs").glob("*/*")
    )


def test_upstreams_directory_is_archived(upstream_data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cli = Cli(upstream_data, capsys)
    rows = cli("logs", "--all", "--json").lines
    result = cli("archive", "--retention-days", "0", "--json").json
    archived = [line for day in result["days"] for line in cli("archive", "cat", day["day"], "--json").lines]
    kept = cli("logs", "--all", "--json").lines
    assert len(kept) >= result["pinned_rows"] > 0
    assert sorted(archived + kept) == sorted(rows)


def test_upstreams_archived_directory_is_listed(upstream_archived: Path, capsys: pytest.CaptureFixture[str]) -> None:
    days = Cli(upstream_archived, capsys)("archive", "list", "--json").json
    assert [day["day"] for day in days] == [f"2026-03-{number:02}" for number in range(9, 26)]


# --- blobs -------------------------------------------------------------------------------------------------------


def test_blob_round_trip(data_dir: Path, tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    file = tmp_path / "input"
    file.write_bytes(b"\x00\xff\n" * 1000)
    data = ["--data", str(data_dir)]
    assert main(["blob", "put", str(file), *data]) == 0
    digest, name = capfdbinary.readouterr().out.decode().split()
    assert name == str(file)
    assert main(["blob", "get", digest.upper(), *data]) == 0
    assert capfdbinary.readouterr().out == file.read_bytes()
    assert main(["blob", "get", digest, "--output", str(tmp_path / "output"), *data]) == 0
    assert (tmp_path / "output").read_bytes() == file.read_bytes()


def test_blob_put_reads_standard_input(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"from a pipe\xff")))
    (stored,) = cli("blob", "put", "-", "--json").json
    assert stored["size"] == 12
    assert cli("blob", "ls").lines == [f"{stored['hash']}            12"]


def test_blob_put_stores_what_it_can_read(cli: Cli, tmp_path: Path) -> None:
    good = tmp_path / "good"
    good.write_text("good")
    outcome = cli("blob", "put", str(tmp_path / "missing"), str(tmp_path), str(good), "--json")
    assert outcome.exit_code == 1
    assert [blob["file"] for blob in outcome.json] == [str(good)]
    assert len(outcome.err.splitlines()) == 2
    assert "missing: No such file or directory" in outcome.err


def test_blob_list_and_remove(filled: Cli) -> None:
    (blob,) = filled("blob", "ls", "--json").json
    assert blob["size"] == 8
    outcome = filled("blob", "rm", blob["hash"], MISSING_HASH, "../etc", "--json")
    assert outcome.exit_code == 1
    assert [item["removed"] for item in outcome.json] == [True, False, False]
    assert len(outcome.err.splitlines()) == 2
    assert filled("blob", "ls").out == ""


def test_blob_get_problems(filled: Cli, tmp_path: Path) -> None:
    assert f"there is no blob {MISSING_HASH}" in filled.refused("blob", "get", MISSING_HASH)
    assert "not a sha256" in filled.refused("blob", "get", "../../etc/passwd")
    (blob,) = filled("blob", "ls", "--json").json
    assert "--output" in filled.misused("blob", "get", blob["hash"], "--json")
    path = filled.data / "blobs" / blob["hash"][:2] / blob["hash"][2:]
    path.write_bytes(b"damaged")
    assert blob["hash"] in filled.refused("blob", "get", blob["hash"], "--output", str(tmp_path / "output"))
    assert not (tmp_path / "output").exists()


# --- stats -------------------------------------------------------------------------------------------------------


def test_stats(filled: Cli) -> None:
    filled("archive", "--max-days", "1")
    stats = filled("stats", "--json").json
    assert (stats["logs"]["row_count"], stats["logs"]["first_id"], stats["logs"]["last_id"]) == (3, 6, 8)
    assert {status: count for status, count in stats["logs"]["runs"].items() if count} == {"failed": 1, "queued": 1}
    assert (stats["archive"]["day_count"], stats["archive"]["row_count"]) == (1, 5)
    assert (stats["blobs"]["blob_count"], stats["blobs"]["size"]) == (1, 8)
    text = filled("stats").out
    assert "3 rows, ids 6 to 8" in text
    assert "1 day, 5 rows" in text
    assert "1 blob, 8 B" in text


def test_stats_of_a_directory_with_blobs_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    cli("blob", "put", str(tmp_path / "file"))
    stats = cli("stats", "--json").json
    assert (stats["logs"], stats["archive"], stats["blobs"]["blob_count"]) == (None, None, 1)
    assert "no database" in cli("stats").out
