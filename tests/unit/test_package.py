"""The shape of the house: its face, its two colours, and who may do I/O."""

import ast
import inspect
import pathlib
from typing import Any, Iterator

import pytest

import dualdb
from dualdb import async_impl, sync_impl

ROOT = pathlib.Path(dualdb.__file__).parent


def test_the_face_is_sorted_and_whole() -> None:
    assert dualdb.__all__ == sorted(dualdb.__all__, key=str.lower) or dualdb.__all__ == sorted(
        dualdb.__all__
    )
    for name in dualdb.__all__:
        assert getattr(dualdb, name).__doc__ or name in ("Params", "Row")


def test_both_colours_are_importable_from_their_rooms() -> None:
    assert sync_impl.DatabaseService is dualdb.DatabaseService
    assert async_impl.DatabaseService is dualdb.AsyncDatabaseService
    assert sync_impl.__all__ == async_impl.__all__


def surface(cls: type) -> dict[str, Any]:
    found = {}
    for name, value in inspect.getmembers(cls):
        if not name.startswith("_"):
            found[name] = (
                arguments(value) if callable(value) else type(value).__name__,
                inspect.getdoc(value),
            )
    return found


def arguments(function: Any) -> Any:
    """Without their types, which are the colour's own where a function is taken."""
    return [
        (each.name, each.kind, each.default)
        for each in inspect.signature(function).parameters.values()
    ]


@pytest.mark.parametrize("name", sync_impl.__all__)
def test_the_two_surfaces_are_the_same_by_name_signature_and_docstring(name: str) -> None:
    sync, asynchronous = surface(getattr(sync_impl, name)), surface(getattr(async_impl, name))
    assert sync.keys() == asynchronous.keys()
    for member, (signature, docstring) in sync.items():
        assert (signature, docstring) == asynchronous[member], member


@pytest.mark.parametrize("name", sync_impl.__all__)
def test_every_public_member_says_what_it_is_for(name: str) -> None:
    for member in surface(getattr(sync_impl, name)):
        value = inspect.getattr_static(getattr(sync_impl, name), member)
        if callable(value) or isinstance(value, property):
            assert inspect.getdoc(getattr(getattr(sync_impl, name), member)), member


def imports(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module)


WAITING = {
    "socket",
    "select",
    "asyncio",
    "aiomysql",
    "dbutils",
    "pymysql.connections",
    "subprocess",
    "concurrent.futures",
}


@pytest.mark.parametrize("path", sorted(ROOT.glob("*.py")), ids=lambda path: path.name)
def test_what_decides_cannot_wait(path: pathlib.Path) -> None:
    assert not WAITING & set(imports(path))


def test_each_colour_keeps_to_itself() -> None:
    for path in (ROOT / "sync_impl").glob("*.py"):
        assert not {"asyncio", "aiomysql"} & set(imports(path)), path
        assert "async " not in path.read_text(encoding="utf-8"), path
    for path in (ROOT / "async_impl").glob("*.py"):
        assert not {"threading", "dbutils", "dbutils.pooled_db", "concurrent.futures"} & set(
            imports(path)
        ), path


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()
