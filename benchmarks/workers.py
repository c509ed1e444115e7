"""Starts contestants in processes of their own and tells them what to do, one at a
time.
"""

import json
import pathlib
import select
import subprocess
import sys
from typing import Any, Dict

from .data import Server

ROOT = pathlib.Path(__file__).parents[1]

#: A contestant that is silent for so long has lost its way.
PATIENCE = 120.0


class Refused(Exception):
    """There is no figure; the message says why."""


class Worker:
    """A contestant's process. Idle unless it has been asked.

    Raises:
        Refused: it could not be opened.

    Attributes:
        note: what the report should know of it.
    """

    def __init__(self, key: str, server: Server) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", key],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            self.note: str = self.ask(server._asdict())["note"]
        except BaseException:
            self.close()
            raise

    def ask(self, command: Dict[str, Any]) -> Dict[str, Any]:
        """Perform one command. Raises: Refused."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise Refused("its process has ended") from None
        # There is one line for each command, so that nothing is left in the buffer that
        # select() would not see.
        if not select.select([self._process.stdout], [], [], PATIENCE)[0]:
            self._process.kill()
            raise Refused(f"gave no answer in {PATIENCE:.0f} seconds")
        line = self._process.stdout.readline()
        if not line:
            raise Refused("its process has ended")
        answer: Dict[str, Any] = json.loads(line)
        if "missing" in answer:
            raise Refused(answer["missing"])
        return answer

    def close(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            pass
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
