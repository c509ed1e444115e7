"""The page of the command line is true: its commands print what it says."""

import importlib.util
import pathlib
import re
from typing import Any, Set

import pytest

from dualdb.cli.app import dualdb

ROOT = pathlib.Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def cli_docs() -> Any:
    path = ROOT / "scripts" / "cli_docs.py"
    spec = importlib.util.spec_from_file_location("cli_docs", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_examples_print_what_the_page_says(cli_docs: Any) -> None:
    shown = cli_docs.examples(PAGE)
    assert sum(len(fence) for fence in shown) > 30
    with cli_docs.running(PAGE) as runner:
        for fence in shown:
            for example in fence:
                found = cli_docs.normal(runner.run(example.command))
                assert found == cli_docs.normal(example.output), example.command


def test_the_pictures_show_what_the_commands_show_now(cli_docs: Any) -> None:
    for name, svg in cli_docs.pictures().items():
        drawn = (ROOT / "docs" / "images" / name).read_text(encoding="utf-8")
        assert texts(drawn) == texts(svg), f"run scripts/cli_docs.py: {name}"
        assert "http" not in drawn.replace("http://www.w3.org/2000/svg", "")


def texts(svg: str) -> Any:
    """What is written in a picture; how it is drawn depends on the release of rich."""
    found = re.findall(r">([^<>\n]+)</text>", svg)
    return [text.replace("&#160;", " ").strip() for text in found]


def commands(group: Any, path: str = "dualdb") -> Set[str]:
    found: Set[str] = set()
    for name, each in group.commands.items():
        if hasattr(each, "commands"):
            found |= commands(each, f"{path} {name}")
        else:
            found.add(f"{path} {name}")
    return found


def test_every_command_is_on_the_page() -> None:
    missing = {each for each in commands(dualdb) if each.partition(" ")[2] not in PAGE}
    assert missing == set()
