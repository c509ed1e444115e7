"""The documents are true: every example runs and prints what it says, every name is
there.
"""

import ast
import asyncio
import contextlib
import dataclasses
import inspect
import io
import itertools
import pathlib
import re
import sys
import types
from typing import Any, Dict, Iterator, List, Set

import pymysql.err
import pytest

import dualdb
import dualdb.sandbox
from dualdb import AsyncDatabaseService, DatabaseConfig, DatabaseService
from dualdb.sandbox import Sandbox

ROOT = pathlib.Path(__file__).parents[2]
ROOT_PAGES = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
DOCUMENTS = [*[ROOT / name for name in ROOT_PAGES], *PAGES]
#: What a fence may hold. Only ``python`` is run, so Python must be marked as such.
LANGUAGES = {"python", "sh", "sql", "text", "ini", "toml"}
FENCE = re.compile(r"^( *)```(.*)\n(?s:(.*?))^\1```$", re.M)
#: Pages whose examples are one program, from top to bottom.
CONTINUED = {"tutorial.md"}
README_WORDS = 900
COLUMNS = 88


@dataclasses.dataclass(frozen=True)
class Example:
    """A Python fence of a document: its text, and the number of its first line."""

    source: str
    line: int

    @property
    def tree(self) -> ast.Module:
        code = compile(self.source, "example", "exec", ast.PyCF_ONLY_AST | TOP_LEVEL_AWAIT)
        assert isinstance(code, ast.Module)
        return code

    @property
    def is_async(self) -> bool:
        """Whether it awaits outside a function."""
        flags = compile(self.source, "example", "exec", TOP_LEVEL_AWAIT).co_flags
        return bool(flags & inspect.CO_COROUTINE)

    @property
    def expects_service(self) -> bool:
        """Whether it uses a ``db`` that it has not made."""
        names = [each for each in ast.walk(self.tree) if isinstance(each, ast.Name)]
        made = any(each.id == "db" and isinstance(each.ctx, ast.Store) for each in names)
        return not made and any(each.id == "db" for each in names)

    @property
    def expected(self) -> List[str]:
        """The lines that it says it prints, after ``#>``."""
        return re.findall(r"#> (.*)$", self.source, re.M)


TOP_LEVEL_AWAIT = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT


def fences(document: pathlib.Path) -> "Iterator[re.Match[str]]":
    return FENCE.finditer(document.read_text(encoding="utf-8"))


def name_of(document: pathlib.Path) -> str:
    """Its path below the folder of pages, or of the project."""
    below = ROOT / "docs" if document in PAGES else ROOT
    return document.relative_to(below).as_posix()


def examples_of(document: pathlib.Path) -> Iterator[Example]:
    text = document.read_text(encoding="utf-8")
    for found in fences(document):
        if found[2] == "python":
            source = inspect.cleandoc(found[3]) if found[1] else found[3]
            yield Example(source, text.count("\n", 0, found.start()) + 2)


def joined(parts: List[Example]) -> Example:
    """One program of all parts, each on its own lines of the document."""
    lines: List[str] = []
    for part in parts:
        lines += [""] * (part.line - 1 - len(lines))
        lines += part.source.splitlines()
    return Example("\n".join(lines), 1)


def examples() -> Iterator[Any]:
    for document in DOCUMENTS:
        found = list(examples_of(document))
        if name_of(document) in CONTINUED:
            found = [joined(found)]
        for each in found:
            yield pytest.param(each, id=f"{name_of(document)}:{each.line}")


# What every example finds, so that the text need not say it: see docs/quickstart.md.


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    sys.path.insert(0, str(ROOT / "examples"))
    with Sandbox(2) as made:
        import schema  # type: ignore[import-not-found, unused-ignore]

        schema.create(made)
        yield made
    sys.path.remove(str(ROOT / "examples"))


@pytest.fixture
def names(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Dict[str, Any]:
    """The data of the examples on the servers, the URL in the environment,
    ``config``.
    """
    end_sessions(sandbox)
    insert_trade = "INSERT INTO trades (user_id, symbol, quantity) VALUES "
    sandbox.run(
        "global",
        "TRUNCATE accounts",
        "INSERT INTO accounts VALUES (6, 'bob@example.com', 1), (7, 'ann@example.com', 2)",
        "UPDATE table_shard_config SET status = 'active'",
    )
    sandbox.run(1, "TRUNCATE trades", insert_trade + "(6, 'ABC', 5), (6, 'XYZ', 9)")
    sandbox.run(2, "TRUNCATE trades", insert_trade + "(7, 'ABC', 10)")
    monkeypatch.setenv("DUALDB_URL", sandbox.url)
    session = types.SimpleNamespace(session=types.SimpleNamespace(user_id=7, shard_id=2))
    return {"__name__": "example", "config": sandbox.config, "client_session": session}


def end_sessions(sandbox: Sandbox) -> None:
    """End what frameworks of examples before kept open: one counts the sessions."""
    kept = f"SELECT id FROM information_schema.PROCESSLIST WHERE user = '{sandbox.config.user}'"
    for server in itertools.chain.from_iterable(sandbox.members.values()):
        for session in server.run(kept):
            with contextlib.suppress(pymysql.err.OperationalError):  # it has just ended
                server.run(f"KILL {session['id']}")


def run(example: Example, names: Dict[str, Any]) -> List[str]:
    """The lines that an example prints."""
    source = "\n" * (example.line - 1) + example.source
    code = compile(source, "example", "exec", flags=TOP_LEVEL_AWAIT)
    config: DatabaseConfig = names["config"]

    async def run_async() -> None:
        async with contextlib.AsyncExitStack() as stack:
            if example.expects_service:
                names["db"] = await stack.enter_async_context(AsyncDatabaseService(config))
            await eval(code, names)

    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.ExitStack() as stack:
        if example.is_async:
            asyncio.run(run_async())
        else:
            if example.expects_service:
                names["db"] = stack.enter_context(DatabaseService(config))
            eval(code, names)
    return printed.getvalue().splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("example", list(examples()))
def test_an_example_runs_and_prints_what_it_says(example: Example, names: Dict[str, Any]) -> None:
    assert run(example, names) == example.expected


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_python_is_written_in_fences_that_are_run(document: pathlib.Path) -> None:
    assert {found[2] for found in fences(document)} <= LANGUAGES
    # A fence that is not closed, or that FENCE does not match, is not run either.
    assert document.read_text(encoding="utf-8").count("```") == 2 * len(list(fences(document)))


def test_both_kinds_of_service_have_examples() -> None:
    found = [each.values[0] for each in examples()]
    assert sum(example.is_async for example in found) >= 5
    assert sum(not example.is_async for example in found) >= 20


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) < README_WORDS


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_lines_are_wrapped(document: pathlib.Path) -> None:
    """Those of tables, and what a command prints, are as long as they are;
    ``scripts/bench`` writes its own page.
    """
    text = document.read_text(encoding="utf-8")
    lines = FENCE.sub(lambda found: "" if found[2] == "text" else found[0], text).splitlines()
    long = [line for line in lines if len(line) > COLUMNS and not line.startswith("|")]
    assert long == [] or document.name == "benchmarks.md"


# The reference.


def public_members(cls: type) -> Set[str]:
    """What a class adds to its base class of another package, by name; an error's are
    few.
    """
    foreign = [base for base in cls.__mro__ if not base.__module__.startswith("dualdb")]
    inherited = {name for base in foreign for name in dir(base)}
    return {name for name in dir(cls) if not name.startswith("_")} - inherited


def objects_in_hand() -> Dict[str, type]:
    """Classes that nobody imports, and everybody is given."""
    hints = {name: getattr(dualdb.sync_impl, name) for name in dualdb.sync_impl.__all__}
    return {name: value for name, value in hints.items() if inspect.isclass(value)}


def documented() -> Dict[str, type]:
    named = {name: getattr(dualdb, name) for name in dualdb.__all__}
    sandbox = {name: getattr(dualdb.sandbox, name) for name in dualdb.sandbox.__all__}
    every = {**named, **sandbox, **objects_in_hand()}
    return {name: value for name, value in every.items() if inspect.isclass(value)}


def reference() -> str:
    return (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")


def in_code(text: str) -> Set[str]:
    """Every word that stands in backticks."""
    return {word for code in re.findall(r"`([^`\n]+)`", text) for word in re.findall(r"\w+", code)}


def test_every_public_name_is_in_the_reference() -> None:
    public = {*dualdb.__all__, *dualdb.sandbox.__all__, *objects_in_hand()}
    assert public - in_code(reference()) == set()


@pytest.mark.parametrize("name", sorted(documented()))
def test_every_public_member_is_in_the_reference(name: str) -> None:
    assert public_members(documented()[name]) - in_code(reference()) == set()


@pytest.mark.parametrize("name", sorted(DatabaseConfig.model_fields))
def test_every_field_of_the_configuration_is_on_its_page(name: str) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert name in in_code(page)


def test_every_error_is_on_its_page() -> None:
    page = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    errors = {name for name, cls in documented().items() if issubclass(cls, dualdb.Error)}
    assert errors - in_code(page) == set()


# The site and the changes.


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    listed = set(re.findall(r"[\w/-]+\.md", text[text.index("\nnav:") :]))
    assert listed == {name_of(page) for page in PAGES}


def test_links_between_documents_lead_somewhere() -> None:
    for document in DOCUMENTS:
        text = FENCE.sub("", document.read_text(encoding="utf-8"))
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
            assert (document.parent / target).exists(), (document.name, target)


def test_the_changelog_has_sections_that_are_known() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    versions = re.findall(r"^## \[(.+?)\]", text, re.M)
    assert versions[0] == "Unreleased"
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions[1:])
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
    assert set(re.findall(r"^### (.+)$", text, re.M)) <= kinds
