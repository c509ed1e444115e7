"""What a contestant is: its names, and the same operations for all."""

import contextlib
import importlib.metadata
import platform
from typing import Any, ClassVar, Dict, List, Sequence, Tuple, Type

from . import data

THREADS, ASYNCIO = "threads", "asyncio"


class Unsupported(Exception):
    """The contestant has no such thing; the message says why, for the report."""


#: Why there is no figure where none was wanted: the report does not speak of it.
NOT_ASKED = "not part of this"


class Peer:
    """A contestant.

    In threads the operations give values, in asyncio awaitables of them.

    Attributes:
        key, title: for the programme and for the reader.
        distributions: whose versions are to be named.
        per_call: what is sent and done for one call, beside the statement, for the
            report.
        pooled: it may be used by many callers at once, over ten connections.
        only: the scenarios that it takes part in, where it is not all.
        floor: it decodes nothing, and so is no rival.
        uvloop: in asyncio, it runs on uvloop.
    """

    key: ClassVar[str]
    title: ClassVar[str]
    implementation: ClassVar[str]
    distributions: ClassVar[Tuple[str, ...]] = ()
    per_call: ClassVar[str] = ""
    pooled: ClassVar[bool] = False
    only: ClassVar[Tuple[str, ...]] = ()
    floor: ClassVar[bool] = False
    uvloop: ClassVar[bool] = False

    def __init__(self, server: data.Server) -> None:
        self.server = server

    def open(self) -> Any:
        """Connect."""
        raise NotImplementedError

    def close(self) -> Any:
        """Let go of everything."""
        raise NotImplementedError

    def point(self, id_: int) -> Any:
        """An account by its primary key, one row."""
        raise Unsupported(NOT_ASKED)

    def rows(self, count: int) -> Any:
        """The first so many trades, a list of rows."""
        raise Unsupported(NOT_ASKED)

    def stream(self, count: int) -> Any:
        """The sum of the ids of the first so many trades, of which it holds a few at a
        time.
        """
        raise Unsupported(NOT_ASKED)

    def insert(self, rows: Any) -> Any:
        """Write what ``form`` made."""
        raise Unsupported(NOT_ASKED)

    def update(self, rows: Any) -> Any:
        """Change what ``form`` made."""
        raise Unsupported(NOT_ASKED)

    def typed(self, count: int) -> Any:
        """The same as ``rows``, of the type that the contestant is about."""
        raise Unsupported(NOT_ASKED)

    def call(self, id_: int) -> Any:
        """The rows that a procedure selects, a list."""
        raise Unsupported(NOT_ASKED)

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        """Rows as ``insert`` and ``update`` take them; not timed."""
        return rows

    def plain(self, row: Any) -> Dict[str, Any]:
        """A row as a dict, for the comparison; not timed."""
        return dict(row)

    def note(self) -> str:
        """What the report should know of what was found when it opened, such as which
        of two drivers is in use.
        """
        return ""


def dicts(rows: Sequence[Tuple[Any, ...]], columns: Sequence[str]) -> List[Dict[str, Any]]:
    """Rows that are to be written as mappings."""
    return [dict(zip(columns, row)) for row in rows]


def peers() -> Dict[str, Type[Peer]]:
    """Every contestant by its key, in the order of the report."""
    from . import asynchronous, threaded

    return {peer.key: peer for peer in (*threaded.PEERS, *asynchronous.PEERS)}


#: That to which the others of its implementation are compared.
REFERENCE = {THREADS: "pymysql", ASYNCIO: "aiomysql"}
OURS = {THREADS: "dualdb", ASYNCIO: "dualdb-asyncio"}


def ours_beside(peer: Type[Peer]) -> str:
    """The key of the contestant of ours that a peer is compared with."""
    return "dualdb-asyncio-uvloop" if peer.uvloop else OURS[peer.implementation]


def versions(peer: Type[Peer]) -> Dict[str, str]:
    """Of the distributions that are installed."""
    found = {}
    for name in (*peer.distributions, *["uvloop"] * peer.uvloop):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def python() -> str:
    return f"{platform.python_implementation()} {platform.python_version()}"
