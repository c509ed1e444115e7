"""What was to be reached, as ratios in one run."""

from typing import List, NamedTuple, Optional

from .measure import inverse, ratio
from .results import Results


class Goal(NamedTuple):
    """A figure of ours that is to be at most (or at least) the limit.

    Attributes:
        against: whose figure ours is divided by; empty where the goal is the figure
            itself.
        throughput: it is the ratio of throughputs, and not of times.
        unit: of a figure that is not divided: "time", "memory" or "kilobytes".
    """

    text: str
    scenario: str
    ours: str
    against: str
    limit: float
    throughput: bool = False
    unit: str = "memory"


class Verdict(NamedTuple):
    """What became of a goal.

    ``reached`` is None where it was not measured, and ``met`` too.
    """

    goal: Goal
    reached: Optional[float]
    spread: str
    met: Optional[bool]


GOALS: List[Goal] = [
    Goal(
        "threads: a point lookup takes at most 1.00 of PyMySQL's time",
        "point",
        "dualdb",
        "pymysql",
        1.00,
    ),
    Goal(
        "asyncio: a point lookup takes at most 1.00 of aiomysql's time",
        "point",
        "dualdb-asyncio",
        "aiomysql",
        1.00,
    ),
    Goal(
        "threads: 1,000 rows take at most 0.45 of PyMySQL's time",
        "rows1000",
        "dualdb",
        "pymysql",
        0.45,
    ),
    Goal(
        "threads: 1,000 rows take at most 1.05 of mysqlclient's time",
        "rows1000",
        "dualdb",
        "mysqlclient",
        1.05,
    ),
    Goal(
        "asyncio: 1,000 rows take at most 0.35 of aiomysql's time",
        "rows1000",
        "dualdb-asyncio",
        "aiomysql",
        0.35,
    ),
    *[
        Goal(
            f"{implementation}: at least 1.8 times the throughput of {title} with 10 callers",
            "callers10",
            ours,
            f"sqlalchemy-{driver}",
            1.8,
            True,
        )
        for implementation, ours, title, driver in (
            ("threads", "dualdb", "SQLAlchemy (PyMySQL)", "pymysql"),
            ("threads", "dualdb", "SQLAlchemy (mysqlclient)", "mysqlclient"),
            ("asyncio", "dualdb-asyncio", "SQLAlchemy (aiomysql)", "aiomysql"),
            ("asyncio", "dualdb-asyncio", "SQLAlchemy (asyncmy)", "asyncmy"),
        )
    ],
    Goal(
        "threads: 100,000 rows are streamed in under 20 MB above the start",
        "stream100000-memory",
        "dualdb",
        "",
        20.0,
    ),
    Goal(
        "asyncio: 100,000 rows are streamed in under 20 MB above the start",
        "stream100000-memory",
        "dualdb-asyncio",
        "",
        20.0,
    ),
    *[
        Goal(
            f"{implementation}: {text}",
            f"growth-{figure}",
            f"{ours}/{shards}",
            "",
            limit,
            unit=unit,
        )
        for implementation, ours in (("threads", "growth"), ("asyncio", "growth-asyncio"))
        for text, figure, shards, limit, unit in (
            ("a shard of 1,000, connected, takes under 20 kB", "memory", 1_000, 20.0, "kilobytes"),
            (
                "an unchanged table of 1,000 rows is refreshed in 10 ms",
                "refresh",
                1_000,
                0.010,
                "time",
            ),
        )
    ],
]


def judge(goal: Goal, results: Results) -> Verdict:
    table = results.tables.get(goal.scenario, {})
    if goal.against:
        found = ratio(table, goal.ours, goal.against)
        if goal.throughput:
            found = inverse(found)
        if found is None:
            return Verdict(goal, None, "", None)
        # What is shown to two places is judged by two places.
        reached = round(found.median, 2)
        return Verdict(
            goal,
            reached,
            found.spread,
            reached >= goal.limit if goal.throughput else reached <= goal.limit,
        )
    if not table.get(goal.ours):
        return Verdict(goal, None, "", None)
    worst = max(table[goal.ours])
    return Verdict(goal, worst, "", worst < goal.limit)
