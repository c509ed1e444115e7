"""The health of a service: what the states of its databases mean."""

from typing import Any, Dict, Literal, Mapping, NamedTuple, Optional, Tuple

HealthState = Literal["ok", "degraded", "down"]

#: The states of shards that take no calls because somebody has decided so.
SUSPENDED = ("inactive", "maintenance", "moving")

#: Seconds without a sign of the background plan, after which the process does not work.
BACKGROUND_TIMEOUT = 120.0


class DatabaseHealth(NamedTuple):
    """The health of one database.

    Attributes:
        state: "ok"; "down" if it does not respond, or its row cannot be used;
            "suspended" for a shard that is inactive, in maintenance or moving.
        reason: Why it is not "ok"; None if it is.
        seconds: How long it took to respond; None if it was not asked.
    """

    state: Literal["ok", "down", "suspended"]
    reason: Optional[str] = None
    seconds: Optional[float] = None


class HealthReport(NamedTuple):
    """The health of a service at one moment.

    Attributes:
        state: "ok" if all databases are, apart from suspended shards; "degraded" if
            some are not; "down" if the service is not open, or no database is "ok".
        live: The process works. It does not depend on any database: restarting the
            process cannot help one that is down.
        ready: Calls can be served: the service is open, and what ``require`` names
            responds.
        reasons: Why it is not live, not ready, or not "ok".
        databases: The health of each database, by "global" and "shard 7".
        deep: Each database was asked.
        map_version: The version of the active shard map.
        map_age: Seconds since the shard table was last read; None if it never was.
    """

    state: HealthState
    live: bool
    ready: bool
    reasons: Tuple[str, ...]
    databases: Mapping[str, DatabaseHealth]
    deep: bool
    map_version: int
    map_age: Optional[float]

    def as_dict(self) -> Dict[str, Any]:
        """Return it as dicts, lists and plain values, for ``json.dumps``."""
        return {
            **self._asdict(),
            "reasons": list(self.reasons),
            "databases": {name: each._asdict() for name, each in self.databases.items()},
        }


class Facts(NamedTuple):
    """What a report is made of.

    Attributes:
        opened: The service is open.
        background: Seconds since the last sign of the background plan.
        unmet: What of ``require`` does not respond, as text; None if all does.
        map_version: The version of the active shard map.
        map_age: Seconds since the shard table was last read, or None.
        map_failure: Why it could not be read at the last attempt, or None.
        deep: Each database was asked.
    """

    opened: bool
    background: float
    unmet: Optional[str]
    map_version: int
    map_age: Optional[float]
    map_failure: Optional[str]
    deep: bool


def database_health(
    status: str, failure: Optional[str], seconds: Optional[float] = None
) -> DatabaseHealth:
    """Return the health of one database.

    Args:
        status: The status of its row; "active" for the global database.
        failure: Why it does not respond, or cannot be used; None if it can.
        seconds: How long it took to respond, if it was asked.
    """
    if status in SUSPENDED:
        return DatabaseHealth("suspended", failure or f"it is {status}")
    if failure is not None:
        return DatabaseHealth("down", failure, seconds)
    return DatabaseHealth("ok", None, seconds)


def health_report(facts: Facts, databases: Mapping[str, DatabaseHealth]) -> HealthReport:
    """Return the report."""
    live = not facts.opened or facts.background < BACKGROUND_TIMEOUT
    states = {each.state for each in databases.values()}
    state: HealthState = "ok"
    if not facts.opened or "ok" not in states:
        state = "down"
    elif "down" in states or facts.map_failure is not None:
        state = "degraded"
    reasons = []
    if not facts.opened:
        reasons.append("the service is not open")
    if not live:
        reasons.append(f"the background work has been stuck for {facts.background:.0f} s")
    if facts.map_failure is not None:
        reasons.append(f"the shard table cannot be read: {facts.map_failure}")
    reasons += [
        f"{name}: {each.reason}" for name, each in databases.items() if each.state == "down"
    ]
    return HealthReport(
        state,
        live,
        facts.opened and facts.unmet is None,
        tuple(reasons),
        databases,
        facts.deep,
        facts.map_version,
        facts.map_age,
    )
