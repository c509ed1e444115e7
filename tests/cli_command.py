"""The ``dualdb`` command in this process, on private servers."""

import json
from typing import Any, Dict, Optional

from click.testing import CliRunner, Result

from dualdb.cli.app import dualdb
from dualdb.sandbox import Sandbox

TRADES = """CREATE TABLE IF NOT EXISTS trades (
    id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,
    symbol VARCHAR(20) NOT NULL, quantity INT NOT NULL, KEY (user_id)
)"""


def runner() -> CliRunner:
    """What runs the command in this process, its two outputs apart."""
    made = CliRunner()
    try:
        made.invoke(dualdb, ["--version"]).stderr  # noqa: B018
    except ValueError:  # click 8.1 mixes the two unless it is told not to
        options: Dict[str, Any] = {"mix_stderr": False}
        made = CliRunner(**options)
    return made


class Command:
    """Runs ``dualdb`` with the sandbox's URL in the environment."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self._runner = runner()

    def __call__(
        self, *arguments: str, code: int = 0, given: Optional[str] = None, **environ: str
    ) -> Result:
        """The result of a command that must end with this exit code."""
        env = {"DUALDB_URL": self.sandbox.url, **environ}
        found = self._runner.invoke(dualdb, list(arguments), input=given, env=env)
        assert found.exit_code == code, (found.exit_code, found.output, found.stderr)
        assert found.exception is None or isinstance(found.exception, SystemExit)
        return found

    def json(self, *arguments: str, code: int = 0, **environ: str) -> Any:
        """What a command writes with ``--json``, which is one document and no more.

        Its ``ok``, if it has that, and its exit code say the same.
        """
        found = json.loads(self(*arguments, "--json", code=code, **environ).stdout)
        if isinstance(found, dict) and "ok" in found:
            assert found["ok"] is (code == 0), (code, found)
        return found
