"""The package's modules as texts and syntax trees, for tests of how its code is
written.
"""

import ast
import functools
import pathlib
from typing import Dict, NamedTuple

import dualdb

ROOT = pathlib.Path(dualdb.__file__).parent


class Module(NamedTuple):
    """A module of the package."""

    text: str
    tree: ast.Module


# They are parsed by the first test that asks: every process imports every test module.
@functools.cache
def modules() -> Dict[str, Module]:
    """Return the modules by their paths in the package."""
    return {
        str(path.relative_to(ROOT)): Module(text, ast.parse(text))
        for path in sorted(ROOT.rglob("*.py"))
        for text in [path.read_text("utf-8")]
    }
