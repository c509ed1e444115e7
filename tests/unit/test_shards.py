"""The loader and the routing rule, as tables."""

import enum
import math
import os
from decimal import Decimal
from types import SimpleNamespace
from typing import Any, Dict, Optional

import pytest

from dualdb import DatabaseConfig, ParameterError, ShardNotFound, ShardUnavailable
from dualdb.topology.allowed_hosts import AllowedHosts
from dualdb.topology.routing import choose, shard_id_of, shard_of
from dualdb.topology.shard_map import EMPTY, Changes, Status, changes_between, parse_shard_table
from dualdb.topology.status import events

BASE = DatabaseConfig(
    host="global.example",
    database="app",
    user="u",
    password="canary",
    charset="latin1",
    pool_size=4,
    max_overflow=6,
    ssl_mode="required",
)


def row(shard_id: Any = 1, **changed: Any) -> Dict[str, Any]:
    made = {
        "shard_id": shard_id,
        "host": "s.example",
        "port": 3306,
        "database_name": "s",
        "username": "su",
        "password": "canary",
        "status": "active",
    }
    return {**made, **changed}


def test_a_shard_takes_from_the_global_configuration_what_its_row_does_not_say() -> None:
    config = parse_shard_table([row()], BASE).shards[1].config
    assert config is not None
    assert (config.host, config.port, config.database, config.user, config.reveal_password()) == (
        "s.example",
        3306,
        "s",
        "su",
        "canary",
    )
    assert (config.charset, config.pool_size, config.max_overflow, config.ssl_mode) == (
        "latin1",
        4,
        6,
        "required",
    )


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("active", Status.ACTIVE),
        ("ACTIVE", Status.ACTIVE),
        (" Active ", Status.ACTIVE),
        ("inactive", Status.INACTIVE),
        ("disabled", Status.INACTIVE),
        ("maintenance", Status.MAINTENANCE),
        ("ReadOnly", Status.READONLY),
        ("draining", Status.INVALID),
        ("", Status.INVALID),
        (None, Status.INVALID),
        (1, Status.INVALID),
    ],
)
def test_status_words(word: Any, status: Status) -> None:
    assert parse_shard_table([row(status=word)], BASE).shards[1].status is status


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"port": None}, "port is NULL, not a whole number"),
        ({"port": 0}, "port: Input should be greater than or equal to 1"),
        ({"port": "33o6"}, "port is '33o6', not a whole number"),
        ({"port": math.inf}, "port is inf, not a whole number"),
        ({"host": None}, "host is NULL, not text"),
        ({"host": ""}, "host: String should have at least 1 character"),
        ({"host": "a b"}, "host: String should match pattern"),
        ({"host": "user@evil"}, "host: String should match pattern"),
        ({"host": "127.0.0.1\x00.ok"}, "host: String should match pattern"),
        ({"username": "a\x00b"}, "user: String should match pattern"),
        ({"database_name": ""}, "database: String should have at least 1 character"),
        ({"username": None}, "username is NULL, not text"),
        (
            {"status": "sleepy"},
            "status 'sleepy' is none of active, disabled, inactive, maintenance, readonly",
        ),
        ({"max_connections": 0}, "max_connections is 0"),
        ({"max_connections": "many"}, "max_connections is 'many', not a whole number"),
    ],
)
def test_a_bad_row_hurts_its_shard_alone(changed: Dict[str, Any], reason: str) -> None:
    found = parse_shard_table([row(1), row(2, **changed), row(3)], BASE)
    assert found.active == [1, 3]
    assert found.shards[2].status is Status.INVALID
    assert reason in str(found.shards[2].reason)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("shard 2: ")
    assert "canary" not in repr(found)


@pytest.mark.parametrize("shard_id", [None, "one", 1.5, Decimal("NaN")])
def test_a_row_without_a_usable_id_is_reported(shard_id: Any) -> None:
    found = parse_shard_table([row(shard_id), row(2)], BASE)
    assert found.active == [2]
    assert found.problems[0].startswith("row 1 of the shard table: shard_id is")


@pytest.mark.parametrize("shard_id", [7, Decimal("7.00"), 7.0, "7", " 07 ", b"7"])
def test_an_id_means_the_same_shard_whatever_the_column_s_type(shard_id: Any) -> None:
    found = parse_shard_table([row(shard_id, port=str(3307))], BASE)
    assert (found.active, found.problems) == ([7], ())


def test_two_rows_for_one_shard_make_it_unusable() -> None:
    found = parse_shard_table([row(1), row(1, host="other"), row(2)], BASE)
    assert found.shards[1].status is Status.INVALID
    assert found.active == [2]


def test_an_inactive_row_may_be_nonsense_otherwise() -> None:
    assert (
        parse_shard_table([row(1, status="inactive", host=None)], BASE).shards[1].status
        is Status.INACTIVE
    )


@pytest.mark.parametrize(
    ("limit", "size", "overflow"),
    [(None, 4, 6), (100, 4, 6), (10, 4, 6), (7, 4, 3), (4, 4, 0), (1, 1, 0)],
)
def test_max_connections_caps_the_pool(limit: Optional[int], size: int, overflow: int) -> None:
    config = parse_shard_table([row(max_connections=limit)], BASE).shards[1].config
    assert config is not None
    assert (config.pool_size, config.max_overflow) == (size, overflow)


def test_further_columns_and_upper_case_names_are_taken() -> None:
    shard = parse_shard_table(
        [
            {
                **{name.upper(): value for name, value in row().items()},
                "SHARD_NAME": "seoul",
                "note": 1,
            }
        ],
        BASE,
    ).shards[1]
    assert (shard.status, shard.name) == (Status.ACTIVE, "seoul")


@pytest.mark.parametrize("password", ["", None])
def test_an_empty_password_is_a_password(password: Any) -> None:
    config = parse_shard_table([row(password=password)], BASE).shards[1].config
    assert config is not None
    assert config.reveal_password() == ""


@pytest.mark.parametrize(
    ("host", "allowed", "is_allowed"),
    [
        ("db1.internal", None, True),
        ("db1.internal", [], False),
        ("db1.internal", ["*.internal"], True),
        (" DB1.Internal ", ["*.INTERNAL"], True),
        ("db1.internal.evil.example", ["*.internal"], False),
        ("db1.internal", ["db?.internal", "10.0.0.0/8"], True),
        ("10.1.2.3", ["*.internal", "10.0.0.0/8"], True),
        ("11.1.2.3", ["10.0.0.0/8"], False),
        ("10.1.2.3", ["10.1.2.3"], True),
        ("fd00::1", ["fd00::/8"], True),
        ("fd00::1", ["10.0.0.0/8"], False),
        ("10.evil.example", ["10.0.0.0/8"], False),
    ],
)
def test_only_allowed_hosts_are_shards(
    host: str, allowed: Any, is_allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = parse_shard_table(
        [row(1, host=host), row(2, host=host, password="env:NOT_READ")],
        BASE,
        1,
        AllowedHosts(allowed),
    ).shards
    assert (found[1].status is Status.ACTIVE) is is_allowed
    assert ("not among the allowed hosts" in str(found[1].reason)) is not is_allowed
    assert ("NOT_READ" in str(found[2].reason)) is is_allowed, (
        "no secret is looked up for a host that is not allowed"
    )


@pytest.mark.parametrize("hosts", ["db1", ["10.0.0.0/33"], ["a b"], [""], [None], ["1.2.3"]])
def test_an_allowed_host_is_a_name_an_address_or_a_network(hosts: Any) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        AllowedHosts(hosts)


def test_a_password_may_be_named_and_not_held(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "one")
    (tmp_path / "secret").write_text("two\n")
    (tmp_path / "long").write_text("x" * 5000)

    def password(reference: str) -> Any:
        shard = parse_shard_table([row(password=reference)], BASE).shards[1]
        return shard.reason if shard.config is None else shard.config.reveal_password()

    assert (password("env:SECRET"), password(f"file:{tmp_path}/secret"), password("secret:x")) == (
        "one",
        "two",
        "secret:x",
    )
    assert password("env:ABSENT") == "password: there is no environment variable 'ABSENT'"
    assert password("file:/absent") == "password: there is no file '/absent'"
    os.mkfifo(tmp_path / "pipe")
    assert "there is no file" in password(f"file:{tmp_path}/pipe")
    assert "is longer than" in password(f"file:{tmp_path}/long")


@pytest.mark.parametrize(
    ("before", "after", "translated"),
    [
        ([], [row(1)], [("shard_added", 1)]),
        ([row(1)], [], [("shard_removed", 1)]),
        ([row(1)], [row(1)], []),
        ([row(1)], [row(1, port=1)], [("shard_moved", 1)]),
        ([row(1)], [row(1, status="readonly")], [("shard_state_changed", 1)]),
        (
            [row(1)],
            [row(1, status="maintenance", password="p")],
            [("shard_moved", 1), ("shard_state_changed", 1)],
        ),
        ([row(1)], [row(1, port=None)], [("shard_state_changed", 1)]),
        ([row(2), row(1)], [row(3), row(1)], [("shard_removed", 2), ("shard_added", 3)]),
    ],
)
def test_what_is_told_of_a_change(before: Any, after: Any, translated: Any) -> None:
    old, new = parse_shard_table(before, BASE), parse_shard_table(after, BASE, 2)
    assert [(event.name, event.shard_id) for event in events(old, new)] == [
        *translated,
        ("map_refreshed", None),
    ]
    assert all(event.version == 2 for event in events(old, new))
    assert "canary" not in repr(events(old, new))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ([], [row(1), row(2)], Changes((1, 2), ())),
        ([row(1)], [row(1)], Changes((), ())),
        ([row(1)], [row(1, created_at="now", shard_name="x")], Changes((), ())),
        ([row(1)], [], Changes((), (1,))),
        ([row(1)], [row(1, status="inactive")], Changes((), (1,))),
        ([row(1)], [row(1, status="maintenance")], Changes((), (1,))),
        ([row(1, status="maintenance")], [row(1)], Changes((1,), ())),
        ([row(1)], [row(1, status="readonly", host=" S.Example ")], Changes((), ())),
        ([row(1)], [row(1, host="moved")], Changes((1,), (1,))),
        ([row(1)], [row(1, password="new")], Changes((1,), (1,))),
        ([row(1)], [row(1, port=None)], Changes((), (1,))),
        ([row(1), row(2)], [row(2), row(3)], Changes((3,), (1,))),
    ],
)
def test_changes(before: Any, after: Any, expected: Changes) -> None:
    assert (
        changes_between(parse_shard_table(before, BASE), parse_shard_table(after, BASE)) == expected
    )


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
    with pytest.raises(ParameterError, match="a shard_id is an int, not"):
        shard_of(SimpleNamespace(session=SimpleNamespace(shard_id=shard_id)))
    with pytest.raises(ParameterError, match="a shard_id is an int, not"):
        shard_id_of(shard_id)


MAP = parse_shard_table(
    [row(0), row(1), row(2, status="inactive"), row(3, status="maintenance"), row(4, port=None)],
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
        assert str(error) == f"Shard {shard_id} not available"
        assert error.reason


def test_the_empty_map_sends_everybody_to_the_global_database() -> None:
    assert choose(EMPTY, 1, absent="global") is None
