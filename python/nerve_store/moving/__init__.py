"""Moving a log between data directories and servers, while it is written to: what `nerve-store copy` does.

Invariant: the target takes its name last. Until then no store can open it, and a copy that was interrupted goes on.
"""

from nerve_store.moving.work import CopyReport, copy

__all__ = ["CopyReport", "copy"]
