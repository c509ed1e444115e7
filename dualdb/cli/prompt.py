"""The prompt of ``shell``: history, completion, many lines."""

import os
import pathlib
import re
from typing import List

from prompt_toolkit import PromptSession
from prompt_toolkit.application import get_app
from prompt_toolkit.completion import WordCompleter
from prompt_toolkit.filters import Condition
from prompt_toolkit.history import FileHistory
from prompt_toolkit.lexers import PygmentsLexer
from pygments.lexers.sql import MySqlLexer

from .. import errors
from ..operations import script

_SECRET = re.compile(r"\b(IDENTIFIED|PASSWORD)\b", re.I)
_WORDS = (
    "SELECT FROM WHERE AND OR NOT IN IS NULL LIKE BETWEEN GROUP BY ORDER HAVING LIMIT JOIN LEFT ON "
    "AS INSERT INTO VALUES UPDATE SET DELETE CALL SHOW TABLES CREATE TABLE EXPLAIN BEGIN COMMIT "
    "ROLLBACK PROCESSLIST VARIABLES DESCRIBE COUNT"
).split()


class History(FileHistory):
    """The history in a file, without what sets passwords."""

    def store_string(self, string: str) -> None:
        """Append an entry, unless it may hold a password."""
        if not _SECRET.search(string):
            super().store_string(string)


def history_file() -> str:
    """Where the history is; the directory is made if there is none."""
    state_home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    directory = pathlib.Path(state_home) / "dualdb"
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = directory / "history"
    path.touch(mode=0o600)
    return str(path)


def is_complete(text: str) -> bool:
    """Whether what was typed can be performed: a command, nothing, or whole
    statements.
    """
    stripped = text.strip()
    if not stripped or stripped.startswith("\\") or stripped.lower() in ("quit", "exit"):
        return True
    if stripped.endswith("\\G"):
        return True
    try:
        # With one more word, there is one more statement if all before are whole.
        return len(script.split(text + "\nx")) > len(script.split(text))
    except errors.ParameterError:
        return False


def prompt_session(names: List[str]) -> "PromptSession[str]":
    """What reads statements: Enter ends one that is whole, and begins another line of
    one that is not.

    Args:
        names: Of tables and columns, to be completed.
    """
    return PromptSession(
        history=History(history_file()),
        multiline=Condition(lambda: not is_complete(get_app().current_buffer.text)),
        prompt_continuation=lambda width, number, wrapped: "-> ".rjust(width),
        lexer=PygmentsLexer(MySqlLexer),
        completer=WordCompleter([*_WORDS, *names], ignore_case=True),
        complete_while_typing=False,
    )
