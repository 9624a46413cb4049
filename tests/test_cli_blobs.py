"""`nerve-store blob`: what the commands print, refuse and return."""

from __future__ import annotations

import json
import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support import child_environment
from support.blobs import sha256
from support.cli import COMMAND, MISSING_HASH, Cli, on_a_terminal


def put(cli: Cli, tmp_path: Path, *contents: bytes) -> list[str]:
    files = []
    for number, content in enumerate(contents):
        files.append(tmp_path / f"file {number}")
        files[-1].write_bytes(content)
    return [str(stored["hash"]) for stored in cli("blob", "put", *map(str, files), "--json").json]


def path_of(cli: Cli, blob_hash: str) -> Path:
    return cli.data / "blobs" / blob_hash[:2] / blob_hash[2:]


def test_many_files_and_standard_input_are_put_at_once(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * 3_000_000)
    command = [*COMMAND, "--data", str(cli.data), "blob", "put", str(tmp_path / "large"), "-"]
    done = subprocess.run(command, input=b"from a pipe\xff", env=child_environment(), capture_output=True, check=True)
    expected = [(sha256(b"x" * 3_000_000), str(tmp_path / "large")), (sha256(b"from a pipe\xff"), "-")]
    assert [tuple(line.split()) for line in done.stdout.decode().splitlines()] == expected
    assert done.stderr == b""


def test_ls_long_says_when_and_where(cli: Cli, tmp_path: Path) -> None:
    (blob_hash,) = put(cli, tmp_path, b"content")
    os.utime(path_of(cli, blob_hash), (1_700_000_000, 1_700_000_000))
    heading, line = cli("blob", "ls", "--long").lines
    assert heading.split() == ["hash", "bytes", "written", "file"]
    written = datetime.fromtimestamp(1_700_000_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    assert line.split() == [blob_hash, "7", written, str(path_of(cli, blob_hash))]
    (entry,) = cli("blob", "ls", "--long", "--json").json
    assert entry == {
        "hash": blob_hash, "size": 7, "written": 1_700_000_000_000, "path": str(path_of(cli, blob_hash))
    }  # fmt: skip
    assert cli("blob", "ls", "--json").json == [{"hash": blob_hash, "size": 7}]


def test_a_terminal_is_spared_what_is_no_text(cli: Cli, tmp_path: Path) -> None:
    text, binary, escape, cut = put(
        cli, tmp_path, "Zeile\nübrig 漢\t\n".encode(), b"\x00\xff\x10", b"clear\x1b[2J", ("é" * 5000).encode()
    )
    for blob_hash in (text, cut):
        code, said = on_a_terminal("--data", str(cli.data), "blob", "get", blob_hash)
        assert (code, said.replace(b"\r\n", b"\n")) == (0, path_of(cli, blob_hash).read_bytes())
    for blob_hash in (binary, escape):
        code, said = on_a_terminal("--data", str(cli.data), "blob", "get", blob_hash)
        assert code == 1
        assert b"--force" in said
        assert path_of(cli, blob_hash).read_bytes() not in said
        code, said = on_a_terminal("--data", str(cli.data), "blob", "get", blob_hash, "--force")
        assert (code, said) == (0, path_of(cli, blob_hash).read_bytes())


def test_long_work_shows_a_bar_on_a_terminal(cli: Cli, tmp_path: Path) -> None:
    put(cli, tmp_path, b"x" * 40_000_000)
    keep = tmp_path / "keep"
    keep.write_text(sha256(b"x" * 40_000_000))
    for arguments, label in (
        (("verify",), b"verifying bytes"),
        (("collect", "--keep", str(keep)), b"collecting shards"),
        (("put", str(tmp_path / "file 0")), b"storing bytes"),
    ):
        code, said = on_a_terminal("--data", str(cli.data), "blob", *arguments)
        assert code == 0
        assert label in said


def test_get_leaves_no_torn_file_behind(cli: Cli, tmp_path: Path) -> None:
    (blob_hash,) = put(cli, tmp_path, b"x" * 3_000_000)
    output = tmp_path / "output"
    output.write_text("old")
    with open(path_of(cli, blob_hash), "r+b") as file:
        file.seek(2_900_000)
        file.write(b"y")
    assert blob_hash in cli.refused("blob", "get", blob_hash, "--output", str(output))
    assert output.read_text() == "old"
    assert sorted(path.name for path in tmp_path.iterdir() if "output" in path.name) == ["output"]
    put(cli, tmp_path, b"x" * 3_000_000)
    assert cli("blob", "get", blob_hash, "--output", str(output)).exit_code == 0
    assert output.read_bytes() == b"x" * 3_000_000


def test_verify_moves_damaged_blobs_aside(cli: Cli, tmp_path: Path) -> None:
    good, bad = put(cli, tmp_path, b"good", b"bad")
    assert cli("blob", "verify", "--json").json == {"ok": True, "blob_count": 2, "size": 7, "problems": []}
    assert cli("blob", "verify").out == "verified 2 blobs, 7 B: 0 problems\n"
    path_of(cli, bad).write_bytes(b"BAD")
    looked = cli("blob", "verify", "--no-quarantine", "--json")
    assert looked.exit_code == 1
    assert [(problem["hash"], problem["quarantine"]) for problem in looked.json["problems"]] == [(bad, None)]
    outcome = cli("blob", "verify")
    assert outcome.exit_code == 1
    assert bad in outcome.err
    assert ".quarantine" in outcome.out
    assert cli("blob", "verify").exit_code == 0
    assert [blob["hash"] for blob in cli("blob", "ls", "--json").json] == [good]
    assert put(cli, tmp_path, b"bad") == [bad]


def test_collect_keeps_what_is_listed(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, old, young = put(cli, tmp_path, b"kept", b"old", b"young")
    for blob_hash in (kept, old):
        os.utime(path_of(cli, blob_hash), (0, 0))
    keep = tmp_path / "keep"
    keep.write_text(f"{kept.upper()}  a file name\n\n")
    dry = cli("blob", "collect", "--keep", str(keep), "--dry-run", "--json").json
    assert (dry["deleted_count"], dry["kept_count"], dry["young_count"], dry["dry_run"]) == (1, 1, 1, True)
    assert len(cli("blob", "ls").lines) == 3
    assert cli("blob", "collect", "--keep", str(keep)).lines == [
        "deleted 1 blob, 3 B",
        "kept 1 blob on the list and 1 young",
    ]
    assert [blob["hash"] for blob in cli("blob", "ls", "--json").json] == sorted([kept, young])

    with open(keep, "a", encoding="utf-8") as file:
        file.write(f"{MISSING_HASH}\n")
    outcome = cli("blob", "collect", "--keep", str(keep), "--grace", "0", "--json")
    assert (outcome.exit_code, outcome.json["deleted_count"], outcome.json["missing"]) == (1, 1, [MISSING_HASH])
    assert MISSING_HASH in cli("blob", "collect", "--keep", str(keep)).err

    keep.write_text(f"{kept}\nnonsense\n")
    assert "line 2" in cli.refused("blob", "collect", "--keep", str(keep), "--grace", "0")
    assert cli.misused("blob", "collect")
    assert cli.misused("blob", "collect", "--keep", str(keep), "--grace", "-1")
    assert "No such file" in cli.refused("blob", "collect", "--keep", str(tmp_path / "missing"))
    assert len(cli("blob", "ls").lines) == 1


def test_json_of_collect_is_one_document(cli: Cli, tmp_path: Path) -> None:
    put(cli, tmp_path, b"x")
    (tmp_path / "keep").write_text("")
    document = json.loads(cli("blob", "collect", "--keep", str(tmp_path / "keep"), "--json").out)
    assert sorted(document) == ["deleted_count", "deleted_size", "dry_run", "kept_count", "missing", "young_count"]
