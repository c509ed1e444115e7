"""The shape of the package: its public names, its two implementations, and which
modules may do I/O.
"""

import ast
import configparser
import inspect
import pathlib
import subprocess
import sys
from typing import Any, Iterator, List, Set, get_args

import pytest

import dualdb
from dualdb import async_impl, sync_impl
from dualdb.async_impl import runner as async_runner
from dualdb.execution import steps
from dualdb.sync_impl import runner as sync_runner

ROOT = pathlib.Path(dualdb.__file__).parent
REPOSITORY = pathlib.Path(__file__).parents[2]


def test_the_public_names_are_sorted_and_documented() -> None:
    assert dualdb.__all__ == sorted(dualdb.__all__)
    for name in dualdb.__all__:
        assert getattr(dualdb, name).__doc__ or name in ("Params", "Row")


def test_both_implementations_are_importable_from_their_rooms() -> None:
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
    """Without their types, which differ where a function is taken."""
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


#: Modules whose functions wait, which only these rooms may import.
WAITING = {
    "aiomysql",
    "asyncio",
    "concurrent.futures",
    "dbutils",
    "pymysql.connections",
    "select",
    "selectors",
    "socket",
    "subprocess",
}
WAITING_ROOMS = {
    "sockets.py",
    "sync_impl",
    "async_impl",
    "sandbox",
    "cli",
    "integrations",
    "testing",
}

DECIDING = sorted(
    path.relative_to(ROOT)
    for path in ROOT.rglob("*.py")
    if path.relative_to(ROOT).parts[0] not in WAITING_ROOMS
)


def waiting(imported: Iterator[str]) -> Set[str]:
    return {
        name
        for name in imported
        for module in WAITING
        if name == module or name.startswith(f"{module}.")
    }


def test_the_modules_that_decide_are_found_in_every_room() -> None:
    rooms = {path.parts[0] for path in DECIDING}
    assert {"router.py", "api", "execution", "pooling", "protocol", "sql", "topology"} <= rooms
    assert len(DECIDING) > 40


@pytest.mark.parametrize("path", DECIDING, ids=str)
def test_what_decides_cannot_wait(path: pathlib.Path) -> None:
    assert not waiting(imports(ROOT / path))


def test_an_import_of_a_module_that_waits_is_seen(tmp_path: pathlib.Path) -> None:
    module = tmp_path / "module.py"
    module.write_text(
        "import os\ndef late():\n    import asyncio.queues\n    from dbutils.pooled_db import X\n"
    )
    assert waiting(imports(module)) == {"asyncio.queues", "dbutils.pooled_db"}


def test_the_import_contract_names_every_room_that_decides() -> None:
    path = REPOSITORY / "setup.cfg"
    settings = configparser.ConfigParser()
    settings.read(path, encoding="utf-8")
    named = settings["importlinter:contract:waiting"]["source_modules"].split()
    rooms = {path.parts[0].partition(".")[0] for path in DECIDING} - {"__init__", "__main__"}
    assert sorted(named) == sorted(f"dualdb.{room}" for room in rooms)


def test_each_implementation_keeps_to_itself() -> None:
    sync = sorted((ROOT / "sync_impl").rglob("*.py"))
    asynchronous = sorted((ROOT / "async_impl").rglob("*.py"))
    assert len(sync) > 5
    assert len(asynchronous) > 5
    for path in sync:
        assert not {"asyncio", "aiomysql"} & set(imports(path)), path
        assert "async " not in path.read_text(encoding="utf-8"), path
    for path in asynchronous:
        assert not {"threading", "dbutils", "dbutils.pooled_db", "concurrent.futures"} & set(
            imports(path)
        ), path


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()


def printed(script: str) -> List[str]:
    """The lines that a process of its own prints."""
    command = [sys.executable, "-c", script]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    return ran.stdout.splitlines()


def test_threads_load_nothing_of_asyncio() -> None:
    script = (
        "import sys, dualdb.sync_impl; "
        "print(*[name for name in ('asyncio', 'aiomysql', 'dualdb.async_impl') "
        "if name in sys.modules]); "
        "import dualdb; print(dualdb.AsyncMySQLClient is dualdb.async_impl.MySQLClient)"
    )
    assert printed(script) == ["", "True"]


def test_the_import_alone_loads_no_driver_and_the_first_name_everything() -> None:
    script = (
        "import sys, dualdb; loaded = lambda: [name for name in "
        "('pydantic', 'pymysql', 'dbutils', 'dualdb.errors') if name in sys.modules]; "
        "print(loaded()); dualdb.Deadlock; print(len(loaded())); "
        "print(set(dualdb.__all__) - set(dir(dualdb)), hasattr(dualdb, 'nothing'))"
    )
    assert printed(script) == ["[]", "4", "set() False"]


@pytest.mark.parametrize("implementation", ["sync_impl", "async_impl"])
def test_errors_are_public_with_either_implementation(implementation: str) -> None:
    script = (
        f"from dualdb.{implementation} import MySQLClient; from dualdb import errors; "
        "print(errors.Deadlock.__module__)"
    )
    assert printed(script) == ["dualdb"]


def test_threads_may_ask_for_the_first_name_together() -> None:
    script = """
import sys
from concurrent.futures import ThreadPoolExecutor
import dualdb

sys.setswitchinterval(1e-5)
names = ["Deadlock", "AsyncDatabaseService", "DatabaseConfig", "DatabaseService", "errors"]
with ThreadPoolExecutor(len(names)) as executor:
    found = list(executor.map(lambda name: getattr(dualdb, name), names))
print(*[each.__name__ for each in found])
"""
    expected = "Deadlock AsyncDatabaseService DatabaseConfig DatabaseService dualdb.errors"
    assert printed(script) == [expected]


def test_every_step_is_run_in_both_implementations() -> None:
    # by pools and services
    elsewhere = {steps.Connect, steps.AwaitPermit, steps.Spawn, steps.StopBackground}
    members = set(get_args(steps.Step))
    assert set(async_runner.HANDLERS) | elsewhere == members
    assert set(sync_runner.HANDLERS) | elsewhere == members


def test_operations_are_imported_when_they_are_asked_for() -> None:
    code = "import dualdb, sys; sys.exit('dualdb.operations' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
