"""S3 servers for the tests: those that are installed, started on a port of their own; nothing is installed.

A server is started once a test process and ends with it. `make services` installs what is missing.
"""

from __future__ import annotations

import atexit
import ctypes
import functools
import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.servers import free_port

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1
KEY = "testtest"

_numbers = itertools.count()


@dataclass(frozen=True)
class S3Server:
    """A server that runs."""

    name: str
    port: int
    directory: Path

    def bucket(self) -> tuple[str, dict[str, Any]]:
        """A bucket of its own: its URL, and the options that lead to this server."""
        name = f"bucket-{os.getpid()}-{next(_numbers)}"
        if self.name == "versitygw":
            (self.directory / name).mkdir()
        else:
            request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{name}", method="PUT")
            urllib.request.urlopen(request, timeout=30).close()
        return f"s3://{name}/some/prefix", self.options(self.port)

    @staticmethod
    def options(port: int) -> dict[str, Any]:
        """Options that lead to a port of this machine."""
        return {
            "endpoint": f"http://127.0.0.1:{port}",
            "access_key_id": KEY,
            "secret_access_key": KEY,
            "region": "us-east-1",
            "allow_http": True,
        }


MOTO = """
import io, sys, threading
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import run_simple

moto, one_at_a_time = DomainDispatcherApplication(create_backend_app), threading.Lock()

def answer(environ, start_response):
    length = int(environ.get("CONTENT_LENGTH") or 0)
    environ["wsgi.input"] = io.BytesIO(environ["wsgi.input"].read(length))
    with one_at_a_time:
        return [b"".join(moto(environ, start_response))]

run_simple("127.0.0.1", int(sys.argv[1]), answer, threaded=True)
"""
"""Its own program answers in threads, and lets two of them create the same object. Without threads, a connection that a
client keeps and sends nothing over would be waited for, and no other one be answered."""


def _versitygw() -> str | None:
    """Beside the interpreter, where `make services` puts it, or on the path."""
    return shutil.which("versitygw", path=str(Path(sys.executable).parent)) or shutil.which("versitygw")


def missing(name: str) -> str | None:
    """Why a server cannot be started here, if it cannot."""
    is_there = _versitygw() if name == "versitygw" else importlib.util.find_spec("moto")
    if is_there is None:
        return f"{name} is not installed; make services installs it"
    return None


def _end_with_this_process() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _answers(port: int) -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).close()
    except urllib.error.HTTPError as error:
        error.close()  # it refuses to list the buckets of nobody
    except OSError:
        return False
    return True


def started(command: Callable[[int], list[str]], directory: Path) -> int:
    """The port of a server that was started; it ends with this process, and `directory` is removed."""
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    port = free_port()
    with (directory.parent / f"{directory.name}.log").open("wb") as log:
        process = subprocess.Popen(
            command(port), stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            preexec_fn=_end_with_this_process,  # noqa: PLW1509 - it makes one system call
        )  # fmt: skip
    atexit.register(Path(log.name).unlink, missing_ok=True)
    atexit.register(process.wait, 10)
    atexit.register(process.kill)
    end = time.monotonic() + 60
    while not _answers(port):
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(Path(log.name).read_text()[-2000:])
        time.sleep(0.05)
    return port


def best() -> str:
    """The server to test with, if only one is: moto is slow, but comes from the registry of Python's packages."""
    return "versitygw" if missing("versitygw") is None else "moto"


@functools.cache
def shared(name: str) -> S3Server:
    """The server of this name that the tests of this process share."""
    directory = Path(tempfile.mkdtemp(prefix=f"nerve-store-{name}-"))

    def command(port: int) -> list[str]:
        if name == "moto":
            return [sys.executable, "-c", MOTO, str(port)]
        options = ["--access", KEY, "--secret", KEY, "--port", f"127.0.0.1:{port}", "--keep-alive", "--quiet"]
        return [str(_versitygw()), *options, "posix", str(directory)]

    return S3Server(name, started(command, directory), directory)
