"""The meta values of a store."""

from __future__ import annotations

from pathlib import Path

import nerve_store as ns


def test_meta_is_set_and_overwritten(data_dir: Path) -> None:
    path = data_dir / "logs.db"
    with ns.LogStore(path) as store:
        assert store.get_meta("名前") is None
        store.set_meta("名前", "値 🧠")
        store.set_meta("", "empty key")
        assert store.get_meta("名前") == "値 🧠"
        store.set_meta("名前", "")
    with ns.LogStore(path) as store:
        assert store.get_meta("名前") == ""
        assert store.get_meta("") == "empty key"
        assert store.get_meta("NAME") is None
