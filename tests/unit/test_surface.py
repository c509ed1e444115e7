"""The public names, their arguments and whether they are documented are as in
``surface.txt``: nothing disappears or changes by accident.

To change it on purpose: ``python tests/unit/test_surface.py``, and read the difference.
"""

import inspect
import pathlib
import re
from typing import Any, Iterator, List

import dualdb
from dualdb import async_impl, sync_impl

SNAPSHOT = pathlib.Path(__file__).with_name("surface.txt")


def arguments(value: Any) -> str:
    """The arguments without their types, which Python versions write differently."""
    try:
        signature = inspect.signature(value)
    except (TypeError, ValueError):
        return "(...)"
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
    ]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.sub(r"<.*?>", "...", text)


def documented(value: Any) -> str:
    return "" if inspect.getdoc(value) else "  (no docstring)"


#: What pydantic 2.7 writes into each class.
OF_PYDANTIC = ("model_computed_fields", "model_fields")


def is_shown(name: str) -> bool:
    if name in OF_PYDANTIC:
        return False
    return not name.startswith("_") or name in ("__init__", "__enter__", "__aenter__")


def members(cls: type) -> Iterator[str]:
    """What a class has from this package and not from a public base class."""
    for name, field in sorted(getattr(cls, "model_fields", {}).items()):
        yield f"    {name}" + ("" if field.is_required() else f" = {field.default!r}")
    inherited = {name for base in public_bases(cls) for name in dir(base)}
    found = {
        name
        for base in cls.__mro__
        if base.__module__.startswith("dualdb")
        for name in vars(base)
        if is_shown(name) and (name not in inherited or base is cls)
    }
    for name in sorted(found):
        value = getattr(cls, name)
        if isinstance(value, property):
            yield f"    {name}{documented(value)}"
        elif not callable(value):
            yield f"    {name}"
        elif name.startswith("__"):
            yield f"    {name}{arguments(value)}"
        else:
            yield f"    {name}{arguments(value)}{documented(value)}"


def public_bases(value: Any) -> List[type]:
    mro = value.__mro__[1:] if inspect.isclass(value) else ()
    return [base for base in mro if getattr(dualdb, base.__name__, None) is base]


def surface() -> str:
    lines = []
    for module in (dualdb, sync_impl, async_impl):
        lines.append(module.__name__)
        for name in sorted(module.__all__):
            value = getattr(module, name)
            bases = ", ".join([base.__name__ for base in public_bases(value)[:1]])
            lines.append(f"  {name}{f'({bases})' if bases else ''}{documented(value)}")
            # Classes of the two implementations are shown as such.
            if inspect.isclass(value) and not (module is dualdb and name in SHOWN_BELOW):
                lines += members(value)
    return "\n".join(lines) + "\n"


SHOWN_BELOW = {"AsyncDatabaseService", "AsyncMySQLClient", "DatabaseService", "MySQLClient"}


def test_the_public_surface_is_as_it_was() -> None:
    assert surface() == SNAPSHOT.read_text(encoding="utf-8")


if __name__ == "__main__":
    SNAPSHOT.write_text(surface(), encoding="utf-8")
