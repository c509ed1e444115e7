"""Each log record says what has happened by a name, and comes from a room's logger."""

import ast
import pathlib
import re
from typing import List, Set, Tuple

import pytest

import dualdb
from dualdb.observability.logs import about

ROOT = pathlib.Path(dualdb.__file__).parent
LEVELS = ("debug", "info", "warning", "error", "exception")
#: These are applications of the package, with loggers of their own.
OUTSIDE = ("cli", "integrations", "sandbox", "testing")


def modules() -> List[Tuple[str, ast.Module]]:
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT)
        if name.parts[0] not in OUTSIDE:
            found.append((str(name), ast.parse(path.read_text("utf-8"))))
    return found


def calls(tree: ast.Module) -> List[ast.Call]:
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and isinstance(node.func.value, ast.Name)
        and node.func.value.id == "log"
        and node.func.attr in LEVELS
    ]


@pytest.mark.parametrize(("name", "tree"), modules())
def test_each_record_has_the_name_of_its_event(name: str, tree: ast.Module) -> None:
    without = [
        f'{name}:{call.lineno} needs extra=about("event", ...)'
        for call in calls(tree)
        if not any(keyword.arg == "extra" for keyword in call.keywords)
    ]
    assert without == []


@pytest.mark.parametrize(("name", "tree"), modules())
def test_each_logger_is_that_of_a_room(name: str, tree: ast.Module) -> None:
    names = [
        ast.literal_eval(node.args[0])
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "logging.getLogger"
    ]
    assert all(re.fullmatch(r"dualdb\.[a-z]+", each) for each in names), name
    assert bool(names) or not calls(tree)


def event_names() -> Set[str]:
    found = set()
    for _, tree in modules():
        for call in calls(tree):
            for each in [each.value for each in call.keywords if each.arg == "extra"]:
                found |= set(re.findall(r"(?:about\(|'event': )'([a-z_]+)'", ast.unparse(each)))
    return found


def test_each_event_of_the_log_is_in_the_documentation() -> None:
    page = (pathlib.Path(__file__).parents[3] / "docs" / "observability.md").read_text("utf-8")
    assert len(event_names()) > 20
    assert event_names() - set(re.findall(r"`([a-z_]+)`", page)) == set()


def test_what_a_record_is_about() -> None:
    class Place:
        name = "shard 7"
        shard_id = 7

    assert about("connection_leaked", Place()) == {
        "event": "connection_leaked",
        "target": "shard 7",
        "shard_id": 7,
    }
