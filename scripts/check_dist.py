"""Checks what is to be published, and sets its bills of materials apart: `python scripts/check_dist.py DIST`.

Of each wheel: its platform is the one that its name promises (auditwheel, on Linux), and where that has glibc, threads
are unwound by the system's unwinder alone; it has a bill of materials and the type information; it has no other
dependency than those of the extras; the package index can show its README. Of the whole: the version is the one of
Cargo.toml, and of the tag that is built.
"""

from __future__ import annotations

import email
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

from readme_renderer import markdown

PROJECT = Path(__file__).resolve().parent.parent


def check_wheel(wheel: Path, version: str) -> None:
    """One wheel; writes its bill of materials beside it."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = email.message_from_bytes(archive.read(only(names, r"\.dist-info/METADATA")))
        bill = archive.read(only(names, r"\.dist-info/sboms/.*\.cyclonedx\.json"))
        module = archive.read(only(names, r"\.so"))
    assert metadata["Version"] == version, (wheel.name, metadata["Version"])
    required = metadata.get_all("Requires-Dist") or []
    assert all("extra ==" in requirement for requirement in required), required
    assert "nerve_store/py.typed" in names
    assert_shown(metadata.get_payload())
    components = json.loads(bill)["components"]
    assert {"rusqlite", "libsqlite3-sys", "zstd-sys"} <= {component["name"] for component in components}
    wheel.with_suffix(".cyclonedx.json").write_bytes(bill)
    if "linux" in wheel.name:
        # Nowhere to look for libraries: only those that the platform promises are needed, and on a system with glibc's
        # development files the name of musl's library, libc.so, is that of a linker script, which is no ELF file.
        command = [sys.executable, "-m", "auditwheel", "show", "--ldpaths=", str(wheel)]
        shown = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        promised = wheel.stem.split("-")[-1].split(".")
        consistent = re.findall(r'"((?:many|musl)linux[^"]*)"', shown.replace("\n", " "))
        assert set(promised) & set(consistent), f"{wheel.name}: {shown}"
        # Two unwinders in one process: scripts/unwinder.sh says what becomes of that.
        if "manylinux" in wheel.name:
            assert "libgcc_s.so.1" in shown, f"{wheel.name} is not linked against libgcc_s"
            assert b"libunwind: " not in module, f"{wheel.name} has an unwinder of its own"
    print(f"{wheel.name}: {len(components)} components in its bill of materials")


def check_sdist(sdist: Path, version: str) -> None:
    """The source distribution: it has what a build needs, and nothing that is made."""
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    needed = {"Cargo.toml", "Cargo.lock", "pyproject.toml", ".cargo/config.toml", "LICENSE", "README.md", "src/lib.rs"}
    assert needed <= names, needed - names
    assert not [name for name in names if name.startswith(("target/", "demo-data/", ".venv")) or name.endswith(".so")]
    assert sdist.name == f"nerve_store-{version}.tar.gz"
    print(f"{sdist.name}: {len(names)} files")


def assert_shown(readme: str) -> None:
    """The package index can show the README, and no link in it is a path of the repository."""
    shown = markdown.render(readme)
    assert shown is not None
    leads = re.findall(r'(?:href|src|srcset)="([^"]*)"', shown)
    assert leads
    assert [lead for lead in leads if not lead.startswith(("https://", "#"))] == []


def only(names: list[str], pattern: str) -> str:
    """The one name that ends in `pattern`."""
    (found,) = [name for name in names if re.search(f"{pattern}$", name)]
    return found


def main(dist: Path) -> None:
    """Raises at the first thing that is wrong."""
    version = tomllib.loads((PROJECT / "Cargo.toml").read_text(encoding="utf-8"))["package"]["version"]
    if os.environ.get("GITHUB_REF_TYPE") == "tag":
        assert os.environ["GITHUB_REF_NAME"] == f"v{version}"
    files = sorted(dist.glob("*.whl")) + sorted(dist.glob("*.tar.gz"))
    assert files, f"nothing in {dist}"
    for file in files:
        (check_wheel if file.suffix == ".whl" else check_sdist)(file, version)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
