"""Installs what lies in DIST into an empty environment, and tries it there: `python scripts/try_wheel.py DIST`.

The README is run, and a thread is ended in the middle of a call, which shows whether the module unwinds as glibc does.

pip takes the wheel that fits the interpreter, or builds the source distribution where there is no wheel.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
# Before 3.14, CPython ends a daemon thread like this at the exit of the process, in the middle of a call.
ENDED = """
import ctypes, sys, threading
import nerve_store as ns

store = ns.Store("ended", durability="normal")
store.blobs.write_many(str(number) for number in range(50))
end = lambda *_: ctypes.CDLL(None).pthread_exit(None)
thread = threading.Thread(target=store.blobs.verify, kwargs={"progress": end}, daemon=True)
thread.start()
thread.join(1.0)
store.logs.append("source", "type")
"""
FACTS = "import nerve_store as ns; print(ns.__version__, 'SQLite', ns.SQLITE_VERSION, ns.BUILD_PROFILE, ns.__file__)"


def main(dist: Path) -> None:
    """Raises CalledProcessError at the first step that fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "NERVE_"))}
    with tempfile.TemporaryDirectory() as directory:
        empty = Path(directory, "venv")
        venv.create(empty, with_pip=True)
        python = str(empty / "bin" / "python")

        def run(*arguments: str) -> None:
            subprocess.run([python, *arguments], cwd=work, env=environment, check=True)

        work = Path(directory, "work")
        work.mkdir()
        # A source distribution needs maturin, from the package index; a wheel needs nothing.
        offline = ["--no-index"] if list(dist.glob("*.whl")) else ["--no-binary", "nerve-store"]
        run("-m", "pip", "install", "--quiet", *offline, f"--find-links={dist.resolve()}", "nerve-store")
        run("-c", FACTS)
        if platform.libc_ver()[0] == "glibc":
            run("-c", ENDED)
        run("-W", "error", "-P", str(PROJECT / "tests" / "support" / "snippets.py"), str(PROJECT / "README.md"))
        subprocess.run([empty / "bin" / "nerve-store", "--help"], cwd=work, stdout=subprocess.DEVNULL, check=True)
    print(f"tried on {sys.version.split()[0]}, {sysconfig.get_platform()}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
