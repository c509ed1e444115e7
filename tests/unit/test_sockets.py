"""What has happened on a socket, by the compiled function and by select.poll()."""

import select
import socket
from typing import Iterator, Tuple

import pytest

from dualdb import sockets

Pair = Tuple[socket.socket, socket.socket]


@pytest.fixture(params=["compiled", "poll", "select"])
def asked_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "compiled" and not sockets.HAS_COMPILED_POLL:
        pytest.skip("the compiled function is not built (python setup.py build_ext --inplace)")
    if request.param != "compiled":
        monkeypatch.setattr(sockets, "HAS_COMPILED_POLL", False)
    if request.param == "select":
        monkeypatch.delattr(select, "poll")
    return str(request.param)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        near = socket.create_connection(server.getsockname())
        far, _ = server.accept()
    with near, far:
        yield near, far


def happened(sock: socket.socket) -> int:
    """Wait until something has happened, and return what."""
    select.select([sock], [], [], 10)
    return sockets.watch(sock)()


@pytest.mark.usefixtures("asked_by")
def test_nothing_has_happened_on_a_quiet_socket(pair: Pair) -> None:
    asked = sockets.watch(pair[0])
    assert (asked(), asked()) == (0, 0)


@pytest.mark.usefixtures("asked_by")
def test_data_is_told_and_is_no_hang_up(pair: Pair) -> None:
    pair[1].sendall(b"data")
    events = happened(pair[0])
    assert events & sockets.READABLE
    assert not events & sockets.HANGS_UP


@pytest.mark.usefixtures("asked_by")
@pytest.mark.parametrize("close", [socket.socket.close, lambda far: far.shutdown(socket.SHUT_WR)])
def test_the_end_is_told(pair: Pair, close: "object") -> None:
    assert callable(close)
    close(pair[1])
    assert happened(pair[0]) & sockets.HANGS_UP


def test_the_end_behind_data_is_told(pair: Pair) -> None:
    pair[1].sendall(b"data")
    pair[1].close()
    assert happened(pair[0]) & sockets.READABLE


@pytest.mark.usefixtures("asked_by")
def test_of_a_socket_that_cannot_be_asked_nothing_is_told(pair: Pair) -> None:
    pair[0].close()
    assert sockets.watch(pair[0])() == 0
    assert sockets.watch(object())() == 0
