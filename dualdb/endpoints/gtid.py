"""Positions in the history of a replicated database, by global transaction ids.

Sources: MySQL 9 manual ("GTID Format and Storage"), MariaDB documentation ("Global
Transaction ID").
"""

import re
from typing import Dict, List, Literal, Mapping, NamedTuple, Optional, Tuple

#: "gtid": MySQL's sets of transactions; "mariadb_gtid": the last transaction of each
#: domain.
GtidKind = Literal["gtid", "mariadb_gtid"]

#: From a transaction's number to another's, both included.
Interval = Tuple[int, int]

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_TAG = re.compile(r"[a-z_][a-z0-9_]{0,31}")
_INTERVAL = re.compile(r"(\d{1,19})(?:-(\d{1,19}))?")
_MARIADB = re.compile(r"(\d{1,10})-(\d{1,10})-(\d{1,20})")

#: The most intervals of one source that are kept: the last ones, because a replica
#: commits in the order of its source.
MOST_INTERVALS = 4


class Position(NamedTuple):
    """What a server has applied, or has to have applied.

    Attributes:
        kind: The kind of its ids.
        sources: MySQL: by the UUID of each source, with its tag, the sorted intervals.
            MariaDB: by domain one interval, of the last server and the number.
    """

    kind: GtidKind
    sources: Mapping[str, Tuple[Interval, ...]]

    @property
    def text(self) -> str:
        """As the server writes it."""
        if self.kind == "mariadb_gtid":
            return ",".join(
                [f"{domain}-{last[0][0]}-{last[0][1]}" for domain, last in self.sources.items()]
            )
        return ",".join(
            [
                ":".join([source, *[_interval_text(each) for each in intervals]])
                for source, intervals in self.sources.items()
            ]
        )

    def covers(self, other: "Position") -> bool:
        """Return whether it has everything that another position has."""
        if self.kind != other.kind:
            return False
        return all(
            self._covers_source(self.sources.get(source, ()), wanted)
            for source, wanted in other.sources.items()
        )

    def _covers_source(self, known: Tuple[Interval, ...], wanted: Tuple[Interval, ...]) -> bool:
        if self.kind == "mariadb_gtid":
            return bool(known) and known[0][1] >= wanted[0][1]
        return all(
            any(first <= low and high <= last for first, last in known) for low, high in wanted
        )

    def joined(self, other: "Position") -> "Position":
        """Return the smallest position that covers both; the other one if their kinds
        differ.
        """
        if self.kind != other.kind:
            return other
        sources: Dict[str, Tuple[Interval, ...]] = dict(self.sources)
        for source, intervals in other.sources.items():
            known = sources.get(source, ())
            if self.kind == "gtid":
                sources[source] = _merged([*known, *intervals])
            elif not known or known[0][1] < intervals[0][1]:
                sources[source] = intervals
        return Position(self.kind, sources)

    def shortened(self) -> "Position":
        """Return it with the last intervals of each source alone."""
        if self.kind == "mariadb_gtid":
            return self
        return Position(
            self.kind,
            {source: known[-MOST_INTERVALS:] for source, known in self.sources.items()},
        )


def parse_position(kind: GtidKind, text: str) -> Optional[Position]:
    """Parse a position as a server writes it.

    Args:
        kind: The kind of its ids.
        text: ``uuid:1-5:7,uuid:tag:3`` or ``0-1-9,1-1-4``.

    Returns:
        None if it is empty, or is no such text.
    """
    sources: Dict[str, Tuple[Interval, ...]] = {}
    for part in text.split(","):
        found = _mysql(part.strip()) if kind == "gtid" else _mariadb(part.strip())
        if not found:
            return None
        for source, intervals in found.items():
            known = Position(kind, {source: sources.get(source, intervals)})
            sources[source] = known.joined(Position(kind, {source: intervals})).sources[source]
    return Position(kind, sources)


def _mariadb(text: str) -> Dict[str, Tuple[Interval, ...]]:
    match = _MARIADB.fullmatch(text)
    if match is None:
        return {}
    domain, server, number = match.groups()
    return {str(int(domain)): ((int(server), int(number)),)}


def _mysql(text: str) -> Dict[str, Tuple[Interval, ...]]:
    uuid, *parts = text.lower().split(":")
    if _UUID.fullmatch(uuid) is None:
        return {}
    source = uuid
    found: Dict[str, List[Interval]] = {}
    for part in parts:
        match = _INTERVAL.fullmatch(part.strip())
        if match is not None:
            first, last = int(match.group(1)), int(match.group(2) or match.group(1))
            if not 1 <= first <= last:
                return {}
            found.setdefault(source, []).append((first, last))
        elif _TAG.fullmatch(part.strip()) is not None:
            source = f"{uuid}:{part.strip()}"
        else:
            return {}
    return {source: _merged(intervals) for source, intervals in found.items()}


def _merged(intervals: List[Interval]) -> Tuple[Interval, ...]:
    merged: List[Interval] = []
    for first, last in sorted(intervals):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def _interval_text(interval: Interval) -> str:
    first, last = interval
    return str(first) if first == last else f"{first}-{last}"
