"""`help()` and the stub say the same, and a signature shows what a call without arguments does."""

import ast
import inspect
import pydoc
import re
from datetime import timedelta

import pytest

import nerve_store as ns
from nerve_store import _core
from support.stub import STUB, Member, members, rewritten

SOURCE = STUB.read_text()
MEMBERS = list(members(SOURCE))
CALLABLE = [
    member
    for member in MEMBERS
    if isinstance(member.node, ast.FunctionDef) and callable(member.runtime) and not member.node.decorator_list
]


def test_every_public_name_is_compared() -> None:
    names = {member.name for member in MEMBERS}
    for name in _core.__all__:
        value = getattr(_core, name)
        if callable(value):
            assert name in names
        if isinstance(value, type):
            public = {f"{name}.{attribute}" for attribute in vars(value) if not attribute.startswith("_")}
            assert public <= names


@pytest.mark.parametrize("member", MEMBERS, ids=lambda member: member.name)
def test_the_stub_and_help_say_the_same(member: Member) -> None:
    documentation = inspect.getdoc(member.runtime)
    assert documentation, f"{member.name} has no documentation"
    assert member.documentation == documentation, "`make stub` writes the stub's docstrings"


def test_writing_the_stub_changes_nothing() -> None:
    assert rewritten(SOURCE) == SOURCE


@pytest.mark.parametrize("member", CALLABLE, ids=lambda member: member.name)
def test_the_stub_and_the_signature_agree(member: Member) -> None:
    assert isinstance(member.node, ast.FunctionDef)
    assert callable(member.runtime)
    parameters = inspect.signature(member.runtime).parameters.values()
    arguments = member.node.args
    positional = [*arguments.posonlyargs, *arguments.args]
    defaults: dict[str, ast.expr | None] = {argument.arg: None for argument in positional}
    for argument, value in zip(reversed(positional), reversed(arguments.defaults), strict=False):
        defaults[argument.arg] = value
    keyword_only: dict[str, ast.expr | None] = dict(
        zip((argument.arg for argument in arguments.kwonlyargs), arguments.kw_defaults, strict=True)
    )
    assert [parameter.name for parameter in parameters] == [*defaults, *keyword_only]
    takes_ellipsis = {
        argument.arg
        for argument in [*positional, *arguments.kwonlyargs]
        if argument.annotation and re.search(r"JsonArgument|EllipsisType", ast.unparse(argument.annotation))
    }
    for parameter in parameters:
        default = (defaults | keyword_only)[parameter.name]
        assert (parameter.kind is parameter.KEYWORD_ONLY) == (parameter.name in keyword_only), parameter
        assert (parameter.default is parameter.empty) == (default is None), parameter
        if default is not None:
            # pyo3 shows `...` for a default that it cannot show. Where None is a value, `...` is the default itself.
            is_real = parameter.name in takes_ellipsis
            assert parameter.default is not ... or is_real, f"the default of {parameter.name} is hidden"
            assert parameter.default == eval(ast.unparse(default), {"timedelta": timedelta}), parameter


def test_default_spans_of_time_are_the_documented_ones() -> None:
    default = inspect.signature(ns.LogStore.archive_logs).parameters["retention"].default
    assert default == ns.DEFAULT_RETENTION == timedelta(days=30)
    assert inspect.signature(ns.BlobStore.collect).parameters["grace"].default == timedelta(hours=1)
    shown = pydoc.render_doc(ns.LogStore.archive_logs).replace("'timedelta'", "timedelta")  # quoted before 3.14
    assert "retention: timedelta = datetime.timedelta(days=30)" in shown


# --- the asynchronous store ------------------------------------------------------------------------------------

ASYNC = sorted(name for name in vars(ns.LogStore) if not name.startswith("_") and name != "close")


@pytest.mark.parametrize("name", ASYNC)
def test_the_asynchronous_store_says_the_same(name: str) -> None:
    documentation = inspect.getdoc(inspect.getattr_static(ns.LogStore, name))
    assert documentation
    ours = inspect.getdoc(inspect.getattr_static(ns.AsyncLogStore, name))
    assert ours is not None
    assert ours == documentation or ours.startswith(f"{documentation}\n\n")


@pytest.mark.parametrize("name", ASYNC)
def test_the_asynchronous_store_takes_the_same(name: str) -> None:
    original = getattr(ns.LogStore, name)
    if not callable(original):
        return
    theirs = inspect.signature(original).parameters.values()
    ours = inspect.signature(getattr(ns.AsyncLogStore, name)).parameters.values()
    assert [(parameter.name, parameter.default) for parameter in ours] == [
        (parameter.name, parameter.default) for parameter in theirs
    ]
    for parameter in ours:
        assert parameter.kind not in {parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL}
        assert parameter.name == "self" or parameter.annotation not in {parameter.empty, "Any"}
