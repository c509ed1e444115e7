"""The types that an editor shows, as two checkers see them, for every public method in
both implementations.
"""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

import pytest

import dualdb
from dualdb import async_impl, sync_impl

HERE = pathlib.Path(__file__).parent
# Checkers find an installed package by themselves, but not one that is installed in
# editable mode.
HOME = pathlib.Path(dualdb.__file__).parents[1]
EXTRA = [] if HOME.name == "site-packages" else [str(HOME)]
SURFACES = {"sync": sync_impl, "async": async_impl}
FILES = [*[f"{io}_surface.py" for io in SURFACES], "integrations.py"]


def check(*command: str) -> None:
    environment = {**os.environ, "MYPYPATH": os.pathsep.join(EXTRA)}
    done = subprocess.run(
        [sys.executable, "-m", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=HERE,
        env=environment,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_mypy_agrees(file: str, tmp_path: pathlib.Path) -> None:
    check(
        "mypy",
        "--strict",
        "--config-file=",
        "--ignore-missing-imports",
        "--follow-imports=silent",
        f"--cache-dir={tmp_path}",
        file,
    )


@pytest.mark.slow
@pytest.mark.parametrize("file", FILES)
def test_pyright_agrees(file: str, tmp_path: pathlib.Path) -> None:
    shutil.copy(HERE / file, tmp_path)
    settings = {"typeCheckingMode": "strict", "enableTypeIgnoreComments": True, "extraPaths": EXTRA}
    (tmp_path / "pyrightconfig.json").write_text(json.dumps(settings))
    check("pyright", "--pythonpath", sys.executable, "-p", str(tmp_path))


@pytest.mark.parametrize("name", sync_impl.__all__)
@pytest.mark.parametrize(("io", "impl"), SURFACES.items())
def test_every_public_method_is_among_them(io: str, impl: Any, name: str) -> None:
    text = (HERE / f"{io}_surface.py").read_text(encoding="utf-8")
    members = {member for member in dir(getattr(impl, name)) if not member.startswith("_")} - {
        "pool"
    }
    missing = [member for member in sorted(members) if not re.search(rf"\.{member}\b", text)]
    assert missing == []
