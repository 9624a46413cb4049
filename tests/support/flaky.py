"""A proxy before an S3 server, which passes some requests on and answers others as a bad day would."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Fault = Callable[["Request"], str | None]
"""Says what becomes of a request: one of `FAULTS`, "forbid" (403 without passing it on; to a deletion of keys 200 with
an error for each, as S3 does), "key:CODE" (the same with another code), or None for nothing."""

FAULTS = ("refuse", "busy", "conflict", "lose", "cut")
"""Refuse the connection; 503 without passing it on; 409 without passing it on; pass it on and lose the answer; pass it
on and cut the answer off in the middle."""


_REFUSALS = {
    "busy": (503, "SlowDown"),
    "conflict": (409, "ConditionalRequestConflict"),
    "forbid": (403, "AccessDenied"),
}
_HOP = {"connection", "keep-alive", "transfer-encoding"}


@dataclass(frozen=True)
class Answer:
    """What the server answered."""

    status: int
    content: bytes
    headers: dict[str, str]


@dataclass(frozen=True)
class Request:
    """What was asked for."""

    method: str
    path: str
    number: int
    body: bytes


@dataclass
class Flaky:
    """A proxy that runs before the server at a port of this machine."""

    upstream: int
    port: int = 0
    fault: Fault | None = None
    added: dict[str, str] = field(default_factory=dict)
    """Headers that each answer gets beside the server's."""
    requests: list[Request] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next(self, method: str, path: str, body: bytes) -> str | None:
        """Take a request down, and say what becomes of it."""
        with self.lock:
            request = Request(method, path, len(self.requests), body)
            self.requests.append(request)
            return None if self.fault is None else self.fault(request)

    def ask(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> Answer | None:
        """The server's answer; None if it would not hear the request to its end."""
        with closing(http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)) as client:
            try:
                client.request(method, path, body, headers)
                answer = client.getresponse()
                return Answer(answer.status, answer.read(), dict(answer.getheaders()))
            except (OSError, http.client.HTTPException):
                return None


def _of_keys(body: bytes, code: str) -> Answer:
    """An answer to a deletion of several keys, of which none was deleted."""
    keys = re.findall("<Key>.*?</Key>", body.decode())
    errors = "".join(f"<Error>{key}<Code>{code}</Code><Message>no</Message></Error>" for key in keys)
    head = '<?xml version="1.0"?><DeleteResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    return Answer(200, f"{head}{errors}</DeleteResult>".encode(), {})


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: Flaky) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.state = state


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: object) -> None:
        del format, args

    def handle(self) -> None:
        with suppress(ConnectionError):  # the client has gone
            super().handle()

    def _answer(self) -> None:
        state = self.server.state
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        what = state.next(self.command, self.path, body)
        answer: Answer | None = None
        if what is not None and self.path.endswith("?delete") and (what == "forbid" or what.startswith("key:")):
            answer = _of_keys(body, "AccessDenied" if what == "forbid" else what.removeprefix("key:"))
        elif what in _REFUSALS:
            code, name = _REFUSALS[what]
            answer = Answer(code, f"<Error><Code>{name}</Code><Message>no</Message></Error>".encode(), {})
        elif what != "refuse":
            answer = state.ask(self.command, self.path, body, dict(self.headers.items()))
        if answer is None or what == "lose":
            self.close_connection = True
        else:
            self._give(answer, is_cut=what == "cut")

    def _give(self, answer: Answer, *, is_cut: bool) -> None:
        self.send_response_only(answer.status)
        length = str(len(answer.content))
        for name, value in (answer.headers | self.server.state.added).items():
            if name.lower() == "content-length":
                length = value  # of a HEAD, whose answer has no content
            elif name.lower() not in _HOP:
                self.send_header(name, value)
        if answer.status != 204:
            self.send_header("content-length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.content[: len(answer.content) // 2] if is_cut else answer.content)
        if is_cut:
            self.close_connection = True

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _answer  # noqa: N815


@contextmanager
def flaky(upstream: int) -> Iterator[Flaky]:
    """A proxy before the server at a port of this machine."""
    state = Flaky(upstream)
    with _Server(state) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()


def once_each(fault: str) -> Fault:
    """The fault for the first request of each kind, except those that delete."""
    seen: set[tuple[str, str]] = set()

    def of(request: Request) -> str | None:
        if request.method == "DELETE" or (request.method, request.path) in seen:
            return None
        seen.add((request.method, request.path))
        return fault

    return of


def conflicts_each(count: int) -> Fault:
    """409 for the first so many requests that create one of a log's objects, each time without storing it."""
    left: dict[str, int] = {}

    def of(request: Request) -> str | None:
        if request.method != "PUT" or "/logs/" not in request.path:
            return None
        left.setdefault(request.path, count)
        left[request.path] -= 1
        return "conflict" if left[request.path] >= 0 else None

    return of
