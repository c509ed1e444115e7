"""On systems without poll(), fork and unix sockets, and with loops whose sockets cannot
be asked: what Windows lacks is taken away from a process of its own.
"""

import subprocess
import sys
from typing import List

import pytest
from database_servers import Databases
from programs import environment, url_of

pytestmark = pytest.mark.slow

TAKE_AWAY = """
import asyncio, os, select, signal, socket, sys, warnings

# what the standard library needs itself is imported first
import asyncio.selector_events, concurrent.futures, multiprocessing, subprocess, uuid

# what the event loop of this system makes for itself
pair, unix = socket.socketpair, socket.AF_UNIX
socket.socketpair = lambda: pair(unix)

for module, names in {
    os: ["register_at_fork", "fork", "getuid", "geteuid", "getppid", "killpg"],
    select: ["poll", "epoll", "POLLIN", "POLLHUP", "POLLERR", "POLLRDHUP", "POLLNVAL"],
    socket: ["AF_UNIX", "SO_REUSEPORT", "MSG_DONTWAIT"],
    signal: ["SIGKILL", "SIGHUP", "SIGALRM", "setitimer", "SIGSTOP", "SIGCONT"],
}.items():
    for name in names:
        if hasattr(module, name):
            delattr(module, name)
for name in ("fcntl", "termios", "resource", "pwd", "grp"):
    sys.modules[name] = None
"""

THREADS = """
import threading
import dualdb
from dualdb import DatabaseConfig, DatabaseService, ShardUnavailable

config = DatabaseConfig.from_env()
with DatabaseService(config) as db:
    assert db.shard(1).execute("INSERT INTO trades VALUES (NULL, 1, 'A', 1)") == 1
    assert db.shards().query_value("SELECT COUNT(*) FROM trades").values == [1, 0]
    try:
        db.query("SELECT SLEEP(50)", timeout=0.2)
    except TimeoutError:
        pass
    with db.shard(2).transaction() as tx:
        tx.execute("INSERT INTO trades VALUES (NULL, 1, 'A', 1)")
    for row in db.shard(2).stream("SELECT symbol FROM trades"):
        assert row == {"symbol": "A"}
    number = db.shard(1).query_value("SELECT CONNECTION_ID()")
    other = dualdb.MySQLClient(db.shard_configs[1])
    other.execute(f"KILL {number}")
    other.close_pool()
    assert db.shard(1).query_value("SELECT 1") == 1, "it was found to be closed"
    assert db.stats()[1].in_use == 0
try:
    with DatabaseService(config.model_copy(update={"unix_socket": "/nowhere"})):
        pass
except dualdb.ConnectionFailed as error:
    assert "no unix sockets" in str(error)
print("done")
"""

ASYNCIO = """
from dualdb import AsyncDatabaseService, AsyncMySQLClient, ConnectionFailed, DatabaseConfig

class Socket:  # a transport's socket without a descriptor
    def __init__(self, sock):
        self._sock = sock
    def __getattr__(self, name):
        if name == "fileno" and PROACTOR:
            raise AttributeError(name)
        return getattr(self._sock, name)

get = asyncio.selector_events._SelectorSocketTransport.get_extra_info
def get_extra_info(self, name, default=None):
    found = get(self, name, default)
    return Socket(found) if name == "socket" and found is not None else found
asyncio.selector_events._SelectorSocketTransport.get_extra_info = get_extra_info

async def main():
    config = DatabaseConfig.from_env()
    async with AsyncDatabaseService(config) as db:
        assert await db.shard(1).execute("INSERT INTO trades VALUES (NULL, 1, 'A', 1)") == 1
        assert (await db.shards().query_value("SELECT COUNT(*) FROM trades")).values == [1, 0]
        try:
            await db.query("SELECT SLEEP(50)", timeout=0.2)
        except TimeoutError:
            pass
        async with db.shard(2).transaction() as tx:
            await tx.execute("INSERT INTO trades VALUES (NULL, 1, 'A', 1)")
        async for row in db.shard(2).stream("SELECT symbol FROM trades"):
            assert row == {"symbol": "A"}
        number = await db.shard(1).query_value("SELECT CONNECTION_ID()")
        other = AsyncMySQLClient(db.shard_configs[1])
        await other.execute(f"KILL {number}")
        await other.close_pool()
        await asyncio.sleep(0.2)  # the loop learns of it
        assert await db.shard(1).query_value("SELECT 1") == 1
        assert db.stats()[1].in_use == 0
    try:
        async with AsyncDatabaseService(config.model_copy(update={"unix_socket": "/nowhere"})):
            pass
    except ConnectionFailed as error:
        assert "no unix sockets" in str(error)
    print("done")

asyncio.run(main(), debug=False)
"""

PROGRAMS = {
    "threads": [THREADS],
    "asyncio": ["PROACTOR = False\n", ASYNCIO],
    "asyncio without descriptors": ["PROACTOR = True\n", ASYNCIO],
}


def run(program: List[str], databases: Databases) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", "".join([TAKE_AWAY, *program])],
        env=environment(url_of(databases.config), USERNAME="somebody"),
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_everything_but_the_sandbox_runs_without_posix(name: str, databases: Databases) -> None:
    done = run(PROGRAMS[name], databases)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr


def test_the_package_is_imported_without_posix(databases: Databases) -> None:
    """Every module but those of other frameworks and of the servers for tests."""
    program = """
import dualdb, dualdb.async_impl, dualdb.cli, dualdb.testing, dualdb.integrations.asgi
import dualdb.integrations.wsgi, dualdb.operations.facade
import pkgutil, importlib
for found in pkgutil.walk_packages(dualdb.__path__, "dualdb."):
    if ".sandbox" not in found.name and ".integrations." not in found.name:
        if found.name not in ("dualdb.__main__", "dualdb.testing.plugin"):
            importlib.import_module(found.name)
print("done")
"""
    done = run([program], databases)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
