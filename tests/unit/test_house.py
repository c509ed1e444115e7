"""How the package's code is written, counted on its syntax trees, and what the guide
for contributors says of it.
"""

import ast
import configparser
import functools
import pathlib
import re
from typing import Dict, FrozenSet, Iterator, List, Set, Tuple

from source_files import modules

#: Not the package's own folder, which may be an installed one.
REPOSITORY = pathlib.Path(__file__).parents[2]

MOST_ATTRIBUTES = 15
MOST_PARAMETERS = 4
LONGEST_LINE = 100

#: Words with a meaning of their own here.
LONGEST_GLOSSARY = 30

#: Arguments annotated with plain ``Any``, of a thousand.
MOST_ANY = 30
#: Parallel assignments in a thousand lines.
MOST_PARALLEL = 1

#: Names with an underscore that are another's, and documented or without an
#: alternative, by the files that may use them.
NAMES_OF_OTHERS: Dict[str, FrozenSet[str]] = {
    "*": frozenset(
        {
            "_asdict",  # of every NamedTuple
            "_fields",
            "_replace",
            "_getframe",  # sys
            "_get_running_loop",  # asyncio
        }
    ),
    "async_impl/runner.py": frozenset({"_log_destroy_pending"}),  # asyncio.Task
    "async_impl/transport.py": frozenset({"_buffer"}),  # asyncio.StreamReader
    "async_impl/connection.py": frozenset(  # PyMySQL
        {"_finish_unbuffered_query", "_read_rowdata_packet_unbuffered"}
    ),
    "sync_impl/connection.py": frozenset(
        {"_finish_unbuffered_query", "_read_rowdata_packet_unbuffered"}
    ),
    "sync_impl/idle_store.py": frozenset(  # DBUtils
        {"_con", "_idle_cache", "_lock"}
    ),
    "integrations/celery.py": frozenset({"_get_backend"}),
    "integrations/django/router.py": frozenset({"_meta", "_state"}),
}

#: Accesses like ``other._name``: by a function of the module that owns the class, or to
#: another object of the same class.
MOST_PRIVATE = 22


@functools.cache
def _classes() -> List[Tuple[str, ast.ClassDef]]:
    return [
        (f"{name}:{node.name}", node)
        for name, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


@functools.cache
def _assigned(definition: ast.ClassDef) -> Set[str]:
    """What its methods assign to ``self``."""
    return {
        node.attr
        for node in ast.walk(definition)
        if isinstance(node, ast.Attribute)
        and isinstance(node.ctx, ast.Store)
        and isinstance(node.value, ast.Name)
        and node.value.id == "self"
    }


def _attributes(definition: ast.ClassDef) -> Set[str]:
    """The same, without what those of its bases assign that are the package's."""
    bases = {
        ast.unparse(base.value if isinstance(base, ast.Subscript) else base).split(".")[-1]
        for base in definition.bases
    }
    inherited = [
        _assigned(node)
        for _, node in _classes()
        if node.name in bases and node.name != definition.name
    ]
    return _assigned(definition).difference(*inherited)


def _parameters(definition: ast.ClassDef) -> int:
    for base in definition.bases:
        if isinstance(base, ast.Subscript) and ast.unparse(base.value) == "Generic":
            return len(base.slice.elts) if isinstance(base.slice, ast.Tuple) else 1
    return 0


def test_there_is_something_to_count() -> None:
    assert len(modules()) > 100


def test_no_class_has_too_many_attributes() -> None:
    counts = {name: len(_attributes(node)) for name, node in _classes()}
    assert {name: n for name, n in counts.items() if n > MOST_ATTRIBUTES} == {}


def test_no_generic_class_has_too_many_parameters() -> None:
    counts = {name: _parameters(node) for name, node in _classes()}
    assert {name: n for name, n in counts.items() if n > MOST_PARAMETERS} == {}


def test_no_conditional_expression_is_inside_another() -> None:
    nested = [
        f"{name}:{node.lineno}"
        for name, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.IfExp)
        and any(isinstance(part, ast.IfExp) for part in (node.test, node.body, node.orelse))
    ]
    assert nested == []


def test_no_line_is_too_long() -> None:
    longer = [
        f"{name}:{number}"
        for name, (text, _) in modules().items()
        for number, line in enumerate(text.splitlines(), 1)
        if len(line) > LONGEST_LINE
    ]
    assert longer == []


def test_few_arguments_are_anything() -> None:
    arguments = [
        argument
        for _, tree in modules().values()
        for node in ast.walk(tree)
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        for argument in [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if argument.arg not in ("self", "cls")
    ]
    plain = [
        each
        for each in arguments
        if isinstance(each.annotation, ast.Name) and each.annotation.id == "Any"
    ]
    assert len(plain) * 1000 <= len(arguments) * MOST_ANY


def test_one_thing_is_assigned_at_a_time() -> None:
    lines = sum(text.count("\n") for text, _ in modules().values())
    parallel = [
        f"{name}:{node.lineno}"
        for name, (_, tree) in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign)
        and isinstance(node.value, ast.Tuple)
        and any(isinstance(target, ast.Tuple) for target in node.targets)
    ]
    assert len(parallel) * 1000 <= lines * MOST_PARALLEL, parallel


def _private_accesses() -> Iterator[Tuple[str, str]]:
    """What the package reads of objects other than ``self`` by a private name; a class
    of the same module is none.
    """
    for name, (_, tree) in modules().items():
        classes = {node.name for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}
        for node in ast.walk(tree):
            if not isinstance(node, ast.Attribute) or not re.match("_[^_]", node.attr):
                continue
            owner = ast.unparse(node.value)
            if owner not in {"self", "cls", "super()", *classes}:
                yield name, node.attr


def test_few_objects_reach_into_others() -> None:
    found = list(_private_accesses())
    own = [
        f"{name}: {attribute}"
        for name, attribute in found
        if attribute not in NAMES_OF_OTHERS["*"] | NAMES_OF_OTHERS.get(name, frozenset())
    ]
    assert len(own) <= MOST_PRIVATE, own


def test_the_names_of_others_are_used() -> None:
    used = {(name, attribute) for name, attribute in _private_accesses()}
    everywhere = {attribute for _, attribute in used}
    assert NAMES_OF_OTHERS["*"] <= everywhere
    allowed = {
        (name, attribute)
        for name, attributes in NAMES_OF_OTHERS.items()
        if name != "*"
        for attribute in attributes
    }
    assert allowed <= used


def _contributing() -> str:
    return (REPOSITORY / "CONTRIBUTING.md").read_text("utf-8")


def test_the_glossary_is_short() -> None:
    _, _, glossary = _contributing().partition("## Glossary")
    words = re.findall(r"^\| (.+?) \|", glossary, re.M)
    assert words[:1] == ["word"]
    assert 1 < len(words) <= 1 + LONGEST_GLOSSARY


def test_the_layers_are_shown_as_they_are_checked() -> None:
    config = configparser.ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg", "utf-8")
    checked = config["importlinter:contract:layers"]["layers"].split("\n")
    _, _, shown = _contributing().partition("neither imports the other:\n\n```text\n")
    layers = [re.sub(r"[()]", "", line).replace(" : ", ", ") for line in checked if line]
    layers.remove("__main__")
    assert shown.partition("\n```")[0].split("\n") == layers
