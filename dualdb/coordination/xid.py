"""The names of XA transactions, and which of them are this package's and this
service's.
"""

import re
import secrets
import time
from typing import Any, Callable, Iterable, List, Mapping, NamedTuple, Optional

#: The formatID of this package's XA transactions: "dual" in ASCII. Those with another
#: one are somebody else's.
FORMAT_ID = 0x6475616C

_GTRID = re.compile(r"[0-9a-f]{32}")
_BQUAL = re.compile(r"([0-9a-f]{16})\.(\d{1,20})")


def new_gtrid(clock: Callable[[], float] = time.time) -> str:
    """Return the name of a new transaction: 8 hex digits of the time, 24 random ones.

    Args:
        clock: Gives the seconds since 1970.
    """
    return f"{int(clock()) & 0xFFFFFFFF:08x}{secrets.token_hex(12)}"


def is_gtrid(text: object) -> bool:
    """Return whether this is the name of a transaction of this package."""
    return isinstance(text, str) and _GTRID.fullmatch(text) is not None


def begun_at(gtrid: str) -> int:
    """Return when a transaction began, in seconds since 1970 by its process' clock."""
    return int(gtrid[:8], 16)


class Xid(NamedTuple):
    """The name of one shard's branch of a transaction.

    Attributes:
        gtrid: The name of the whole transaction.
        cluster: The name of the global database that decides about it. Two
            applications, each with a global database of its own, may use one server.
        shard_id: The shard.
    """

    gtrid: str
    cluster: str
    shard_id: int

    @property
    def sql(self) -> str:
        """The name as in XA statements.

        Example:
            >>> Xid("0" * 32, "a" * 16, 7).sql
            "'00000000000000000000000000000000','aaaaaaaaaaaaaaaa.7',1685414252"
        """
        return f"'{self.gtrid}','{self.cluster}.{self.shard_id}',{FORMAT_ID}"


def xid_of(row: Mapping[str, Any]) -> Optional[Xid]:
    """Parse a row of ``XA RECOVER``, in which ``data`` is bytes, or ``0x`` and hex
    digits.

    Returns:
        None for what this package has not made.
    """
    if row["formatID"] != FORMAT_ID:
        return None
    raw = _data(row)
    length = int(row["gtrid_length"])
    text = raw.decode("latin1")
    bqual = _BQUAL.fullmatch(text[length:])
    if bqual is None or not is_gtrid(text[:length]):
        return None
    return Xid(text[:length], bqual[1], int(bqual[2]))


def sql_of(row: Mapping[str, Any]) -> str:
    """Return the name in a row of ``XA RECOVER`` of any transaction, as in XA
    statements.

    Example:
        >>> sql_of({"formatID": 1, "gtrid_length": 3, "data": b"abcd"})
        "'abc','d',1"
    """
    raw = _data(row)
    length = int(row["gtrid_length"])
    return f"{_text(raw[:length])},{_text(raw[length:])},{row['formatID']}"


def _data(row: Mapping[str, Any]) -> bytes:
    data = row["data"]
    return data if isinstance(data, bytes) else bytes.fromhex(str(data)[2:])


def _text(part: bytes) -> str:
    plain = re.fullmatch(rb"[\w .:/@#=+-]*", part)
    return f"'{part.decode('ascii')}'" if plain else f"X'{part.hex()}'"


class Prepared(NamedTuple):
    """The prepared transactions of one server.

    Attributes:
        own: The branches of this cluster and shard.
        foreign: How many there are of others, which are never touched.
    """

    own: List[Xid]
    foreign: int


def prepared_of(rows: Iterable[Mapping[str, Any]], cluster: str, shard_id: int) -> Prepared:
    """Classify the rows of ``XA RECOVER`` of a shard's server.

    Args:
        rows: The rows.
        cluster: The name of this service's global database.
        shard_id: The shard. Others on the same server are asked for by themselves.
    """
    own: List[Xid] = []
    foreign = 0
    for row in rows:
        xid = xid_of(row)
        if xid is None or xid.cluster != cluster:
            foreign += 1
        elif xid.shard_id == shard_id:
            own.append(xid)
    return Prepared(own, foreign)
