"""A process that removes a sandbox when its owner requests it or dies.

It runs as a script and uses the standard library only. The owner holds the write end of
standard input: a byte requests the removal, and end of file means that the owner has
died, which works even after SIGKILL.
"""

import glob
import os
import shutil
import signal
import subprocess
import sys
import time
from typing import Iterator, Tuple


def processes() -> Iterator[Tuple[int, str]]:
    """Yield the pid and command line of every visible process."""
    if os.path.isdir("/proc/self"):
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as file:
                    yield (
                        int(path.split("/")[2]),
                        file.read().replace(b"\0", b" ").decode(errors="replace"),
                    )
            except OSError:
                pass
    else:
        listing = subprocess.run(
            ["ps", "-axo", "pid=,command="], capture_output=True, text=True, check=False
        ).stdout
        for line in listing.splitlines():
            pid, _, command = line.strip().partition(" ")
            yield int(pid), command


def servers(directory: str) -> Iterator[int]:
    """The servers whose data lies in the directory: recognised by their command line,
    never by a pid, which may have been reused.
    """
    for pid, command in processes():
        if pid != os.getpid() and f"--datadir={directory}/" in command:
            yield pid


def main(directory: str) -> None:
    """Wait for the owner, then kill the servers and remove the directory."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read(1)
    for _ in range(100):
        left = list(servers(directory))
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
        shutil.rmtree(directory, ignore_errors=True)
        if not left and not os.path.exists(directory):
            return
        time.sleep(0.05)


if __name__ == "__main__":
    main(sys.argv[1])
