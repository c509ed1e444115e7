"""What is chosen by name for hostile servers is there."""

import ast
import pathlib

import pytest
from hostile_servers import CORE, FAILING, SETTINGS

CONFORMANCE = pathlib.Path(__file__).parents[1] / "conformance"


@pytest.mark.parametrize("name", sorted(CORE))
def test_the_core_s_tests_exist(name: str) -> None:
    tree = ast.parse((CONFORMANCE / name).read_text(encoding="utf-8"))
    assert CORE[name] <= {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


def test_known_failures_are_of_the_core() -> None:
    for failure in FAILING:
        assert failure.setting in SETTINGS
        assert failure.tests <= frozenset().union(*CORE.values())
