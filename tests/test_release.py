"""What a release is made of agrees with itself, and the workflows that make it are valid."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

from support import TESTS

PROJECT = TESTS.parent
WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


def toml(name: str) -> dict[str, Any]:
    return tomllib.loads((PROJECT / name).read_text(encoding="utf-8"))


VERSION: str = toml("Cargo.toml")["package"]["version"]


def test_the_lock_file_has_the_version() -> None:
    packages = toml("Cargo.lock")["package"]
    assert [package["version"] for package in packages if package["name"] == "nerve_store"] == [VERSION]


def test_the_changelog_has_the_version_below_what_is_unreleased() -> None:
    headings = re.findall(r"^## (.*)$", (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert headings[0] == "Unreleased"
    assert re.fullmatch(rf"{re.escape(VERSION)} - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_newest_minor_version_gets_security_fixes() -> None:
    supported = ".".join(VERSION.split(".")[:2])
    assert f"| {supported} | yes |" in (PROJECT / "SECURITY.md").read_text(encoding="utf-8")


def test_windows_is_not_said_to_be_supported() -> None:
    systems = [line for line in toml("pyproject.toml")["project"]["classifiers"] if line.startswith("Operating System")]
    assert systems == ["Operating System :: MacOS :: MacOS X", "Operating System :: POSIX :: Linux"]
    assert 'cfg(not(unix))]\ncompile_error!("nerve_store does not support Windows' in re.sub(
        r"\(\n *", "(", (PROJECT / "src" / "lib.rs").read_text(encoding="utf-8")
    )


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_actions_are_named_by_their_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", workflow.read_text(encoding="utf-8"))
    assert used
    for action, comment in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action
        assert re.fullmatch(r" # v\d+\.\d+\.\d+", comment), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_calls_targets_and_scripts_that_are_there(workflow: Path) -> None:
    text = workflow.read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    called = {word for line in re.findall(r"run: make (.*)", text) for word in line.split() if "=" not in word}
    assert called <= targets
    assert all((PROJECT / script).is_file() for script in re.findall(r"scripts/\S+\.(?:py|sh)", text))


def test_a_release_has_every_wheel_that_the_readme_names() -> None:
    release = (PROJECT / ".github" / "workflows" / "release.yml").read_text(encoding="utf-8")
    for target in [
        "x86_64-unknown-linux-gnu",
        "aarch64-unknown-linux-gnu",
        "x86_64-unknown-linux-musl",
        "aarch64-unknown-linux-musl",
        "aarch64-apple-darwin",
    ]:
        assert target in release


def test_the_workflows_are_valid() -> None:
    actionlint = shutil.which("actionlint")
    if actionlint is None:
        pytest.skip("actionlint is not on the PATH; `make lint-workflows` runs it")
    done = subprocess.run([actionlint, *WORKFLOWS], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
