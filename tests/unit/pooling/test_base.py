"""What is done with a connection that comes back."""

import time
from typing import Any

import pytest

from dualdb import DatabaseConfig, errors
from dualdb.endpoints.state import Endpoint
from dualdb.pooling.base import BasePool, Disposition
from dualdb.protocol.connection_state import ConnectionState, KillState, Lifetime, WireState
from dualdb.protocol.session_setup import SessionFacts

AUTOCOMMIT, IN_TRANSACTION = 2, 1


class Connection(ConnectionState):
    """A connection without a driver."""

    open, server_status = True, AUTOCOMMIT
    _config = DatabaseConfig(database="d", user="u", password="p")

    def __init__(self, **changes: Any) -> None:
        self._config = DatabaseConfig(database="d", user="u", password="p")
        super().__init__()
        self.wire = WireState.IDLE
        for name, value in changes.items():
            setattr(self, name, value)

    def abort(self) -> None:
        """There is no socket."""

    def _close_descriptor(self) -> None:
        """There is no socket."""


def pool(**changes: Any) -> BasePool:
    return BasePool(DatabaseConfig(database="d", user="u", password="p", **changes), "it", None)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, Disposition.REUSE),
        ({"dirty": True}, Disposition.RESET),
        ({"has_diagnostics": True}, Disposition.CLEAR),
        ({"dirty": True, "has_diagnostics": True}, Disposition.RESET),
        ({"dirty": True, "facts": SessionFacts(runs_init_connect=True)}, Disposition.CLOSE),
        ({"server_status": 0}, Disposition.CLOSE),
        ({"server_status": AUTOCOMMIT | IN_TRANSACTION}, Disposition.CLOSE),
        ({"wire": WireState.CLOSED}, Disposition.CLOSE),
        ({"wire": WireState.BUSY}, Disposition.CLOSE),
        ({"wire": WireState.BUSY, "_written": True}, Disposition.KILL),
        ({"wire": WireState.STREAMING, "_written": True}, Disposition.KILL),
        ({"wire": WireState.ABANDONED}, Disposition.KILL),
        ({"wire": WireState.ABANDONED, "open": False}, Disposition.CLOSE),
        (
            {"wire": WireState.ABANDONED, "kill_state": KillState.PENDING},
            Disposition.KILLER_OWNS_IT,
        ),
        ({"wire": WireState.ABANDONED, "kill_state": KillState.DONE}, Disposition.CLOSE),
        ({"kill_state": KillState.PENDING}, Disposition.KILLER_OWNS_IT),
        ({"wire": WireState.ABANDONED, "inherited": True}, Disposition.DROP),
        ({"open": False}, Disposition.CLOSE),
    ],
)
def test_the_disposition_of_a_connection(changes: Any, expected: Disposition) -> None:
    assert pool().disposition(Connection(**changes)) is expected


def test_every_connection_is_reset_where_that_is_asked_for() -> None:
    assert pool(reset="always").disposition(Connection()) is Disposition.RESET
    facts = SessionFacts(runs_init_connect=True)
    assert pool(reset="always").disposition(Connection(facts=facts)) is Disposition.CLOSE


def test_a_closed_pool_closes_what_comes_back() -> None:
    closed = pool()
    closed.closed = True
    assert closed.disposition(Connection()) is Disposition.CLOSE
    assert closed.disposition(Connection(dirty=True)) is Disposition.CLOSE


def test_a_connection_to_a_retired_host_is_closed_when_it_comes_back() -> None:
    endpoint = Endpoint()
    connection = Connection()
    connection.lifetime = Lifetime(None, endpoint)
    assert pool().disposition(connection) is Disposition.REUSE
    endpoint.retire(connection.lifetime.opened_at)
    assert pool().disposition(connection) is Disposition.CLOSE
    connection.dirty = True
    assert pool().disposition(connection) is Disposition.CLOSE


@pytest.mark.parametrize(("waited", "timeouts"), [(0.1, 0), (9.0, 0), (10.0, 1)])
def test_a_connect_that_only_its_caller_gave_up_does_not_make_the_host_silent(
    waited: float, timeouts: int
) -> None:
    """What was given up on a silent host is not killed there, so that it went on."""
    one = pool(connect_timeout=10.0)
    (endpoint,) = one.endpoints.all
    now = time.monotonic()
    one._connect_failed(errors.ConnectionFailed(2003, "late"), endpoint, now - waited, now)
    assert endpoint.timeouts == timeouts
