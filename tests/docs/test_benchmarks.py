"""What the benchmarks make of their samples, and one short run of them against a real
server.
"""

import asyncio
import os
import pathlib
import random
import subprocess
import sys
import time
from typing import Any, Dict, List, Tuple

import pytest

ROOT = pathlib.Path(__file__).parents[2]
# At the end: where a wheel is tested, dualdb is the wheel's.
sys.path.append(str(ROOT))

from benchmarks import data, goals, growth, measure, peers, report, scenarios, worker  # noqa: E402
from benchmarks.results import Results, load, save  # noqa: E402
from benchmarks.scenarios import differences  # noqa: E402
from benchmarks.workers import Refused  # noqa: E402


def test_a_ratio_is_that_of_the_rounds_and_not_of_the_medians() -> None:
    # The second and the third round were slow for everybody.
    table = {"ours": [1.0, 10.0, 100.0], "theirs": [2.0, 20.0, 50.0]}
    assert measure.ratio(table, "ours", "theirs") == measure.Ratio(0.5, 0.5, 1.25)
    assert measure.inverse(measure.ratio(table, "ours", "theirs")) == measure.Ratio(2.0, 0.8, 2.0)
    assert measure.ratio(table, "ours", "nobody") is None


def test_a_ratio_above_the_floor_is_that_of_the_rounds_that_were_above_it() -> None:
    table = {
        "ours": [3.0, 4.0, 9.0, 3.0],
        "theirs": [5.0, 5.0, 2.0, 5.0],
        "floor": [1.0, 2.0, 2.0, 6.0],
    }
    # 2 of 4 and 2 of 3; in the third and the fourth they were not above the floor
    found = measure.ratio_above(table, "ours", "theirs", "floor")
    assert found == pytest.approx((7 / 12, 13 / 24, 5 / 8))
    assert measure.ratio_above({**table, "theirs": [1.0] * 4}, "ours", "theirs", "floor") is None
    for absent in table:
        assert measure.ratio_above({**table, absent: []}, "ours", "theirs", "floor") is None


def test_the_quickest_is_that_of_the_least_median() -> None:
    table = {"a": [1.0, 5.0, 5.0], "b": [4.0, 4.0, 9.0], "c": []}
    assert measure.quickest(table, ("a", "b", "c", "d")) == "b"
    assert measure.quickest(table, ("a", "c")) == "a"
    assert measure.quickest(table, ("c", "d")) is None


def test_who_refuses_once_has_no_figures() -> None:
    asked: List[str] = []

    def run(key: str) -> Dict[str, Any]:
        asked.append(key)
        if key == "b" and asked.count("b") == 2:
            raise Refused("its process has ended")
        return {"seconds": 1.0}

    missing: Dict[str, str] = {}
    answers = measure.interleaved(["a", "b"], 3, run, missing, random.Random(1))
    assert answers == {"a": [{"seconds": 1.0}] * 3}
    assert missing == {"b": "its process has ended"}


def test_who_answers_otherwise_takes_no_part() -> None:
    answers = {
        key: {"point": {"digest": digest}} for key, digest in (("a", "x"), ("b", "y"), ("c", "x"))
    }
    answers["c"]["call"] = {"missing": "failed"}
    assert differences(answers, {}) == {
        "b": {"point": "its answer is not the others'"},
        "c": {"call": "failed"},
    }


ONE, TWO = ("pymysql",), ("pymysql", "mysqlclient")

GOALS = [
    # of PyMySQL's time, or throughput
    (goals.AT_MOST, ONE, "", 1.0, {"dualdb": [0.9], "pymysql": [1.0]}, True),
    (goals.AT_MOST, ONE, "", 1.0, {"dualdb": [1.004], "pymysql": [1.0]}, True),
    (goals.AT_MOST, ONE, "", 1.0, {"dualdb": [1.1], "pymysql": [1.0]}, False),
    (goals.AT_LEAST, ONE, "", 1.8, {"dualdb": [1.0], "pymysql": [1.8]}, True),
    (goals.AT_LEAST, ONE, "", 1.8, {"dualdb": [1.0], "pymysql": [1.7]}, False),
    (goals.AT_MOST, ONE, "", 1.0, {"dualdb": [], "pymysql": [1.0]}, None),
    (goals.AT_MOST, ONE, "", 1.0, {"dualdb": [1.0]}, None),
    # of the quicker of two
    (goals.BELOW, TWO, "", 1.0, {"dualdb": [2.0], "pymysql": [9.0], "mysqlclient": [3.0]}, True),
    (goals.BELOW, TWO, "", 1.0, {"dualdb": [4.0], "pymysql": [9.0], "mysqlclient": [3.0]}, False),
    (goals.BELOW, TWO, "", 1.0, {"dualdb": [3.0], "pymysql": [3.0]}, False),
    (goals.BELOW, TWO, "", 1.0, {"dualdb": [3.0]}, None),
    # above the floor
    (goals.AT_MOST, ONE, "floor", 0.5, {"dualdb": [3], "pymysql": [5], "floor": [1]}, True),
    (goals.AT_MOST, ONE, "floor", 0.5, {"dualdb": [3], "pymysql": [5], "floor": [0]}, False),
    (goals.AT_MOST, ONE, "floor", 0.5, {"dualdb": [3], "pymysql": [5], "floor": [5]}, None),
    (goals.AT_MOST, ONE, "floor", 0.5, {"dualdb": [3], "pymysql": [5]}, None),
    # the worst figure, whatever the others have
    (goals.BELOW, (), "", 20.0, {"dualdb": [3.0, 19.0]}, True),
    (goals.BELOW, (), "", 20.0, {"dualdb": [3.0, 20.0]}, False),
    (goals.BELOW, (), "", 20.0, {"dualdb": []}, None),
]


@pytest.mark.parametrize(("sense", "against", "floor", "limit", "table", "met"), GOALS)
def test_a_goal(
    sense: str,
    against: Tuple[str, ...],
    floor: str,
    limit: float,
    table: Dict[str, List[float]],
    met: Any,
) -> None:
    goal = goals.Goal("a goal", "point", "dualdb", against, limit, sense, floor)
    assert goals.judge(goal, Results(tables={"point": table})).met is met


def test_goals_are_of_what_is_measured() -> None:
    """A name that nobody has would be "not measured" for ever."""
    measured = {
        *[scenario.key for scenario in (*scenarios.SCENARIOS, *scenarios.MEMORY)],
        *[f"{scenario.key}-memory" for scenario in scenarios.MEMORY],
        *[f"growth-{figure}" for figure in growth.FIGURES],
        "growth-rows",
        "growth-rows-memory",
        "growth-list",
    }
    contestants = {*peers.peers(), *[peer.key for peer in growth.PEERS]}
    for goal in goals.GOALS:
        named = {goal.ours, *goal.against, *([goal.floor] if goal.floor else [])}
        assert goal.scenario in measured, goal
        assert {name.partition("/")[0] for name in named} <= contestants, goal
    assert len({goal.text for goal in goals.GOALS}) == len(goals.GOALS)


def test_who_is_to_be_beaten_by_all_is_nobody_of_ours_and_no_floor() -> None:
    first = [goal for goal in goals.GOALS if len(goal.against) > 1]
    assert {goal.scenario for goal in first} == {
        "rows100000",
        "stream100000",
        "insert",
        "growth-rows",
        "growth-list",
    }
    for goal in first:
        assert not [key for key in goal.against if key.startswith(("dualdb", "floor"))]
        assert goal.ours.partition("/")[0] in peers.OURS.values()


def test_of_several_the_report_names_the_quickest() -> None:
    table = {"dualdb": [1.0], "pymysql": [4.0], "pyro": [2.0]}
    document = report.document(Results(tables={"rows100000": table}, rounds=1), {})
    assert "than by anybody else (the quickest of them: pyro-mysql) | 0.50 |" in document


def test_what_was_not_in_our_favour_is_reported() -> None:
    results = Results(
        tables={"point": {"dualdb": [1.2], "pymysql": [1.0], "mysqlclient": [1.3], "floor": [0.1]}},
        rounds=1,
    )
    assert report.losses(results) == [
        "Point lookup, threads: dualdb takes 1.20 of the time of PyMySQL (1.20 to 1.20)"
    ]
    document = report.document(results, {"point": "benchmarks/point.svg"})
    assert (
        "Goal not met: threads: a point lookup takes at most 0.50 of the time of PyMySQL, both "
        "above the raw socket"
    ) in document
    assert "both above the raw socket | 1.22 | 1.22 to 1.22 | **not met** |" in document
    assert "| **dualdb** | 1.20 s | 1.20 (1.20 to 1.20) |  |" in document
    assert "![Point lookup](benchmarks/point.svg)" in document


def test_who_runs_on_uvloop_is_compared_with_ours_on_uvloop() -> None:
    table = {
        "dualdb-asyncio": [9.0],
        "dualdb-asyncio-uvloop": [2.0],
        "asyncmy-pool": [10.0],
        "asyncmy-pool-uvloop": [1.0],
    }
    assert report.losses(Results(tables={"point": table}, rounds=1)) == [
        "Point lookup, asyncio: dualdb takes 2.00 of the time of asyncmy pool, uvloop "
        "(2.00 to 2.00)"
    ]


def test_the_longest_call_stands_beside_the_throughput() -> None:
    results = Results(
        tables={
            "callers100": {"dualdb-asyncio": [0.0001], "asyncmy-pool": [0.0001]},
            "callers100-longest": {"dualdb-asyncio": [0.012], "asyncmy-pool": [0.1]},
            "callers1": {"dualdb-asyncio": [0.0001], "asyncmy-pool": [0.0001]},
            "callers1-longest": {"dualdb-asyncio": [0.012], "asyncmy-pool": [0.1]},
        },
        rounds=1,
    )
    document = report.document(results, {})
    assert "| asyncio | calls | dualdb's, of it | longest call | dualdb's, of it |" in document
    assert (
        "| asyncmy pool | 10,000 /s | 1.00 (1.00 to 1.00) | 100 ms | 0.12 (0.12 to 0.12) |"
        in document
    )
    assert "| **dualdb** | 10,000 /s |  | 12.0 ms |  |" in document
    # one caller waits for nobody
    assert document.count("longest call |") == 1
    assert report.losses(results) == []


def test_a_longer_longest_call_is_not_in_our_favour() -> None:
    results = Results(
        tables={
            "callers10": {"dualdb": [0.0001], "dbutils": [0.0002]},
            "callers10-longest": {"dualdb": [0.03], "dbutils": [0.02]},
        },
        rounds=1,
    )
    assert report.losses(results) == [
        "10 callers at once, threads: dualdb's longest call takes 1.50 of the time of that of "
        "DBUtils, defaults (1.50 to 1.50)"
    ]


def test_an_unmet_goal_says_what_the_floor_reaches() -> None:
    table = {"dualdb": [0.5], "pymysql": [1.0], "floor": [0.4]}
    results = Results(tables={"update": table, "rows1000": table}, rounds=1)
    document = report.document(results, {})
    assert "as quick as PyMySQL's (the raw socket reaches 2.50)\n" in document
    assert "at most 0.13 of the time of PyMySQL (the raw socket reaches 0.40)\n" in document
    # itself, and what is counted above it
    table = {"dualdb": [0.9], "pymysql": [1.0], "floor": [0.4]}
    results = Results(tables={"point": table, "rows1000": table}, rounds=1)
    document = report.document(results, {})
    assert (
        "- Goal not met: threads: 1,000 rows take at most 1.35 of the time of the raw socket\n"
        in (document)
    )
    assert "PyMySQL, both above the raw socket\n" in document


def test_variants_of_ours_are_compared_with_ours() -> None:
    results = Results(tables={"typed": {"dualdb": [0.001], "dualdb-dataclass": [0.0012]}}, rounds=1)
    document = report.document(results, {})
    assert "| threads | time of a call | of dualdb's |" in document
    assert "| dualdb, rows as dataclasses | 1.20 ms | 1.20 (1.20 to 1.20) |" in document


#: How long a caller's calls take.
DURATIONS = [1.0, 5.0, 2.0]


class Clockwork:
    """A contestant, and the clock that its calls move on."""

    def __init__(self) -> None:
        self.now = 100.0
        self._durations = iter(DURATIONS)

    def point(self, id_: int) -> None:
        self.now += next(self._durations)


class AsyncClockwork(Clockwork):
    async def point(self, id_: int) -> None:  # type: ignore[override]
        super().point(id_)


@pytest.mark.parametrize("implementation", peers.OURS)
def test_a_crowd_tells_its_longest_call(
    implementation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = {"do": "crowd", "callers": 1, "count": len(DURATIONS)}
    peer: Any = Clockwork() if implementation == peers.THREADS else AsyncClockwork()
    monkeypatch.setattr(time, "perf_counter", lambda: peer.now)
    if implementation == peers.THREADS:
        answer = worker.Threads(peer).crowd(command)
    else:
        answer = asyncio.run(worker.Asyncio(peer).crowd(command))
    assert answer == {"seconds": pytest.approx(sum(DURATIONS) / 3), "longest": 5.0}


def test_changes_are_of_all_rows_and_not_in_their_order() -> None:
    numbers = [row[-1] for row in data.updated()]
    assert sorted(numbers) == data.ids() != numbers
    # otherwise a row would be as it was, and not written
    assert all(row[0] for row in data.updated())


def test_who_is_absent_is_named_with_the_reason() -> None:
    results = Results(
        tables={"point": {"dualdb": [1.0]}},
        missing={"point": {"rustmy": "pip finds no distribution of it"}},
        rounds=1,
    )
    document = report.document(results, {})
    assert "- rustmy (threads): pip finds no distribution of it (point)" in document


def test_how_cost_grows_is_reported_for_what_was_measured() -> None:
    results = Results(
        tables={
            "growth-open": {"growth/10": [0.02], "growth-asyncio/10000": [0.5]},
            "growth-memory": {"growth/10": [17.25], "growth-asyncio/10000": [4.6]},
            "growth-scatter": {"growth/10": [0.0001]},
            "growth-in_turn": {"growth/10": [0.0002]},
            "callers1000": {"dualdb": [0.0001], "sqlalchemy-pymysql": [0.0003]},
            "growth-rows": {"dualdb/1000": [0.002], "pymysql/1000": [0.008]},
            "growth-list": {"dualdb-asyncio/1000000": [1.0], "pyro-asyncio/1000000": [2.0]},
        },
        rounds=1,
    )
    document = report.document(results, {"growth-rows": "benchmarks/growth-rows.svg"})
    assert "| threads, 10 | 20.0 ms | 17.2 kB |  | 100 µs | 0.50 (0.50 to 0.50) |  |" in document
    assert "| asyncio, 10,000 | 500 ms | 4.60 kB |  |  |  |  |" in document
    assert "| of the throughput of SQLAlchemy (PyMySQL), threads |  |  |  | 3.00 (" in document
    assert "| of the time of PyMySQL, threads |  | 0.25 (0.25 to 0.25) |  |  |  |  |" in document
    assert "| pyro-mysql, asyncio |  |  |  |  |  | 2.00 s |" in document
    assert "| **dualdb, asyncio** |  |  |  |  |  | 1.00 s |" in document
    assert "![Rows streamed: the time of a row](benchmarks/growth-rows.svg)" in document
    without = report.document(Results(tables={"point": {"dualdb": [1.0]}}), {})
    assert "How cost grows" not in without


def test_samples_are_kept(tmp_path: pathlib.Path) -> None:
    results = Results(
        tables={"point": {"dualdb": [0.000123456]}}, versions={"dualdb": "1"}, rounds=1, quick=True
    )
    save(results, tmp_path / "samples.json")
    assert load(tmp_path / "samples.json").tables == {"point": {"dualdb": [0.0001235]}}
    assert load(tmp_path / "samples.json").quick


@pytest.mark.slow
def test_a_short_run_with_whoever_is_installed(tmp_path: pathlib.Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks",
        "--quick",
        "--rounds",
        "1",
        "--only",
        "point,typed,insert,update",
        "--output",
        str(tmp_path),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    document = (tmp_path / "benchmarks.md").read_text(encoding="utf-8")
    found = load(tmp_path / "benchmarks" / "samples.json")
    for scenario in ("point", "insert", "update"):
        for key in ("pymysql", "dualdb", "aiomysql", "dualdb-asyncio"):
            assert all(figure > 0 for figure in found.tables[scenario][key]), (scenario, key)
    assert set(found.tables["typed"]) == {
        f"{ours}{kind}" for ours in peers.OURS.values() for kind in ("", "-dataclass", "-pydantic")
    }
    # Everybody who is installed was asked and gave the same answer.
    assert {
        reason
        for scenario in ("point", "insert", "update")
        for reason in found.missing[scenario].values()
        if reason != peers.NOT_ASKED
        and not reason.startswith(("not installed", "pip finds no distribution", "it has no"))
    } == set()
    assert "**This was a quick run: the figures are worth little.**" in document
