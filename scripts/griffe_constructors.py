"""Classes of the core are made by `__new__`: shows its arguments as those of the class."""

from __future__ import annotations

from typing import Any

import griffe


class Constructors(griffe.Extension):
    """Presents `__new__` as `__init__`, which is what the site shows."""

    def on_class(self, *, cls: griffe.Class, **_: Any) -> None:
        """Without its first argument, and without a type that it returns."""
        made_by = cls.members.get("__new__")
        if not isinstance(made_by, griffe.Function) or "__init__" in cls.members:
            return
        parameters = griffe.Parameters(griffe.Parameter("self"), *list(made_by.parameters)[1:])
        cls.set_member("__init__", griffe.Function("__init__", parameters=parameters, lineno=made_by.lineno))
