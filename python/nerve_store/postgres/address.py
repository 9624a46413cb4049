"""A log on PostgreSQL in one text, for a command line: the server's URL, and ours at its end."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

_OURS = ("schema", "archive", "listen_url")


@dataclass(frozen=True, slots=True)
class Address:
    """`postgresql://user@host/database?schema=nerve&archive=/srv/days`, taken apart."""

    url: str
    """What libpq takes."""
    schema: str = "nerve"
    archive: str | None = None
    """The directory of the day files."""
    listen_url: str | None = None

    @classmethod
    def of(cls, text: str) -> Address:
        """The parts; `ValueError` if one of ours is given twice."""
        place, _, query = text.partition("?")
        theirs: list[str] = []
        ours: dict[str, str] = {}
        for item in filter(None, query.split("&")):
            name, _, value = item.partition("=")
            if name not in _OURS:
                theirs.append(item)
            elif name in ours:
                raise ValueError(f"the URL names {name} twice")
            else:
                ours[name] = unquote(value)
        return cls("?".join([place, "&".join(theirs)]) if theirs else place, **ours)
