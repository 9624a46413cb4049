"""Both type checkers refuse wrong programs, and the package's types are complete; the two faces have the same types."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import nerve_store as ns
from support.stub import STUB

ROOT = Path(__file__).parent.parent
WRONG = Path(__file__).parent / "typing" / "wrong.py"
SCRIPTS = Path(sysconfig.get_path("scripts"))
PACKAGE = Path(ns.__file__).parent


def wrong_lines() -> set[int]:
    lines = WRONG.read_text("utf-8").splitlines()
    return {number for number, line in enumerate(lines, 1) if line.endswith("# wrong")}


def run(*command: str, cwd: Path) -> str:
    if not Path(command[0]).exists():
        pytest.skip(f"{command[0]} is not installed")
    environment = os.environ | {"PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.stdout


def test_mypy_refuses_each_wrong_line(tmp_path: Path) -> None:
    (tmp_path / "mypy.ini").write_text(f"[mypy]\nstrict = True\nmypy_path = {PACKAGE.parent}\n")
    out = run(sys.executable, "-m", "mypy", "--cache-dir", str(tmp_path / "cache"), str(WRONG), cwd=tmp_path)
    errors = {int(line) for line in re.findall(r"wrong\.py:(\d+): error", out)}
    assert errors == wrong_lines(), out


def test_pyright_refuses_each_wrong_line(tmp_path: Path) -> None:
    settings = {"typeCheckingMode": "strict", "extraPaths": [str(PACKAGE.parent)], "include": [str(WRONG)]}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    out = run(str(SCRIPTS / "basedpyright"), "--outputjson", "-p", str(tmp_path), cwd=tmp_path)
    found = json.loads(out)["generalDiagnostics"]
    # What a wrong call returns may be of an unknown type, which is no error of its own where it is used.
    found = [each for each in found if not each["rule"].startswith("reportUnknown")]
    errors = {1 + each["range"]["start"]["line"] for each in found if each["severity"] == "error"}
    assert errors == wrong_lines(), out


def test_every_public_type_is_known_to_pyright(tmp_path: Path) -> None:
    command = ["--verifytypes", "nerve_store", "--ignoreexternal", "--outputjson"]
    out = run(str(SCRIPTS / "basedpyright"), *command, cwd=tmp_path)
    completeness = json.loads(out)["typeCompleteness"]
    exported = [each for each in completeness["symbols"] if each["isExported"]]
    # pyright does not find psycopg and obstore, whose types these need; mypy checks them.
    apart = ("postgres", "remote", "objectblob", "moving", "open_server", "open_logs")
    exported = [each for each in exported if not any(word in each["name"].lower() for word in apart)]
    assert [each["name"] for each in exported if not each["isTypeKnown"]] == []
    assert {each["name"] for each in exported} >= {f"nerve_store.{name}" for name in ("Store",)}


# --- one declaration, two faces ----------------------------------------------------------------------------------


def methods(path: Path) -> dict[str, dict[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """The methods of the classes in a file, by the name of the class."""
    return {
        node.name: {
            method.name: method for method in node.body if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        for node in ast.parse(path.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef)
    }


CORE = methods(STUB)
ASYNC = {
    "LogStore": {
        name: method
        for module, owner in (("reads", "Reads"), ("runs", "Runs"), ("upkeep", "Upkeep"), ("store", "AsyncLogStore"))
        for name, method in methods(PACKAGE / "aio" / f"{module}.py")[owner].items()
    },
    "BlobStore": methods(PACKAGE / "aio" / "blobs.py")["BlobCalls"],
}
STREAMS = {"LogIterator": "AsyncIterator[LogEntry]", "LogFollower": "AsyncLogFollower"}
STREAMS |= {"WriteBatch": "AsyncBatch", "WorkflowRunIterator": "AsyncIterator[WorkflowRun]"}
STREAMS |= {"BlobWriter": "AsyncBlobWriter", "BinaryIO": "AsyncBlobReader"}


@pytest.mark.parametrize(
    ("owner", "name"),
    [(owner, name) for owner in ASYNC for name in CORE[owner] if not name.startswith("_") and name != "close"],
)
def test_the_asynchronous_method_has_the_same_types(owner: str, name: str) -> None:
    theirs, ours = CORE[owner][name], ASYNC[owner][name]
    for kind in ("args", "kwonlyargs"):
        expected = [(each.arg, each.annotation and ast.unparse(each.annotation)) for each in getattr(theirs.args, kind)]
        found = [(each.arg, each.annotation and ast.unparse(each.annotation)) for each in getattr(ours.args, kind)]
        assert found == expected
    assert theirs.returns is not None
    assert ours.returns is not None
    returned = ast.unparse(theirs.returns)
    assert ast.unparse(ours.returns) == STREAMS.get(returned, returned)
