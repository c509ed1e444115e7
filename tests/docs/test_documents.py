"""Every example in the documents runs, and prints what the document says it prints."""

import ast
import asyncio
import contextlib
import io
import pathlib
import re
import sys
from typing import Any, Iterator, List, Tuple

import pytest

import dualdb
from dualdb.sandbox import Sandbox

ROOT = pathlib.Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def examples() -> Iterator[Any]:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for found in re.finditer(r"^```python\n(.*?)^```$", text, re.M | re.S):
            line = text.count("\n", 0, found.start()) + 2
            yield pytest.param(found[1], line, id=f"{document.name}:{line}")


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sys.path.insert(0, str(ROOT / "examples"))
    with Sandbox(2) as made:
        import schema  # type: ignore[import-not-found, unused-ignore]

        schema.create(made)
        yield made
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture
def prepared(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """An account with an empty portfolio on shard 2, and the configuration in the
    environment.
    """
    sandbox.run(
        "global", "TRUNCATE accounts", "INSERT INTO accounts VALUES (7, 'ann@example.com', 2)"
    )
    for shard_id in (1, 2):
        sandbox.run(shard_id, "TRUNCATE trades")
    monkeypatch.setenv("DUALDB_URL", sandbox.url)


def run(source: str, line: int) -> List[str]:
    """The lines that an example prints. It may use ``await`` outside a function."""
    code = compile(
        "\n" * (line - 1) + source, "example", "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT
    )
    names = {"__name__": "example"}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        answer = eval(code, names)
        if answer is not None:
            asyncio.run(answer)
    return printed.getvalue().splitlines()


@pytest.mark.parametrize(("source", "line"), list(examples()))
def test_an_example_runs_and_prints_what_it_says(source: str, line: int, prepared: None) -> None:
    assert run(source, line) == re.findall(r"#> (.*)$", source, re.M)


def test_there_are_examples() -> None:
    assert len(list(examples())) >= 4


def test_every_public_method_is_in_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"(?:`|\bdb\.)(\w+)\(", readme))
    public = {
        name
        for name in dir(dualdb.DatabaseService)
        if not name.startswith("_") and callable(getattr(dualdb.DatabaseService, name))
    }
    assert public - listed == set()


def changes() -> Tuple[str, str]:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.search(r"^## (\S+)", text, re.M)
    assert found
    return found[1], dualdb.__version__


def test_the_changelog_speaks_of_this_version() -> None:
    newest, version = changes()
    assert newest == version
