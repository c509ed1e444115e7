"""Which shard a session means, and what is no session."""

from collections import OrderedDict
from datetime import date
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest.mock import AsyncMock, MagicMock, Mock
from uuid import UUID

import pytest
from pydantic import BaseModel

from dualdb import ParameterError
from dualdb.topology.routing import session_reader, shard_of


class KeysOnly:
    """As some frameworks' sessions: read by keys, and no Mapping."""

    def __init__(self, **values: Any) -> None:
        self._values = values

    def keys(self) -> Any:
        return self._values.keys()

    def __getitem__(self, key: str) -> Any:
        return self._values[key]


class Slotted:
    __slots__ = ("shardId",)


class Named:
    session = 1


class Failing:
    @property
    def shard_id(self) -> int:
        raise AttributeError("of something inside")


class Extra(BaseModel, extra="allow"):
    """What its fields are is known to nobody before."""


def extra(**fields: Any) -> Extra:
    return Extra(**fields)


class Pair(NamedTuple):
    session: Any


async def forgotten() -> None:
    """Called, and not awaited."""


def closed_coroutine() -> Any:
    coroutine = forgotten()
    coroutine.close()
    return coroutine


def of(**names: Any) -> Any:
    return SimpleNamespace(**names)


@pytest.mark.parametrize(
    ("client_session", "shard_id"),
    [
        (None, None),
        (of(session=None), None),
        (of(session=of(shard_id=None)), None),
        (of(session=of(shard_id=0)), 0),
        (of(session=of(shard_id=7)), 7),
        ({"session": {"shard_id": 7}}, 7),
        ({"session": of(shard_id=7)}, 7),
        (of(session={"shard_id": 7}), 7),
        (of(session=OrderedDict(shard_id=7)), 7),
        (of(session=KeysOnly(shard_id=7)), 7),
        (KeysOnly(session=KeysOnly(shard_id=None)), None),
        ({"session": None}, None),
        (extra(session={"shard_id": 7}), 7),
        (Pair(of(shard_id=7)), 7),
        (Pair(None), None),
    ],
)
@pytest.mark.parametrize("strict", [False, True])
def test_what_a_session_is(client_session: Any, shard_id: Any, strict: bool) -> None:
    assert shard_of(client_session, strict=strict) == shard_id


@pytest.mark.parametrize(
    "client_session",
    [
        1,
        0,
        True,
        1.5,
        "1",
        b"1",
        ["session"],
        ("a", 1),
        {1},
        of(shard_id=1),
        of(shardId=1),
        of(shard=1),
        {"shard_id": 1},
        {"shardId": 1},
        of(sesion=of(shard_id=1)),
        of(Sessions=of(shard_id=1)),
        of(session=1),
        of(session="1"),
        of(session=[1]),
        of(session=of(shardId=1)),
        of(session=of(shardid=1)),
        of(session=of(ShardID=1)),
        of(session=of(shard=1)),
        of(session={"shardId": 1}),
        of(session=of(shard_ids=[1])),
        of(session=Slotted()),
        {"session": {"shard": 1}},
        Named(),
        of(Session=of(shard_id=1)),
        of(client_session=of(session=of(shard_id=1))),
        of(_session=of(shard_id=1)),
        of(session=of(_shard_id=1)),
        of(session=of(session=of(shard_id=1))),
        of(session=Failing()),
        {b"session": {b"shard_id": 1}},
        {"session": {b"shard_id": 1}},
        extra(sesion={"shard_id": 1}),
        extra(shard_id=1),
        Decimal(1),
        UUID(int=1),
        date(2020, 1, 1),
        memoryview(b"1"),
        range(1),
        ValueError("1"),
        SimpleNamespace,
        closed_coroutine,
        closed_coroutine(),
        of(session=closed_coroutine()),
        iter(()),
    ],
    ids=lambda each: type(each).__name__,
)
@pytest.mark.parametrize("strict", [False, True])
def test_another_shape_is_never_the_global_database(client_session: Any, strict: bool) -> None:
    with pytest.raises(ParameterError, match="a client session must be None or have .session"):
        shard_of(client_session, strict=strict)


@pytest.mark.parametrize(
    "client_session", [{}, object(), of(user=1), of(session=object()), of(session=of(user_id=1))]
)
def test_the_silence_of_the_original_is_asked_for(client_session: Any) -> None:
    assert shard_of(client_session) is None
    with pytest.raises(ParameterError, match="session_shard="):
        shard_of(client_session, strict=True)


def test_a_function_of_the_application_reads_other_shapes() -> None:
    read = session_reader(lambda token: token["tenant"], strict=True)
    assert (read({"tenant": 3}), read({"tenant": None}), read(None)) == (3, None, None)
    with pytest.raises(ParameterError, match="shard_id must be an int"):
        read({"tenant": "3"})
    with pytest.raises(KeyError):
        read({})


@pytest.mark.parametrize(
    "mock",
    [Mock(), MagicMock(), AsyncMock(), MagicMock(spec=int)],
    ids=["Mock", "MagicMock", "AsyncMock", "of an int"],
)
def test_a_mock_is_no_shard_id(mock: Any) -> None:
    for client_session in (mock, of(session=mock), of(session=of(shard_id=mock))):
        with pytest.raises(ParameterError):
            shard_of(client_session)
