"""The command line: `verify` and what it finds, and the figures of `stats`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import nerve_store as ns
import support
from support.cli import DAY, T0, Cli


@pytest.fixture
def archived(filled: Cli) -> Cli:
    """Two plain days and a compressed one, a row that stays, and a blob."""
    filled("archive", "--max-days", "2")
    filled("archive", "--zstd")
    return filled


def day_file(cli: Cli, name: str) -> Path:
    return cli.data / "archive" / "logs" / name


def test_verify_counts_what_it_checked(archived: Cli) -> None:
    outcome = archived("verify")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert "7 rows of 3 archived days, 1 blob of 8 B: 0 problems" in outcome.out
    found = archived("verify", "--json").json
    assert found["ok"] is True
    assert (found["logs"]["day_count"], found["logs"]["archived_row_count"]) == (3, 7)
    assert (found["blobs"]["blob_count"], found["blobs"]["size"]) == (1, 8)


def test_verify_changes_nothing(archived: Cli) -> None:
    (blob,) = archived("blob", "ls", "--json").json
    (archived.data / "blobs" / blob["hash"][:2] / blob["hash"][2:]).write_bytes(b"damaged")
    before = support.without_sidecars(support.tree(archived.data))
    assert archived("verify").exit_code == 1
    assert support.without_sidecars(support.tree(archived.data)) == before


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def double(path: Path) -> None:
    path.write_bytes(path.read_bytes() * 2)


@pytest.mark.parametrize("damage", [cut, empty, flip, double, Path.unlink], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("name", ["2024-03-11.jsonl", "2024-03-14.jsonl.zst"])
def test_verify_names_a_damaged_day(archived: Cli, name: str, damage: Callable[[Path], object]) -> None:
    path = day_file(archived, name)
    damage(path)
    outcome = archived("verify")
    assert outcome.exit_code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"nerve-store: error: {path}: ")
    assert outcome.out.endswith(": 1 problem\n")
    found = archived("verify", "--json")
    assert (found.exit_code, found.err, found.json["ok"]) == (1, "", False)
    (problem,) = found.json["logs"]["problems"]
    assert (problem["path"], problem["day"]) == (str(path), name[:10])


def test_verify_names_each_problem_on_a_line_of_its_own(archived: Cli) -> None:
    (blob,) = archived("blob", "ls", "--json").json
    blob_path = archived.data / "blobs" / blob["hash"][:2] / blob["hash"][2:]
    blob_path.write_bytes(b"damaged")
    paths = [day_file(archived, "2024-03-11.jsonl"), day_file(archived, "2024-03-12.jsonl")]
    for path in paths:
        path.unlink()
    outcome = archived("verify")
    lines = outcome.err.splitlines()
    assert len(lines) == 3
    assert all(str(path) in line for path, line in zip([*paths, blob_path], lines, strict=True))
    assert "3 problems" in outcome.out


def test_verify_finds_a_row_that_another_program_changed(archived: Cli) -> None:
    path = archived.data / "logs.db"
    with ns.LogStore(path, segment_rows=2) as store:
        store.append_many([("system", "tick", None, str(number), T0 + 300_000 * DAY) for number in range(4)])
    support.foreign_sql(path, "UPDATE logs SET payload = 'edited' WHERE id = 10")
    outcome = archived("verify")
    assert outcome.exit_code == 1
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"nerve-store: error: {path}: ids ")
    assert "not what was appended" in line


def test_verify_looks_at_the_blobs_of_a_store_that_cannot_be_opened(archived: Cli) -> None:
    path = archived.data / "logs.db"
    path.write_text("this is not a database " * 400)
    for sidecar in (f"{path}-wal", f"{path}-shm"):
        Path(sidecar).unlink(missing_ok=True)
    outcome = archived("verify")
    assert outcome.exit_code == 1
    (line,) = outcome.err.splitlines()
    assert str(path) in line
    assert "1 blob of 8 B: 1 problem" in outcome.out


def test_verify_of_a_directory_with_blobs_alone(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    cli("blob", "put", str(tmp_path / "file"))
    outcome = cli("verify")
    assert (outcome.exit_code, outcome.out) == (0, "verified no database, 1 blob of 4 B: 0 problems\n")
    assert cli("verify", "--json").json["logs"] is None
    assert "there is no data directory" in Cli(tmp_path / "nowhere", cli.capsys).refused("verify")


def test_verify_misses_a_database_that_was_there(archived: Cli) -> None:
    for path in archived.data.glob("logs.db*"):
        path.unlink()
    outcome = archived("verify")
    assert outcome.exit_code == 1
    (line,) = outcome.err.splitlines()
    assert "logs.db' is missing" in line
    assert "1 blob of 8 B: 1 problem" in outcome.out
    assert archived("verify", "--json").json["ok"] is False


def test_verify_of_a_directory_that_holds_nothing(cli: Cli) -> None:
    """As where a volume is not mounted."""
    cli.data.mkdir()
    outcome = cli("verify")
    assert outcome.exit_code == 1
    assert f"is {str(cli.data)!r} a data directory?" in outcome.err


@pytest.mark.parametrize("fixture", ["upstream_data", "upstream_archived"])
def test_upstreams_directories_are_verified(
    fixture: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = Cli(request.getfixturevalue(fixture), capsys)
    before = support.without_sidecars(support.tree(cli.data))
    outcome = cli("verify")
    assert (outcome.exit_code, outcome.err) == (0, "")
    assert support.without_sidecars(support.tree(cli.data)) == before


def test_stats_tell_the_archives_figures(archived: Cli) -> None:
    listed = archived("archive", "list", "--json").json
    figures = archived("stats", "--json").json["archive"]
    assert figures == {
        "day_count": 3,
        "row_count": 7,
        "size": sum(day["size"] for day in listed),
        "first_day": "2024-03-11",
        "last_day": "2024-03-14",
    }
    assert "3 days, 7 rows, " in archived("stats").out
