"""What is installed: the versions, how SQLite was compiled, the names, and what an import costs."""

from __future__ import annotations

import importlib.metadata
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nerve_store as ns

# PRAGMA compile_options, as .cargo/config.toml asks.
OPTIONS_ON = [
    "DEFAULT_MEMSTATUS=0",
    "DQS=0",
    "ENABLE_DBPAGE_VTAB",
    "LIKE_DOESNT_MATCH_BLOBS",
    "OMIT_SHARED_CACHE",
    "THREADSAFE=1",
]
OPTIONS_OFF = ["ENABLE_API_ARMOR", "ENABLE_MEMORY_MANAGEMENT"]


def test_sqlite_is_free_of_the_wal_reset_bug() -> None:
    assert tuple(int(part) for part in ns.SQLITE_VERSION.split(".")) >= (3, 51, 3)


def test_sqlite_is_compiled_as_the_configuration_asks(log_store: ns.LogStore) -> None:
    found = {row[0] for row in log_store.sql("PRAGMA compile_options")}
    assert found.issuperset(OPTIONS_ON)
    assert found.isdisjoint(OPTIONS_OFF)
    assert log_store.sql("SELECT sqlite_version()") == [(ns.SQLITE_VERSION,)]


def test_versions_agree() -> None:
    assert ns.__version__ == importlib.metadata.version("nerve-store")
    assert ns.BUILD_PROFILE in {"release", "debug"}


def test_no_dependency_at_run_time() -> None:
    required = importlib.metadata.requires("nerve-store") or []
    assert [requirement for requirement in required if "extra ==" not in requirement] == []


def order_of(name: str) -> tuple[int, str]:
    """Constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2, name)


def test_all_names_are_there_and_in_order() -> None:
    assert ns.__all__ == sorted(set(ns.__all__), key=order_of)
    assert [name for name in ns.__all__ if not hasattr(ns, name)] == []


def test_classes_name_the_package_they_can_be_imported_from() -> None:
    for name in ns.__all__:
        value = getattr(ns, name)
        if inspect.isclass(value):
            home = sys.modules[value.__module__]
            assert getattr(home, value.__qualname__) is value, name
            assert value.__module__.startswith("nerve_store"), name


def public_callables() -> Iterator[tuple[str, object]]:
    for name in ns.__all__:
        value = getattr(ns, name)
        if callable(value):
            yield name, value
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                if not attribute.startswith("_") and callable(getattr(value, attribute)):
                    yield f"{name}.{attribute}", member


@pytest.mark.parametrize(("name", "value"), [pytest.param(*pair, id=pair[0]) for pair in public_callables()])
def test_every_public_callable_is_documented(name: str, value: object) -> None:
    documentation = inspect.getdoc(value)
    assert documentation, name
    # What dataclass writes when nobody else did.
    assert not documentation.startswith(f"{name}("), name


def test_type_information_is_shipped() -> None:
    package = Path(ns.__file__).parent
    assert (package / "py.typed").is_file()
    assert (package / "_core.pyi").is_file()


def test_an_import_pulls_in_no_heavy_module() -> None:
    script = "import sys; import nerve_store; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-I", "-c", script], check=True, capture_output=True, text=True).stdout
    assert set(loaded.split()).isdisjoint({"argparse", "asyncio", "importlib.metadata", "logging", "rich", "sqlite3"})
