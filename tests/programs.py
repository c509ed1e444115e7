"""Programs that tests start: web servers, workers, Redis."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
from typing import Any, Iterator, List

from waiting import wait_for

import dualdb
from dualdb.sandbox.server import free_port

APPLICATIONS = pathlib.Path(__file__).parent / "integrations" / "applications"


class _Holder:
    """Keeps a port reserved while its block runs."""


def url_of(config: dualdb.DatabaseConfig) -> str:
    """The configuration as a URL with its password."""
    account = f"{config.user}:{config.reveal_password()}"
    return f"mysql://{account}@{config.host}:{config.port}/{config.database}"


def environment(url: str, *paths: pathlib.Path, **more: str) -> Any:
    """Variables for a program that imports the package and what is in these folders."""
    found = [*map(str, paths or (APPLICATIONS,)), str(pathlib.Path(dualdb.__file__).parents[1])]
    return {**os.environ, "DUALDB_URL": url, "PYTHONPATH": os.pathsep.join(found), **more}


def wait_for_port(port: int, process: "subprocess.Popen[Any]") -> None:
    """Wait until a program listens; AssertionError if it ends before."""

    def listens() -> bool:
        assert process.poll() is None, "it ended before it listened"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens, 60)


@contextlib.contextmanager
def web_server(module: str, url: str, *arguments: str, **more: str) -> Iterator[str]:
    """Uvicorn, or with ``server="gunicorn"`` that; its address."""
    server = more.pop("server", "uvicorn")
    holder = _Holder()
    port = free_port(holder)
    where = (
        ["--port", str(port), "--log-level", "warning"]
        if server == "uvicorn"
        else ["--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    )
    command = [sys.executable, "-m", server, module, *where, *arguments]
    with subprocess.Popen(command, env=environment(url, **more)) as process:
        try:
            wait_for_port(port, process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            assert process.wait(30) in (0, -signal.SIGTERM)


@contextlib.contextmanager
def redis_server(directory: pathlib.Path) -> Iterator[str]:
    """Redis on a free port; its URL."""
    program = shutil.which("redis-server")
    assert program, (
        "no redis-server on PATH: install it (Debian and Ubuntu: apt-get install redis-server)"
    )
    holder = _Holder()
    port = free_port(holder)
    where = ["--port", str(port), "--bind", "127.0.0.1", "--dir", str(directory)]
    command: List[str] = [program, *where, "--save", "", "--loglevel", "warning"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        try:
            wait_for_port(port, process)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.terminate()
