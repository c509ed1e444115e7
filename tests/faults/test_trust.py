"""Passwords: where they go, where they are looked up, and where they are not shown."""

import contextlib
import pathlib
import socket
import struct
import threading
import traceback
from typing import Any, Iterator, List

import pymysql
import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import ConnectionFailed, DatabaseConfig, ParameterError
from dualdb.sandbox import Sandbox

#: They start servers of their own.
pytestmark = pytest.mark.slow

SECRET = "s3cret-of-the-shard"


class Rogue:
    """A server without TLS that asks for the password by a plugin of its choice."""

    def __init__(self, plugin: bytes, greeting: bytes = b"mysql_native_password") -> None:
        self.plugin, self.greeting = plugin, greeting
        self.received: List[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with link, contextlib.suppress(OSError):
                link.settimeout(5)
                link.sendall(_packet(0, self._hello()))
                self.received.append(link.recv(4096))
                link.sendall(_packet(2, b"\xfe" + self.plugin + b"\0" + b"12345678901234567890\0"))
                for _ in range(3):
                    self.received.append(link.recv(4096))

    def _hello(self) -> bytes:
        capabilities = 0x1 | 0x4 | 0x8 | 0x200 | 0x2000 | 0x8000 | 1 << 19
        return b"".join(
            [
                b"\x0a8.0.36\0",
                struct.pack("<I", 7),
                b"12345678\0",
                struct.pack("<H", capabilities & 0xFFFF),
                b"\x21\x02\x00",
                struct.pack("<H", capabilities >> 16),
                b"\x15" + b"\0" * 10,
                b"901234567890\0",
                self.greeting + b"\0",
            ]
        )


def _packet(number: int, body: bytes) -> bytes:
    return struct.pack("<I", len(body))[:3] + bytes([number]) + body


def frames_of(error: BaseException) -> Iterator[Any]:
    """The local variables of all frames of an error and of those behind it, but for the
    tests' own.
    """
    pending, seen = [error], set()
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        for frame, _ in traceback.walk_tb(each.__traceback__):
            if "/tests/" not in frame.f_code.co_filename:
                yield frame.f_locals
        others = (each.__cause__, each.__context__, getattr(each, "driver_error", None))
        pending += [other for other in others if other is not None]


@pytest.mark.parametrize(
    ("plugin", "greeting"),
    [
        (b"mysql_clear_password", b"mysql_native_password"),
        (b"dialog", b"mysql_native_password"),
        (b"mysql_old_password", b"mysql_native_password"),
        (b"mysql_clear_password", b"mysql_clear_password"),
        (b"no_such_plugin", b"caching_sha2_password"),
    ],
)
def test_whoever_answers_without_tls_is_not_sent_the_password(
    io: IO, plugin: bytes, greeting: bytes, quick_retries: None
) -> None:
    rogue = Rogue(plugin, greeting)
    config = DatabaseConfig(
        host="127.0.0.1",
        port=rogue.port,
        database="d",
        user="u",
        password=SECRET,
        connect_timeout=2,
    )
    client = io.Client(config)
    try:
        with pytest.raises(ConnectionFailed) as caught:
            io(client.init_pool())
    finally:
        rogue.close()
    assert caught.value.errno in (2059, 2061), "refused here, not there"
    assert not any(SECRET.encode() in each for each in rogue.received)
    assert SECRET not in str(caught.value)
    assert SECRET not in repr(list(frames_of(caught.value)))


def test_no_local_variable_of_a_refused_login_holds_the_password(
    io: IO, databases: Databases, quick_retries: None
) -> None:
    client = io.Client(databases.config.model_copy(update={"password": SECRET}))
    with pytest.raises(ConnectionFailed) as caught:
        io(client.query("SELECT 1"))
    assert caught.value.errno == 1045
    assert SECRET not in repr(list(frames_of(caught.value)))
    io(client.close_pool())


def test_no_local_variable_of_a_refused_shard_holds_the_password(
    io: IO, db: Any, databases: Databases
) -> None:
    config = databases.config_of(1)
    row: Any = {"host": config.host, "port": config.port, "database": config.database}
    for wrong in ({"status": "sleepy"}, {"port": 0}, {"name": "no such column"}):
        password = config.reveal_password()
        with pytest.raises(Exception, match=r".") as caught:
            io(db.add_shard(9, user=config.user, password=password, **{**row, **wrong}))
        assert password not in str(caught.value)
        assert password not in repr(list(frames_of(caught.value)))
    with pytest.raises(ParameterError, match="would be unusable"):
        io(db.add_shard(9, user="u", password="env:CLOUD_SECRET", **row))


def test_a_password_is_rotated_without_a_restart(
    io: IO, databases: Databases, tmp_path: pathlib.Path, quick_retries: None
) -> None:
    account, config = f"dd_{tmp_path.name[:12]}", databases.config
    databases.run(
        "global",
        f"CREATE USER '{account}'@'%' IDENTIFIED BY 'first'",
        f"GRANT SELECT ON {config.database}.* TO '{account}'@'%'",
    )
    (tmp_path / "secret").write_text("first\n")
    given = ["first"]
    clients = [
        io.Client(config.model_copy(update={"user": account, "password": source}))
        for source in (f"file:{tmp_path}/secret", lambda: given[0])
    ]
    try:
        for client in clients:
            assert io(client.query_value("SELECT 1")) == 1
        databases.run("global", f"ALTER USER '{account}'@'%' IDENTIFIED BY 'second'")
        (tmp_path / "secret").write_text("second\n")
        given[0] = "second"
        for client in clients:
            assert io(client.query_value("SELECT 1")) == 1, "an open session stays"
            io(client.close_pool())
            io(client.init_pool())
            assert io(client.query_value("SELECT 2")) == 2
        (tmp_path / "secret").unlink()
        io(clients[0].close_pool())
        with pytest.raises(ConnectionFailed, match="there is no file"):
            io(clients[0].init_pool())
    finally:
        for client in clients:
            io(client.close_pool())
        databases.run("global", f"DROP USER '{account}'@'%'")


def test_nobody_else_is_root_in_a_sandbox() -> None:
    with Sandbox(shards=0) as sandbox:
        port = sandbox.servers["global"].port
        for user in ("root", "", "mysql"):
            with pytest.raises(pymysql.err.OperationalError):
                pymysql.connect(host="127.0.0.1", port=port, user=user, password="")
        accounts = sandbox.run("global", "SELECT user AS user, host AS host FROM mysql.user")
        names = {(row["user"], row["host"]) for row in accounts}
        assert {user for user, host in names if host != "localhost"} == {"app"}
