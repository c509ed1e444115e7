"""``move`` and ``rebalance``: tenants that change their shard."""

import json
import pathlib
from typing import Any, Dict, List, Tuple

import pytest
from cli_command import Command

from dualdb import DatabaseService
from dualdb.operations import Job, JobStep, MoveReport, Operations

TABLE = ("--table", "visits:user_id")


@pytest.fixture
def shop(cli: Command) -> Command:
    """Keys 1 to 4 on shard 1, each with as many rows."""
    pathlib.Path("dualdb.toml").write_text("[directory]\nttl = 0\n")
    cli("init")
    for shard_id in (1, 2):
        cli.sandbox.run(
            shard_id, "CREATE TABLE visits (id INT PRIMARY KEY, user_id BIGINT NOT NULL)"
        )
    for key in range(1, 5):
        cli("keys", "set", str(key), "1")
        rows = ", ".join([f"({key}{number}, {key})" for number in range(key)])
        cli.sandbox.run(1, f"INSERT INTO visits VALUES {rows}")
    return cli


def visitors(cli: Command, shard_id: int) -> List[int]:
    rows = cli.sandbox.run(shard_id, "SELECT DISTINCT user_id AS k FROM visits ORDER BY k")
    return [row["k"] for row in rows]


def test_a_tenant_moves(shop: Command) -> None:
    planned = shop.json("move", "prepare", *TABLE, "--dry-run")
    assert (len(planned["actions"]), planned["dry_run"]) == (12, True)
    shop("move", "start", "3", "--to", "2", *TABLE, "--yes", code=4)
    shop("move", "undo", "3", *TABLE, "--yes", code=4)
    shop("move", "undo", "3", *TABLE, "--dry-run", code=4)
    shop("move", "resume", "3", *TABLE, "--dry-run", code=4)
    shop("move", "prepare", *TABLE)
    assert "everything is there" in shop("move", "prepare", *TABLE).stdout
    action = "move 3 rows of 3 from shard 1 to shard 2"
    assert action in shop("move", "start", "3", "--to", "2", *TABLE, "--dry-run").stdout
    shop("move", "start", "3", "--to", "1", *TABLE, "--dry-run")
    limits = ("--max-lag", "off", "--max-threads-running", "off", "--settle", "0")
    done = shop.json("move", "start", "3", "--to", "2", *TABLE, *limits, "--yes")
    assert (done["state"], done["rows"]) == ("done", 3)
    assert (visitors(shop, 1), visitors(shop, 2)) == ([1, 2, 4], [3])
    assert "3 is on shard 2" in shop("move", "start", "3", "--to", "2", *TABLE, "--yes").stdout
    shop("move", "resume", "3", *TABLE, code=4)
    assert [each["name"] for each in shop.json("jobs", "list", "--kind", "move")] == ["move:3"]


def test_a_move_under_way_is_shown_before_it_goes_on_or_is_undone(shop: Command) -> None:
    def one_step(job: Job) -> JobStep:
        return JobStep({"step": "copy"})

    params = {"source": 1, "target": 2}
    with DatabaseService(shop.sandbox.config) as db:
        db.operations.jobs.run("move:3", one_step, kind="move", params=params, max_steps=1)
    way = "the move of 3 from shard 1 to shard 2 (it is ready at: copy)"
    for name, action in (("undo", f"undo {way}"), ("resume", f"go on with {way}")):
        assert f"would {action}" in shop("move", name, "3", *TABLE, "--dry-run").stdout
        planned = shop.json("move", name, "3", *TABLE, "--dry-run")
        assert (planned["dry_run"], planned["actions"]) == (True, [action])
        assert (planned["move"]["state"], planned["move"]["step"]) == ("ready", "copy")
    shop("keys", "set", "3", "2")
    refused = shop("move", "undo", "3", *TABLE, "--dry-run", code=4)
    assert "is on shard 2 already" in refused.stderr


def test_a_plan_is_written_and_carried_out(shop: Command, tmp_path: pathlib.Path) -> None:
    shop("move", "prepare", *TABLE)
    shown = shop("rebalance", "plan", *TABLE, "--drain", "1").stdout
    assert "would have" in shown
    plan = ("rebalance", "plan", *TABLE, "--by", "tenants", "--pin", "4:1")
    found = shop.json(*plan, "--output", "plan.json")
    assert found == json.loads((tmp_path / "plan.json").read_text())
    assert len(found["moves"]) == 2
    assert 4 not in [each["key"] for each in found["moves"]]
    apply = ("rebalance", "apply", "plan.json", *TABLE, "--settle", "0")
    planned = shop(*apply, "--dry-run").stdout
    assert "would have" in planned
    assert "would move 2 tenants; 0 are elsewhere" in planned
    assert len(shop.json(*apply, "--dry-run")["moved"]) == 2
    done = shop.json(*apply, "--yes")
    assert (done["state"], sorted(done["moved"])) == (
        "done", sorted(each["key"] for each in found["moves"]),
    )  # fmt: skip
    assert visitors(shop, 2) == sorted(done["moved"])
    (tmp_path / "other.json").write_text("{}")
    shop("rebalance", "apply", "other.json", *TABLE, "--yes", code=2)
    shop("rebalance", "plan", *TABLE, "--weight", "1:x", code=2)


@pytest.mark.parametrize(
    ("given", "limits"),
    [
        ((), {"max_lag": 10, "max_threads_running": 100}),
        (("--max-lag", "off"), {"max_lag": None, "max_threads_running": 100}),
        (("--max-threads-running", "off"), {"max_lag": 10, "max_threads_running": None}),
        (("--max-lag", "0", "--max-threads-running", "7"),
         {"max_lag": 0, "max_threads_running": 7}),
    ],
    ids=str,
)  # fmt: skip
def test_limits_of_moves_can_be_turned_off(
    shop: Command, monkeypatch: pytest.MonkeyPatch, given: Tuple[str, ...], limits: Dict[str, Any]
) -> None:
    seen: List[Dict[str, Any]] = []

    def move(self: object, *args: object, **options: Any) -> MoveReport:
        seen.append({name: options[name] for name in limits})
        return MoveReport(3, 1, 2, "done")

    monkeypatch.setattr(Operations, "move", move)
    shop("move", "start", "3", "--to", "2", *TABLE, *given, "--yes")
    shop("move", "resume", "3", *TABLE, *given)
    assert seen == [limits, limits]


@pytest.mark.parametrize("option", ["--max-lag", "--max-threads-running"])
@pytest.mark.parametrize("value", ["none", "-1", "nan", "inf", ""])
def test_wrong_limits_are_refused(shop: Command, option: str, value: str) -> None:
    refused = shop("move", "start", "3", "--to", "2", *TABLE, option, value, "--yes", code=2)
    assert "neither off nor a number" in refused.stderr


def test_a_settle_that_is_too_short_is_refused(shop: Command) -> None:
    pathlib.Path("dualdb.toml").write_text("[directory]\nttl = 20\n")
    shop("move", "prepare", *TABLE)
    for more in ("--yes", "--dry-run"):
        start = ("move", "start", "3", "--to", "2", *TABLE, "--settle", "5", more)
        assert "settle=5 is shorter" in shop(*start, code=4).stderr
    assert visitors(shop, 1) == [1, 2, 3, 4]


def hold(cli: Command, name: str, seconds: float) -> None:
    """Have a job be run by another process, whose lease lasts so long."""
    cli.sandbox.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', owner = 'other:1', "
        f"lease_until = UTC_TIMESTAMP(6) + INTERVAL {seconds} SECOND WHERE name = '{name}'",
    )


@pytest.mark.parametrize("name", ["start", "resume", "undo"])
def test_a_move_that_somebody_holds_is_waited_for(shop: Command, name: str) -> None:
    def one_step(job: Job) -> JobStep:
        return JobStep({"step": "check"})

    params = {"source": 1, "target": 2}
    shop("move", "prepare", *TABLE)
    with DatabaseService(shop.sandbox.config) as db:
        db.operations.jobs.run("move:3", one_step, kind="move", params=params, max_steps=1)
    hold(shop, "move:3", 60)
    call = ["move", name, "3", *TABLE]
    call += ["--to", "2"] if name == "start" else []
    call += [] if name == "resume" else ["--yes"]
    refused = shop(*call, code=4)
    assert "run by other:1, whose lease is over in" in refused.stderr
    assert "--wait" in refused.stderr
    found = shop(*call, "--wait", "0.1", "--json", code=4)
    assert json.loads(found.stdout)["type"] == "JobTaken"
    assert "waiting up to 0.1 s for other:1" in found.stderr
    hold(shop, "move:3", 0.2)
    done = shop.json(*call, "--wait", "60")
    assert done["state"] == ("undone" if name == "undo" else "done")


def test_leases_and_waits_are_given(shop: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: List[Tuple[float, float]] = []

    def moved(self: object, *args: object, **options: Any) -> MoveReport:
        seen.append((options["lease"], options["wait"]))
        return MoveReport(3, 1, 2, "done")

    monkeypatch.setattr(Operations, "move", moved)
    monkeypatch.setattr(Operations, "undo_move", moved)
    for call in (("start", "3", "--to", "2", "--yes"), ("resume", "3"), ("undo", "3", "--yes")):
        shop("move", *call, *TABLE)
        shop("move", *call, *TABLE, "--lease", "5", "--wait", "90")
        for wrong in (("--lease", "4"), ("--wait", "-1"), ("--wait", "x"), ("--lease", "inf")):
            shop("move", *call, *TABLE, *wrong, code=2)
    assert seen == [(60.0, 0.0), (5.0, 90.0)] * 3


def test_a_plan_that_somebody_carries_out_is_waited_for(shop: Command) -> None:
    shop("move", "prepare", *TABLE)
    shop("rebalance", "plan", *TABLE, "--by", "tenants", "--output", "plan.json")
    apply = ("rebalance", "apply", "plan.json", *TABLE, "--settle", "0")

    def one_step(job: Job) -> JobStep:
        return JobStep({"next": 0, "at": 0.0})

    moves = [[each["key"], each["source"], each["target"]]
             for each in json.loads(pathlib.Path("plan.json").read_text())["moves"]]  # fmt: skip
    with DatabaseService(shop.sandbox.config) as db:
        db.operations.jobs.run("rebalance", one_step, params=moves, max_steps=1)
    hold(shop, "rebalance", 60)
    assert "run by other:1" in shop(*apply, "--yes", code=4).stderr
    assert "waiting up to 0.1 s" in shop(*apply, "--yes", "--wait", "0.1", code=4).stderr
    hold(shop, "rebalance", 0.2)
    done = shop.json(*apply, "--yes", "--wait", "60", "--lease", "20")
    assert (done["state"], len(done["moved"])) == ("done", len(moves))
