"""A real HAProxy in front of servers, whose connections go to one of them in turn."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from typing import Iterator, List

from waiting import wait_for

from dualdb.sandbox.server import Server, free_port

_CONFIG = """\
global
    stats socket {home}/admin mode 600 level admin
defaults
    mode tcp
    timeout connect 5s
    timeout client 60s
    timeout server 60s
listen db
    bind 127.0.0.1:{port}
    balance roundrobin
{servers}
"""


class HAProxy:
    """One address for several servers.

    Args:
        servers: The servers, each a backend of the name "s" and its number.
        home: A directory of its own.
    """

    def __init__(self, servers: List[Server], home: str) -> None:
        self.port = free_port(self)
        self._home = home
        lines = [
            f"    server s{number} 127.0.0.1:{server.port}" for number, server in enumerate(servers)
        ]
        with open(f"{home}/config", "w", encoding="ascii") as file:
            file.write(_CONFIG.format(home=home, port=self.port, servers="\n".join(lines)))
        self._process = subprocess.Popen(["haproxy", "-f", f"{home}/config", "-db", "-q"])
        wait_for(lambda: os.path.exists(f"{home}/admin"))

    def set_state(self, number: int, state: str) -> None:
        """Use a backend for new connections ("ready"), or not ("maint"); those that it
        has stay open.
        """
        with socket.socket(socket.AF_UNIX) as admin:
            admin.connect(f"{self._home}/admin")
            admin.sendall(f"set server db/s{number} state {state}\n".encode())
            answer = admin.recv(1000).strip()
        assert not answer, answer

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextlib.contextmanager
def haproxy(servers: List[Server]) -> Iterator[HAProxy]:
    """Start HAProxy in front of servers."""
    if shutil.which("haproxy", path=f"{os.environ['PATH']}:/usr/sbin") is None:
        raise RuntimeError("these tests need HAProxy (Debian and Ubuntu: apt-get install haproxy)")
    home = tempfile.mkdtemp(prefix="dualdb-haproxy-")
    proxy = HAProxy(servers, home)
    try:
        yield proxy
    finally:
        proxy.stop()
        shutil.rmtree(home)
