"""Where a call goes."""

import enum
from types import SimpleNamespace
from typing import Any, Optional

import pytest
from shard_rows import BASE, row

from dualdb import ParameterError, ShardNotFound, ShardUnavailable
from dualdb.topology.routing import choose, shard_id_of, shard_of
from dualdb.topology.shard_map import EMPTY, parse_shard_table


class Shard(enum.IntEnum):
    FIRST = 1


class Broken:
    @property
    def session(self) -> Any:
        raise AttributeError("gone")


NONE = SimpleNamespace(session=None)


@pytest.mark.parametrize(
    ("client_session", "shard_id"),
    [
        (None, None),
        ("", None),
        ({}, None),
        (object(), None),
        (Broken(), None),
        (NONE, None),
        (SimpleNamespace(session=object()), None),
        (SimpleNamespace(session=SimpleNamespace(shard_id=None)), None),
        (SimpleNamespace(session=SimpleNamespace(shard_id=0)), 0),
        (SimpleNamespace(session=SimpleNamespace(shard_id=2)), 2),
        (SimpleNamespace(session=SimpleNamespace(shard_id=-1)), -1),
        (SimpleNamespace(session=SimpleNamespace(shard_id=Shard.FIRST)), 1),
    ],
)
def test_the_shard_of_a_session(client_session: Any, shard_id: Optional[int]) -> None:
    assert shard_of(client_session) == shard_id


@pytest.mark.parametrize("shard_id", ["2", "", 2.0, True, False, b"2", [2], SimpleNamespace()])
def test_a_shard_id_of_another_type_is_refused_and_not_guessed(shard_id: Any) -> None:
    with pytest.raises(ParameterError, match="shard_id must be an int, not"):
        shard_of(SimpleNamespace(session=SimpleNamespace(shard_id=shard_id)))
    with pytest.raises(ParameterError, match="shard_id must be an int, not"):
        shard_id_of(shard_id)


MAP = parse_shard_table(
    [
        row(0),
        row(1),
        row(2, status="inactive"),
        row(3, status="maintenance"),
        row(4, port=None),
        row(5, status="moving"),
    ],
    BASE,
)


@pytest.mark.parametrize(
    ("shard_id", "absent", "named", "outcome"),
    [
        (None, "global", False, None),
        (None, "error", False, None),
        (0, "global", False, 0),
        (1, "error", False, 1),
        (1, "global", True, 1),
        (2, "global", False, None),
        (2, "error", False, ShardNotFound),
        (2, "global", True, ShardUnavailable),
        (3, "global", False, ShardUnavailable),
        (3, "error", False, ShardUnavailable),
        (3, "global", True, ShardUnavailable),
        (4, "global", False, ShardUnavailable),
        (4, "global", True, ShardUnavailable),
        (5, "global", False, ShardUnavailable),
        (5, "error", True, ShardUnavailable),
        (9, "global", False, None),
        (9, "error", False, ShardNotFound),
        (9, "global", True, ShardUnavailable),
        (9, "error", True, ShardUnavailable),
    ],
)
def test_where_a_call_goes(shard_id: Optional[int], absent: Any, named: bool, outcome: Any) -> None:
    if outcome is None or isinstance(outcome, int):
        assert choose(MAP, shard_id, absent=absent, named=named) == outcome
        return
    with pytest.raises(RuntimeError) as caught:
        choose(MAP, shard_id, absent=absent, named=named)
    error: Any = caught.value
    assert type(error) is outcome
    assert (error.shard_id, error.target, error.sent) == (shard_id, f"shard {shard_id}", False)
    if outcome is ShardUnavailable:
        assert str(error) == f"Shard {shard_id} not available: {error.reason}"
        assert error.reason


def test_the_empty_map_sends_everybody_to_the_global_database() -> None:
    assert choose(EMPTY, 1, absent="global") is None
