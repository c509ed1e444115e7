"""What a row of the shard table may say, and how two maps differ."""

import math
from decimal import Decimal
from typing import Any, Dict, Optional

import pytest
from shard_rows import BASE, row

from dualdb.topology.allowed_hosts import AllowedHosts
from dualdb.topology.shard_map import EMPTY, Changes, Status, changes_between, parse_shard_table


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
        ({"host": ""}, "a host is missing: write host, host:port or [address]:port"),
        ({"host": "n1,,n2"}, "a host is missing: write host, host:port or [address]:port"),
        ({"host": "n1:0,n2"}, "the port of 'n1' is not a number from 1 to 65535"),
        ({"host": "n1,N1:3306"}, "n1:3306 is named twice"),
        ({"engine": "oracle"}, "engine: Input should be 'auto', 'mysql',"),
        ({"endpoint_policy": 1}, "endpoint_policy is a int, not text"),
        ({"host": "a b"}, "host: String should match pattern"),
        ({"host": "user@evil"}, "host: String should match pattern"),
        ({"host": "127.0.0.1\x00.ok"}, "host: String should match pattern"),
        ({"username": "a\x00b"}, "user: String should match pattern"),
        ({"database_name": ""}, "database: String should have at least 1 character"),
        ({"username": None}, "username is NULL, not text"),
        (
            {"status": "sleepy"},
            "status 'sleepy' is not one of active, disabled, inactive, maintenance, moving, "
            "readonly",
        ),
        ({"max_connections": 0}, "max_connections must be at least 1"),
        ({"max_connections": "many"}, "max_connections is 'many', not a whole number"),
        ({"weight": "heavy" * 1000}, "weight must be a number, not 'heavy"),
        ({"weight": -1}, "weight must be a number from 0 up, not -1"),
    ],
)
def test_a_bad_row_hurts_its_shard_alone(changed: Dict[str, Any], reason: str) -> None:
    found = parse_shard_table([row(1), row(2, **changed), row(3)], BASE)
    assert found.active == [1, 3]
    assert found.shards[2].status is Status.INVALID
    assert reason in str(found.shards[2].reason)
    assert len(found.problems) == 1
    assert found.problems[0].startswith("shard 2: ")
    assert len(found.problems[0]) < 300
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


def test_the_empty_map_is_version_0() -> None:
    assert (EMPTY.version, dict(EMPTY.shards)) == (0, {})


def test_a_row_names_several_hosts_a_policy_and_an_engine() -> None:
    shown = row(host=" N1:3307, n2 ,[::1]:1", engine="Galera", endpoint_policy="any")
    config = parse_shard_table([shown], BASE).shards[1].config
    assert config is not None
    assert config.hosts == (("n1", 3307), ("n2", 3306), ("::1", 1))
    assert (config.engine, config.endpoint_policy) == ("galera", "any")
    assert config.address == "n1:3307,n2:3306,[::1]:1/s"


def test_one_host_with_a_port_of_its_own() -> None:
    config = parse_shard_table([row(host="n1:3307")], BASE).shards[1].config
    assert config is not None
    assert (config.host, config.port) == ("n1", 3307)


def test_every_host_must_be_allowed() -> None:
    allowed = AllowedHosts(["n1:3306", "n2:3306"])
    for host, problems in (
        ("n1,n2", ()),
        ("n1,n3", ("shard 1: host 'n3' is not among the allowed hosts",)),
        ("n1,n2:3307", ("shard 1: host 'n2' is not among the allowed hosts",)),
    ):
        assert parse_shard_table([row(host=host)], BASE, allowed=allowed).problems == problems


def test_the_same_hosts_in_another_order_are_the_same_database() -> None:
    table = [row(1, host="n1,n2"), row(2, host="n2:3306,N1")]
    assert parse_shard_table(table, BASE).warnings == (
        "shards 1, 2 are one database, s at n1:3306,n2:3306",
    )
