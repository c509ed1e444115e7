"""Which hosts a row may name."""

from typing import Any

import pytest
from shard_rows import BASE, row

from dualdb.topology.allowed_hosts import AllowedHosts
from dualdb.topology.shard_map import Status, parse_shard_table


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


@pytest.mark.parametrize(
    ("pattern", "host", "port", "is_allowed"),
    [
        ("*.db.internal", "a.db.internal", 1, True),
        ("*.db.internal", "a.b.db.internal", 1, False),
        ("*.db.internal", "evil.example.db.internal", 1, False),
        ("db?.internal", "db1.internal", 1, True),
        ("db?.internal", "db.internal", 1, False),
        ("db1", "db1", 3306, True),
        ("db1:3306", "db1", 3306, True),
        ("db1:3306", "db1", 22, False),
        ("db1:3306-3310", "db1", 3308, True),
        ("db1:3306-3310", "db1", 3311, False),
        ("*.internal:3306", "db1.internal", 3307, False),
        ("10.0.0.0/8:3306", "10.1.2.3", 3306, True),
        ("10.0.0.0/8:3306", "10.1.2.3", 3307, False),
        ("10.1.2.3:3306", "10.1.2.3", 3306, True),
        ("[fd00::/8]:3306", "fd00::1", 3306, True),
        ("[fd00::/8]:3306", "fd00::1", 3307, False),
        ("fd00::1", "fd00::1", 3307, True),
        ("db.internal", "dbxinternal", 1, False),
    ],
)
def test_patterns_keep_to_a_part_of_the_name_and_to_ports(
    pattern: str, host: str, port: int, is_allowed: bool
) -> None:
    assert AllowedHosts([pattern]).allows(host, port) is is_allowed


@pytest.mark.parametrize("pattern", ["db1:0", "db1:9-8", "db1:70000", "db1:x", "db1:", ":3306"])
def test_a_wrong_port_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        AllowedHosts([pattern])


@pytest.mark.parametrize(
    ("pattern", "host", "is_allowed"),
    [
        ("db*", "db\u3002evil\uff0eexample", False),
        ("db*", "db\u2024evil", False),
        ("*.internal", "a\u3002b.internal", False),
        ("*.internal", "\u24d0.internal", True),
        ("b\xfccher.example", "xn--bcher-kva.example", True),
        ("xn--bcher-kva.example", "b\xfccher.example", True),
        ("*.example", "b\xfccher.example", True),
        ("*", "\xfc" * 70, False),
        ("*", "db1", True),
        ("*", "::1", False),
        ("*", "[::1]", False),
        ("*", "2130706433", False),
        ("*", "0x7f000001", False),
        ("*.*", "127.1", False),
        ("*.*.*.*", "127.0.0.1", False),
        ("*.*.*.*", "0x7f.0.0.1", False),
        ("10.0.0.*", "10.0.0.5", True),
        ("10.0.0.*", "10.0.0.05", False),
        ("10.0.0.*", "10.0.0.0x5", False),
        ("10.0.0.?", "10.0.0.5", True),
    ],
)
def test_a_pattern_of_names_is_compared_with_what_the_resolver_is_asked_for(
    pattern: str, host: str, is_allowed: bool
) -> None:
    assert AllowedHosts([pattern]).allows(host, 3306) is is_allowed


def test_a_pattern_with_other_characters_than_ascii_has_no_wildcard_beside_them() -> None:
    with pytest.raises(ValueError, match="allowed_hosts"):
        AllowedHosts(["b\xfc*.example"])
