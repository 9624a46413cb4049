"""Rules for the writers of blobs that look right, and lose what a collector deletes: the controls of its tests."""

from __future__ import annotations

import pytest

from nerve_store.remote.blobs import write


def trust_what_exists(patch: pytest.MonkeyPatch) -> None:
    """Acknowledge a blob that is there already."""
    patch.setattr(write, "is_young", lambda found, grace: True)


def put_and_trust(patch: pytest.MonkeyPatch) -> None:
    """Put it again, and do not wait for the collector that may have listed it."""
    patch.setattr(write, "is_young", lambda found, grace: False)
    patch.setattr(write, "wait_for_turns", lambda bucket, key: None)


CONTROLS = (trust_what_exists, put_and_trust)
