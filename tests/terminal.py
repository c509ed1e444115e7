"""A process in a terminal of its own, as an operator has it."""

import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from fcntl import ioctl
from typing import Dict, List

_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07]*\x07|[@-Z\\-_=>])")
TIMEOUT = 30.0


class Terminal:
    """Runs ``python -m dualdb`` in a pseudo-terminal.

    Args:
        arguments: Of the command.
        environ: The whole environment.
    """

    def __init__(self, arguments: List[str], environ: Dict[str, str]) -> None:
        self._output = ""
        self.code = -1
        self._pid, self._fd = pty.fork()
        if self._pid == 0:  # pragma: no cover
            try:
                command = [sys.executable, "-m", "dualdb", *arguments]
                os.execve(sys.executable, command, environ)
            finally:
                os._exit(126)
        ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))

    @property
    def output(self) -> str:
        """All that was written, without escape sequences."""
        return _ESCAPES.sub("", self._output)

    def expect(self, *texts: str) -> None:
        """Read until these texts have come, one after the other, since the last
        ``send``.

        Raises:
            AssertionError: They have not in time.
        """
        pattern = re.compile(".*?".join([re.escape(text) for text in texts]), re.S)
        until = time.monotonic() + TIMEOUT
        while not pattern.search(self.output):
            assert time.monotonic() < until, f"{texts} are not in {self.output!r}"
            assert self._read(), f"it ended before {texts}: {self.output!r}"

    def send(self, text: str) -> None:
        """Type something; what came before is forgotten."""
        self._output = ""
        os.write(self._fd, text.encode())

    def wait(self) -> int:
        """The exit code, when it has ended."""
        while self._read():
            pass
        self.code = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        os.close(self._fd)
        self._pid = 0
        return self.code

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._pid:
            os.kill(self._pid, signal.SIGKILL)
            self.wait()

    def _read(self) -> bool:
        ready, _, _ = select.select([self._fd], [], [], TIMEOUT)
        assert ready, f"nothing more is written after {self.output!r}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # Linux has this for the end
            return False
        # prompt_toolkit asks where the cursor is, and waits for an answer.
        if b"\x1b[6n" in data:
            os.write(self._fd, b"\x1b[1;1R")
        self._output += data.decode(errors="replace")
        return bool(data)
