"""What was to be reached, as ratios in one run."""

import operator
from typing import Dict, List, NamedTuple, Optional, Tuple

from . import data, growth
from .measure import Ratio, Table, inverse, quickest, ratio, ratio_above
from .peers import ASYNCIO, OURS, THREADS, peers
from .results import Results

AT_MOST, AT_LEAST, BELOW = "at most", "at least", "below"
_HOLDS = {AT_MOST: operator.le, AT_LEAST: operator.ge, BELOW: operator.lt}


class Goal(NamedTuple):
    """A figure of ours and its limit.

    Attributes:
        against: whose figure ours is divided by: of several, the quickest's. Empty
            where the goal is the figure itself.
        sense: how ours is to be to the limit. "at least" is of throughputs: theirs is
            divided by ours.
        floor: whose figure is taken from both before they are divided.
        unit: of a figure that is not divided: "time", "memory" or "kilobytes".
    """

    text: str
    scenario: str
    ours: str
    against: Tuple[str, ...]
    limit: float
    sense: str = AT_MOST
    floor: str = ""
    unit: str = "memory"


class Verdict(NamedTuple):
    """What became of a goal.

    ``reached`` is None where it was not measured, and ``met`` too.

    Attributes:
        beside: whose figure ours was divided by.
    """

    goal: Goal
    reached: Optional[float] = None
    spread: str = ""
    met: Optional[bool] = None
    beside: str = ""


def _rivals(implementation: str, keys: Tuple[str, ...] = ()) -> Tuple[str, ...]:
    """All others that decode what they read, or those of them that are named."""
    return tuple(
        key
        for key, peer in peers().items()
        if peer.implementation == implementation
        and not peer.floor
        and not peer.uvloop
        and not key.startswith("dualdb")
        and (not keys or key in keys)
    )


def _point() -> List[Goal]:
    return [
        Goal(
            f"{implementation}: a point lookup takes at most {limit:.2f} of the time of {title}, "
            f"both above {floor_title}",
            "point",
            OURS[implementation],
            (key,),
            limit,
            floor=floor,
        )
        for implementation, key, title, limit, floor, floor_title in (
            (THREADS, "pymysql", "PyMySQL", 0.50, "floor", "the raw socket"),
            (ASYNCIO, "aiomysql-pool", "aiomysql's pool", 0.28, "floor-asyncio", "the raw stream"),
        )
    ]


def _thousand_rows() -> List[Goal]:
    # aiomysql decodes as PyMySQL does; mysqlclient is of threads, asyncmy of asyncio.
    limits = (
        (THREADS, "floor", "the raw socket", 1.35),
        (THREADS, "mysqlclient", "mysqlclient", 0.35),
        (THREADS, "pymysql", "PyMySQL", 0.13),
        (THREADS, "pyro", "pyro-mysql", 0.75),
        (ASYNCIO, "floor-asyncio", "the raw stream", 1.35),
        (ASYNCIO, "aiomysql", "aiomysql", 0.13),
        (ASYNCIO, "pyro-asyncio", "pyro-mysql", 0.75),
        (ASYNCIO, "asyncmy-pool", "asyncmy's pool", 0.95),
    )
    return [
        Goal(
            f"{implementation}: 1,000 rows take at most {limit:.2f} of the time of {title}",
            "rows1000",
            OURS[implementation],
            (key,),
            limit,
        )
        for implementation, key, title, limit in limits
    ]


def _first() -> List[Goal]:
    """Where nobody is to be quicker."""
    goals = [
        Goal(
            f"{implementation}: {text} in less time than by anybody else",
            scenario,
            OURS[implementation],
            _rivals(implementation),
            1.0,
            BELOW,
        )
        for implementation in (THREADS, ASYNCIO)
        for text, scenario in (
            ("100,000 rows are read into a list", "rows100000"),
            ("100,000 rows are streamed", "stream100000"),
            ("10,000 INSERTs are written by executemany", "insert"),
        )
    ]
    most = growth.ROWS[-1]
    return goals + [
        Goal(
            f"{implementation}: {most:,} rows are {done} in less time than by any other driver",
            scenario,
            growth.growth_key(OURS[implementation], most),
            tuple(growth.growth_key(key, most) for key in _rivals(implementation, contestants)),
            1.0,
            BELOW,
        )
        for implementation in (THREADS, ASYNCIO)
        for done, scenario, contestants in (
            ("read into a list", "growth-list", growth.LISTS),
            ("streamed", "growth-rows", growth.STREAMS),
        )
    ]


def _updates() -> List[Goal]:
    return [
        Goal(
            f"{implementation}: 1,000 UPDATEs by executemany are at least 3 times as quick as "
            f"{title}'s",
            "update",
            OURS[implementation],
            (key,),
            3.0,
            AT_LEAST,
        )
        for implementation, key, title in (
            (THREADS, "pymysql", "PyMySQL"),
            (ASYNCIO, "aiomysql", "aiomysql"),
        )
    ]


def _typed() -> List[Goal]:
    return [
        Goal(
            f"{implementation}: 1,000 rows as {title} take at most {limit:.1f} of the time of "
            "dict rows",
            "typed",
            f"{OURS[implementation]}-{kind}",
            (OURS[implementation],),
            limit,
        )
        for implementation in (THREADS, ASYNCIO)
        for kind, title, limit in (
            ("dataclass", "dataclasses", 1.3),
            ("pydantic", "pydantic models", 2.0),
        )
    ]


def _throughput() -> List[Goal]:
    limits = (
        (ASYNCIO, "asyncmy-pool", "asyncmy's pool", 100, 1.1),
        (THREADS, "sqlalchemy-pymysql", "SQLAlchemy (PyMySQL)", 10, 1.8),
        (THREADS, "sqlalchemy-mysqlclient", "SQLAlchemy (mysqlclient)", 10, 1.8),
        (ASYNCIO, "sqlalchemy-aiomysql", "SQLAlchemy (aiomysql)", 10, 1.8),
        (ASYNCIO, "sqlalchemy-asyncmy", "SQLAlchemy (asyncmy)", 10, 1.8),
    )
    return [
        Goal(
            f"{implementation}: at least {limit} times the throughput of {title} with {callers} "
            "callers",
            f"callers{callers}",
            OURS[implementation],
            (key,),
            limit,
            AT_LEAST,
        )
        for implementation, key, title, callers, limit in limits
    ]


def _figures() -> List[Goal]:
    """Those that are compared with nobody."""
    growing: Dict[str, str] = {THREADS: "growth", ASYNCIO: "growth-asyncio"}
    streamed = [
        Goal(
            f"{implementation}: {count:,} rows are streamed in under 20 MB above the start",
            scenario,
            ours,
            (),
            20.0,
            BELOW,
        )
        for implementation, peer in OURS.items()
        for count, scenario, ours in (
            (data.TRADES, "stream100000-memory", peer),
            (growth.ROWS[-1], "growth-rows-memory", growth.growth_key(peer, growth.ROWS[-1])),
        )
    ]
    return streamed + [
        Goal(
            f"{implementation}: {text}",
            f"growth-{figure}",
            growth.growth_key(peer, 1_000),
            (),
            limit,
            BELOW,
            unit=unit,
        )
        for implementation, peer in growing.items()
        for text, figure, limit, unit in (
            ("a shard of 1,000, connected, takes under 20 kB", "memory", 20.0, "kilobytes"),
            (
                "an unchanged table of 1,000 rows is refreshed in under 10 ms",
                "refresh",
                0.010,
                "time",
            ),
        )
    ]


GOALS: List[Goal] = [
    *_point(),
    *_thousand_rows(),
    *_typed(),
    *_first(),
    *_updates(),
    *_throughput(),
    *_figures(),
]


def judge(goal: Goal, results: Results) -> Verdict:
    table = results.tables.get(goal.scenario, {})
    holds = _HOLDS[goal.sense]
    if not goal.against:
        if not table.get(goal.ours):
            return Verdict(goal)
        worst = max(table[goal.ours])
        return Verdict(goal, worst, met=holds(worst, goal.limit))
    beside = quickest(table, goal.against)
    found = _compared(goal, table, beside) if beside else None
    if beside is None or found is None:
        return Verdict(goal)
    # What is shown to two places is judged by two places.
    reached = round(found.median, 2)
    return Verdict(goal, reached, found.spread, holds(reached, goal.limit), beside)


def _compared(goal: Goal, table: Table, beside: str) -> Optional[Ratio]:
    if goal.floor:
        return ratio_above(table, goal.ours, beside, goal.floor)
    found = ratio(table, goal.ours, beside)
    return inverse(found) if goal.sense == AT_LEAST else found
