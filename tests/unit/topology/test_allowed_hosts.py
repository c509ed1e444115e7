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
