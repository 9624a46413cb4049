"""An Azure server for the tests: azurite, if it is installed. `make services` installs it where there is npm."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import itertools
import os
import shutil
import sys
import tempfile
import urllib.request
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from support.objects import started

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The account that azurite has."""

_numbers = itertools.count()


def program() -> str | None:
    """Where `make services` puts it, or on the path."""
    beside = Path(sys.prefix) / "node_modules" / ".bin"
    return shutil.which("azurite-blob", path=str(beside)) or shutil.which("azurite-blob")


@functools.cache
def shared() -> int:
    """The port of the server that the tests of this process share."""
    directory = Path(tempfile.mkdtemp(prefix="nerve-store-azurite-"))
    options = ["--location", str(directory), "--skipApiVersionCheck", "--silent", "--disableTelemetry"]
    return started(lambda port: [str(program()), "--blobPort", str(port), *options], directory)


def container() -> tuple[str, dict[str, Any]]:
    """A container of its own: its URL, and the options that lead to this server."""
    port, name = shared(), f"container-{os.getpid()}-{next(_numbers)}"
    date = datetime.now(UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    headers = {"x-ms-date": date, "x-ms-version": "2021-08-06"}
    signed = ["PUT", *[""] * 11, *(f"{header}:{value}" for header, value in headers.items())]
    text = "\n".join([*signed, f"/{ACCOUNT}/{ACCOUNT}/{name}", "restype:container"])
    signature = base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    request = urllib.request.Request(
        f"{endpoint}/{name}?restype=container",
        method="PUT",
        headers=headers | {"Authorization": f"SharedKey {ACCOUNT}:{signature}"},
    )
    urllib.request.urlopen(request, timeout=30).close()
    options = {"account_name": ACCOUNT, "account_key": KEY, "endpoint": endpoint, "allow_http": True}
    return f"az://{name}/some/prefix", options
