"""The set-up says at once what a machine lacks, and an interrupted one is begun anew.

Each test runs `make` in a copy of the build files, with a PATH that has the programs of the set-up alone. Those that
the machine may lack are stand-ins, which a test leaves out, makes older or breaks.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from support import TESTS

PROJECT = TESTS.parent
FILES = [
    "Makefile",
    "Cargo.toml",
    "pyproject.toml",
    "requirements-dev.txt",
    "scripts/toolchain.sh",
    "scripts/new-venv.sh",
]
SYSTEM = "awk cat dirname echo expand find ls make mkdir rm sed sh test touch".split()

# An environment's interpreter notes what it is asked to do, and can be told to fail at it.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) echo 3.11 ;;
    *ensurepip*) exit 0 ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        [ ! -e "$STATE/fail-venv" ] || exit 1
        echo venv >>"$STATE/calls"
        : >"$3/pyvenv.cfg"
        cat "$0" >"$3/bin/python"
        chmod +x "$3/bin/python" ;;
    "-m pip install "*)
        echo pip >>"$STATE/calls"
        [ ! -e "$STATE/fail-pip" ] || exit 1 ;;
    *) exit 9 ;;
esac
"""
GOOD = {
    "python3": PYTHON,
    "cargo": "#!/bin/sh\nexit 0\n",
    "rustc": "#!/bin/sh\necho 'rustc 1.99.0 (0123456 2027-01-01)'\n",
    "cc": "#!/bin/sh\ncat >/dev/null\n",
}


def prints(text: str) -> str:
    return f"#!/bin/sh\necho '{text}'\n"


FAILS = "#!/bin/sh\necho 'no toolchain is set' >&2\nexit 1\n"


@dataclass(frozen=True)
class Machine:
    """A copy of the build files, and the programs that are on its PATH."""

    checkout: Path
    programs: Path
    state: Path

    def make(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": str(self.programs), "STATE": str(self.state), "HOME": str(self.state)}
        command = ["make", "-C", str(self.checkout), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)

    def install(self, name: str, text: str | None) -> None:
        program = self.programs / name
        program.unlink(missing_ok=True)
        if text is not None:
            program.write_text(text)
            program.chmod(0o755)

    @property
    def calls(self) -> list[str]:
        noted = self.state / "calls"
        return noted.read_text().split() if noted.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    made = Machine(tmp_path / "checkout", tmp_path / "programs", tmp_path / "state")
    for directory in [made.checkout / "scripts", made.checkout / "src", made.programs, made.state]:
        directory.mkdir(parents=True)
    for name in FILES:
        shutil.copy(PROJECT / name, made.checkout / name)
    for name in [*SYSTEM, "chmod"]:
        found = shutil.which(name)
        assert found is not None, name
        (made.programs / name).symlink_to(found)
    for name, text in GOOD.items():
        made.install(name, text)
    return made


def required(pattern: str, file: str) -> str:
    found = re.search(pattern, (PROJECT / file).read_text(), re.MULTILINE)
    assert found is not None
    return found[1]


RUST = required(r'^rust-version = "(.*)"', "Cargo.toml")
OLDER_RUST = f"{RUST.split('.')[0]}.{int(RUST.split('.')[1]) - 1}.9"

MISSING = [
    pytest.param({"python3": None}, "there is no python3", "apt install python3", id="no python"),
    pytest.param({"python3": FAILS}, "a Python that runs", "python3 -c", id="broken python"),
    pytest.param({"python3": prints("3.9")}, "python3 is 3.9", "PYTHON=python3.11", id="old python"),
    pytest.param(
        {"python3": PYTHON.replace("*ensurepip*) exit 0", "*ensurepip*) exit 1")}, "venv", "python3-venv", id="no venv"
    ),
    pytest.param({"cargo": None}, "there is no cargo", "https://rustup.rs", id="no cargo"),
    pytest.param({"rustc": None}, "no rustc", "https://rustup.rs", id="no rustc"),
    pytest.param({"rustc": FAILS}, "rustc does not", "rustup default stable", id="rustup without a toolchain"),
    pytest.param({"rustc": prints("rustc 1.63.0")}, "rustc is 1.63.0", "rustup update", id="rust of a distribution"),
    pytest.param({"rustc": prints(f"rustc {OLDER_RUST}")}, f"rustc is {OLDER_RUST}", "rustup update", id="old rust"),
    pytest.param({"cc": None}, "there is no cc", "apt install build-essential", id="no compiler"),
    pytest.param({"cc": FAILS}, "cc does not compile", "apt install build-essential", id="no headers"),
]


@pytest.mark.parametrize("target", ["demo", "test"])
@pytest.mark.parametrize(("programs", "what", "way"), MISSING)
def test_what_is_missing_is_named_before_anything_is_made(
    machine: Machine, target: str, programs: dict[str, str | None], what: str, way: str
) -> None:
    for name, text in programs.items():
        machine.install(name, text)
    done = machine.make(target)
    assert done.returncode != 0
    assert what in done.stderr
    assert way in done.stderr
    assert done.stderr.count("\n  - ") == 1, done.stderr
    assert not (machine.checkout / ".venv").exists()
    assert machine.calls == []


def test_everything_that_is_missing_is_named_at_once(machine: Machine) -> None:
    for name in GOOD:
        machine.install(name, None)
    complaint = machine.make("demo").stderr
    assert complaint.count("\n  - ") == 3
    for what in [f"Rust {RUST}", "Python 3.11", "a C compiler"]:
        assert what in complaint


@pytest.mark.parametrize("version", [RUST, f"{RUST}.0", f"{RUST}.1-nightly", "1.100.0", "2.0.0"])
def test_a_rust_that_suffices_is_taken(machine: Machine, version: str) -> None:
    machine.install("rustc", prints(f"rustc {version} (0123456 2027-01-01)"))
    done = machine.make("venv")
    assert done.returncode == 0, done.stderr


def test_the_compiler_may_be_another(machine: Machine) -> None:
    machine.install("cc", None)
    machine.install("gcc-14", GOOD["cc"])
    assert machine.make("venv").returncode != 0
    environment = {"PATH": str(machine.programs), "STATE": str(machine.state), "CC": "gcc-14 -m64"}
    command = ["make", "-C", str(machine.checkout), "venv"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_a_second_run_makes_nothing(machine: Machine) -> None:
    assert machine.make("venv").returncode == 0
    assert machine.make("venv").returncode == 0
    assert machine.calls == ["venv", "pip"]


@pytest.mark.parametrize("step", ["venv", "pip"])
def test_an_interrupted_environment_is_made_anew(machine: Machine, step: str) -> None:
    fault = machine.state / f"fail-{step}"
    fault.touch()
    assert machine.make("venv").returncode != 0
    fault.unlink()
    (machine.state / "calls").unlink(missing_ok=True)
    # What the first run left half written must not be there in the second.
    (machine.checkout / ".venv" / "half").touch()
    done = machine.make("venv")
    assert done.returncode == 0, done.stderr
    assert machine.calls == ["venv", "pip"]
    assert not (machine.checkout / ".venv" / "half").exists()


def test_an_interrupted_update_of_the_tools_is_made_anew(machine: Machine) -> None:
    assert machine.make("venv").returncode == 0
    requirements = machine.checkout / "requirements-dev.txt"
    later = (machine.checkout / ".venv" / ".tools-stamp").stat().st_mtime + 10
    os.utime(requirements, (later, later))
    (machine.state / "fail-pip").touch()
    assert machine.make("venv").returncode != 0
    (machine.state / "fail-pip").unlink()
    (machine.state / "calls").unlink()
    assert machine.make("venv").returncode == 0
    assert machine.calls == ["venv", "pip"]


def test_an_environment_without_its_interpreter_is_made_anew(machine: Machine) -> None:
    assert machine.make("venv").returncode == 0
    python = machine.checkout / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/missing/python3")
    assert machine.make("venv").returncode == 0
    assert machine.calls == ["venv", "pip"] * 2


def test_a_moved_checkout_makes_its_environment_anew(machine: Machine) -> None:
    assert machine.make("venv").returncode == 0
    moved = Machine(machine.checkout.rename(machine.checkout.with_name("moved")), machine.programs, machine.state)
    assert moved.make("venv").returncode == 0
    assert moved.calls == ["venv", "pip"] * 2


def test_a_directory_that_is_no_environment_is_not_removed(machine: Machine) -> None:
    precious = machine.checkout / "precious" / "file"
    precious.parent.mkdir()
    precious.touch()
    done = machine.make("VENV=precious", "venv")
    assert done.returncode != 0
    assert "is no virtual environment" in done.stderr
    assert precious.exists()
