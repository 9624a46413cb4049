"""URLs of object stores that are refused, and what messages show of them."""

from __future__ import annotations

import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import nerve_store as ns
from contract.blob_places import Place
from nerve_store.moving import copy

pytest.importorskip("obstore", reason="obstore is not installed; make venv installs it")
pytest.importorskip("psycopg", reason="psycopg is not installed; make services installs it")

from nerve_store.remote.bucket import Bucket

SECRET = "TOP+SECRET"
OPENINGS: dict[str, Callable[[Path, str], Any]] = {
    "remote": lambda path, url: ns.Store(path / "data", remote=url),
    "remote of AsyncStore": lambda path, url: ns.AsyncStore(path / "data", remote=url),
    "remote of a server": lambda _, url: ns.Store("postgresql://nobody@127.0.0.1:1/x", remote=url),
    "archive": lambda _, url: ns.PostgresLogStore("postgresql://nobody@127.0.0.1:1/x", archive=url),
    "archive of AsyncPostgresLogStore": lambda _, url: ns.AsyncPostgresLogStore(
        "postgresql://nobody@127.0.0.1:1/x", archive=url
    ),
    "url": lambda _, url: ns.ObjectBlobStore(url),
    "url of AsyncObjectBlobStore": lambda _, url: ns.AsyncObjectBlobStore(url),
    "remote of copy": lambda path, url: copy(str(path / "data"), str(path / "there"), remote=url),
}


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize(
    "url",
    [
        f"s4://AKIA:{SECRET}@bucket/prefix",
        f"s4://AKIA:slash/{SECRET}@bucket/prefix",
        f"https://{SECRET}@bucket/prefix",
        f"s3://AKIA:{SECRET}@bucket/prefix?query",
        f"s3://AKIA:{SECRET}@bucket/prefix#{SECRET}@fragment",
        f"az://account:{SECRET}@container/prefix",
    ],
)
def test_message_of_a_wrong_url_has_no_secret(tmp_path: Path, opening: str, url: str) -> None:
    ns.Store(tmp_path / "data").close()
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        OPENINGS[opening](tmp_path, url)
    told = "".join(traceback.format_exception_only(caught.value))
    causes = (caught.value.__cause__, None if caught.value.__suppress_context__ else caught.value.__context__)
    assert SECRET not in told + "".join(map(str, causes))


@pytest.mark.parametrize("opening", OPENINGS)
@pytest.mark.parametrize("url", ["memory://place?x=y", "memory://place/a#b", "file:///tmp/a?b", "s3://bucket/a?b"])
def test_url_with_what_the_client_would_drop_is_refused(tmp_path: Path, opening: str, url: str) -> None:
    name = opening.split(maxsplit=1)[0]
    with pytest.raises(ValueError, match=rf"{name} .* must not contain [?#]"):
        OPENINGS[opening](tmp_path, url)
    assert not list(tmp_path.iterdir())


def test_signs_that_are_quoted_are_part_of_the_place(tmp_path: Path) -> None:
    place = Place("file", tmp_path / "a?b#c", (tmp_path / "a?b#c").as_uri())
    Bucket(place.url, {}).put("key", b"x")
    assert (place.path / "key").read_bytes() == b"x"


@pytest.mark.parametrize("login", ["AKIA:secret", "AKIA:se/cret", "AKIA:se@cret"])
def test_place_has_no_login(login: str) -> None:
    assert Bucket(f"memory://{login}@bucket/prefix", {}).place == "memory://bucket/prefix"
    assert "cret" not in Bucket(f"memory://{login}@bucket/a@b", {}).place
    assert Bucket("memory://bucket/a:b@c", {}).place == "memory://bucket/a:b@c"
