"""The ``dualdb`` command: a thin layer of commands over the Python API.

It needs the ``cli`` extra (click, rich, prompt_toolkit), which is imported when the
command is run and not before.
"""

import importlib.util
import sys

_NEEDED = ("click", "rich", "prompt_toolkit")


def main() -> None:
    """Run the ``dualdb`` command, and exit with its code."""
    missing = [name for name in _NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(
            f"dualdb: the command needs {', '.join(missing)}: pip install 'dualdb[cli]'\n"
        )
        sys.exit(2)
    # Imported here because the extra may be missing.
    from .app import dualdb  # noqa: PLC0415

    dualdb(prog_name="dualdb")


__all__ = ["main"]
