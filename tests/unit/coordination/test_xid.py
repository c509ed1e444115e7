"""Which transactions are this package's, and which this service's."""

import pytest

from dualdb.coordination import xid
from dualdb.coordination.xid import FORMAT_ID, Xid

GTRID = "6b0926d526dffa80c85f254f8b3b87d8"
CLUSTER = "0123456789abcdef"


def row(gtrid: bytes, bqual: bytes, format_id: int = FORMAT_ID, *, hexed: bool = False) -> object:
    data = gtrid + bqual
    return {
        "formatID": format_id,
        "gtrid_length": len(gtrid),
        "bqual_length": len(bqual),
        "data": f"0x{data.hex().upper()}" if hexed else data,
    }


def test_a_name_has_its_time_and_is_not_made_twice() -> None:
    made = {xid.new_gtrid(lambda: 1_700_000_000.9) for _ in range(100)}
    assert len(made) == 100
    assert all(xid.is_gtrid(each) and xid.begun_at(each) == 1_700_000_000 for each in made)


@pytest.mark.parametrize("name", ["", GTRID[:-1], GTRID + "0", GTRID.upper(), "'" + GTRID[1:], 7])
def test_what_is_no_name(name: object) -> None:
    assert not xid.is_gtrid(name)


@pytest.mark.parametrize("hexed", [False, True], ids=["MariaDB", "MySQL"])
@pytest.mark.parametrize("shard_id", [0, 7, 2**31])
def test_a_row_is_read_as_it_was_written(shard_id: int, hexed: bool) -> None:
    made = Xid(GTRID, CLUSTER, shard_id)
    gtrid, bqual, format_id = made.sql.replace("'", "").split(",")
    found = row(gtrid.encode(), bqual.encode(), int(format_id), hexed=hexed)
    assert xid.xid_of(found) == made  # type: ignore[arg-type]


FOREIGN = [
    row(GTRID.encode(), f"{CLUSTER}.1".encode(), 1),
    row(b"\xff\x00", b"'"),
    row(GTRID.encode(), b""),
    row(GTRID.encode(), f"{CLUSTER}.x".encode()),
    row(GTRID.encode(), f"{CLUSTER}.1 ".encode()),
    row(GTRID.encode()[:31], f"8{CLUSTER}.1".encode()),
    row(GTRID.encode(), f"{CLUSTER[::-1]}.1".encode()),
]


def test_only_those_of_this_cluster_and_shard_are_its_own() -> None:
    rows = [
        *FOREIGN,
        row(GTRID.encode(), f"{CLUSTER}.1".encode()),
        row(GTRID.encode(), f"{CLUSTER}.2".encode()),
    ]
    found = xid.prepared_of(rows, CLUSTER, 1)  # type: ignore[arg-type]
    assert found.own == [Xid(GTRID, CLUSTER, 1)]
    assert found.foreign == len(FOREIGN)
