"""A server whose bytes make no sense: whatever a driver raises over them, the caller
gets an error of the tree that names its shard, and the next session is opened as usual.
"""

import contextlib
import random
import socket
import threading
from typing import Any, Callable, Iterator, List

import pytest
from io_kinds import IO

import dualdb
from dualdb import DatabaseConfig, Error

OK = b"\x00\x00\x00\x02\x00\x00\x00"
GREETING = (
    b"\x0a8.0.36\x00" + b"\x01\x00\x00\x00" + b"saltsalt\x00" + b"\xff\xf7" + b"\x21\x02\x00"
    b"\xff\x81\x15" + b"\x00" * 10 + b"saltsaltsalt\x00" + b"mysql_native_password\x00"
)


def packet(sequence: int, payload: bytes) -> bytes:
    """One packet of the protocol."""
    return len(payload).to_bytes(3, "little") + bytes([sequence & 255]) + payload


Script = List[bytes]


class Rogue:
    """Sends one piece of its script for everything that it receives."""

    def __init__(self, script: Callable[[], Script]) -> None:
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            with contextlib.suppress(OSError), link:
                for piece in self._script():
                    link.sendall(piece)
                    if not link.recv(65536):
                        break


GREETINGS = {
    "nothing": b"",
    "one byte": b"\x0a",
    "no version": b"\x0aabc",
    "cut after the version": b"\x0a8.0.36\x00",
    "cut after the salt": b"\x0a8.0.36\x00\x01\x00\x00\x00saltsalt\x00",
    "a version without a number": GREETING.replace(b"8.0.36", b"eight."),
    "a version that is no text": GREETING.replace(b"8.0.36", b"\xff\xfe\xfd.1"),
    "an unknown character set": GREETING.replace(b"\x21\x02\x00", b"\xfe\x02\x00"),
    "a plugin that is no text": GREETING.replace(b"mysql_native", b"\xff\xfe\xfd"),
    "an old protocol": b"\x09" + GREETING[1:],
}

ANSWERS = {
    "nothing": b"",
    "one byte": b"\x01",
    "a switch without a plugin": b"\xfe",
    "a switch to ed25519": b"\xfeclient_ed25519\x00" + b"s" * 32 + b"\x00",
    "a switch to a plugin that is no text": b"\xfe\xff\xfe\x00salt\x00",
    "a switch to sha256": b"\xfesha256_password\x00\x00",
    "more of an authentication": b"\x01\x05",
    "a short error": b"\xff",
    "an error that is no text": b"\xff\x15\x04#28000\xff\xfe\xfd",
}


@pytest.fixture
def rogue() -> Iterator[Callable[[Callable[[], Script]], Rogue]]:
    made: List[Rogue] = []

    def start(script: Callable[[], Script]) -> Rogue:
        made.append(Rogue(script))
        return made[-1]

    yield start
    for each in made:
        each.close()


def outcome(io: IO, port: int, shard_id: Any = 7) -> Any:
    """What a query there gives, or raises."""
    config = DatabaseConfig(
        host="127.0.0.1",
        port=port,
        database="d",
        user="u",
        password="p",
        connect_timeout=0.5,
        read_timeout=0.5,
    )
    client = io.Client(config, name="shard 7", shard_id=shard_id)
    try:
        return io(client.query("SELECT 1"))
    except Exception as error:
        return error
    finally:
        io(client.close_pool())


@pytest.mark.parametrize("greeting", GREETINGS.values(), ids=list(GREETINGS))
def test_an_unreadable_greeting_is_that_shard_s_error(
    io: IO, rogue: Any, quick_retries: None, greeting: bytes
) -> None:
    server = rogue(lambda: [packet(0, greeting), packet(2, OK), packet(1, OK), b""])
    error = outcome(io, server.port)
    assert isinstance(error, dualdb.ShardUnavailable), repr(error)
    assert error.shard_id == 7
    assert isinstance(error.__cause__, dualdb.ConnectionFailed)


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=list(ANSWERS))
def test_an_unreadable_login_is_that_shard_s_error(
    io: IO, rogue: Any, quick_retries: None, answer: bytes
) -> None:
    server = rogue(lambda: [packet(0, GREETING), packet(2, answer), b""])
    error = outcome(io, server.port)
    assert isinstance(error, dualdb.ShardUnavailable), repr(error)
    assert (error.shard_id, error.target) == (7, "shard 7")


@pytest.mark.slow
def test_random_bytes_anywhere_are_an_error_of_the_tree(
    io: IO, rogue: Any, quick_retries: None, seed: int
) -> None:
    chance = random.Random(seed)

    def garbled(data: bytes) -> bytes:
        made = bytearray(data)
        for _ in range(chance.randint(1, 6)):
            made[chance.randrange(len(made))] = chance.randrange(256)
        return bytes(made[: chance.randint(1, len(made))] if chance.random() < 0.3 else made)

    def script() -> Script:
        pieces = [
            packet(0, GREETING),
            packet(2, OK),
            packet(1, OK) + packet(1, OK),
            packet(1, b"\x01"),
        ]
        number = chance.randrange(len(pieces))
        pieces[number] = packet(number and 2, garbled(pieces[number][4:]))
        return pieces

    server = rogue(script)
    for _ in range(15):
        error = outcome(io, server.port)
        assert isinstance(error, Error), repr(error)
        assert error.shard_id == 7, repr(error)
