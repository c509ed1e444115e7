"""Each log record says what has happened by a name, and comes from a room's logger."""

import ast
import pathlib
import re
from typing import Dict, List, Set

import pytest
from source_files import Module, modules

from dualdb.observability.logs import about

LEVELS = ("debug", "info", "warning", "error", "exception")
#: These are applications of the package, with loggers of their own.
OUTSIDE = ("cli", "integrations", "sandbox", "testing")


def libraries() -> Dict[str, Module]:
    return {
        name: module
        for name, module in modules().items()
        if pathlib.PurePath(name).parts[0] not in OUTSIDE
    }


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


@pytest.mark.slow
def test_each_record_has_the_name_of_its_event() -> None:
    without = [
        f'{name}:{call.lineno} needs extra=about("event", ...)'
        for name, (_, tree) in libraries().items()
        for call in calls(tree)
        if not any(keyword.arg == "extra" for keyword in call.keywords)
    ]
    assert without == []


def test_each_logger_is_that_of_a_room() -> None:
    for name, (_, tree) in libraries().items():
        names = [
            ast.literal_eval(node.args[0])
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr == "getLogger"
        ]
        assert all(re.fullmatch(r"dualdb\.[a-z]+", each) for each in names), name
        assert bool(names) or not calls(tree), name


def event_names() -> Set[str]:
    extras = [
        ast.unparse(keyword.value)
        for _, tree in libraries().values()
        for call in calls(tree)
        for keyword in call.keywords
        if keyword.arg == "extra"
    ]
    return set(re.findall(r"(?:about\(|'event': )'([a-z_]+)'", " ".join(extras)))


def test_each_event_of_the_log_is_in_the_documentation() -> None:
    page = (pathlib.Path(__file__).parents[3] / "docs" / "observability.md").read_text("utf-8")
    names = event_names()
    assert len(names) > 20
    assert names - set(re.findall(r"`([a-z_]+)`", page)) == set()


def test_what_a_record_is_about() -> None:
    class Place:
        name = "shard 7"
        shard_id = 7

    assert about("connection_leaked", Place()) == {
        "event": "connection_leaked",
        "target": "shard 7",
        "shard_id": 7,
    }
