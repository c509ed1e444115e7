"""What a service says of its health."""

import json
import logging
from typing import Any, Callable

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import HealthReport, ParameterError


@pytest.fixture
def db(open_service: Callable[..., Any]) -> Any:
    return open_service(refresh_interval=None)


@pytest.mark.parametrize("deep", [False, True])
def test_a_service_whose_databases_respond_is_ok(db: Any, io: IO, deep: bool) -> None:
    report: HealthReport = io(db.health(deep=deep))
    assert (report.state, report.live, report.ready, report.reasons) == ("ok", True, True, ())
    assert list(report.databases) == ["global", "shard 1", "shard 2"]
    assert {each.state for each in report.databases.values()} == {"ok"}
    assert all((each.seconds is not None) is deep for each in report.databases.values())
    assert (report.deep, report.map_version) == (deep, db.status().version)
    assert json.loads(json.dumps(report.as_dict()))["databases"]["shard 1"]["state"] == "ok"


@pytest.mark.parametrize("deep", [False, True])
def test_a_suspended_shard_is_no_fault_and_one_with_a_bad_row_is(
    db: Any, io: IO, databases: Databases, deep: bool
) -> None:
    databases.set_row(2, status="maintenance")
    io(db.refresh())
    report = io(db.health(deep=deep, require="all"))
    assert (report.state, report.ready) == ("ok", True)
    assert report.databases["shard 2"].state == "suspended"
    assert not io(db.health(deep=deep, require=[2])).ready
    databases.set_row(2, port=0)
    io(db.refresh())
    report = io(db.health(deep=deep))
    assert (report.state, report.ready, report.live) == ("degraded", True, True)
    assert report.databases["shard 2"].state == "down"
    assert report.reasons[0].startswith("shard 2: ")
    assert not io(db.health(deep=deep, require="all")).ready
    assert io(db.health(deep=deep, require=1)).ready
    assert not io(db.health(deep=deep, require=2)).ready


def test_a_service_that_is_not_open_is_live_and_not_ready(io: IO, databases: Databases) -> None:
    report = io(io.Service(databases.config).health(deep=True))
    assert (report.state, report.live, report.ready) == ("down", True, False)
    assert report.reasons == ("the service is not open",)


def test_a_process_whose_background_work_is_stuck_is_not_live(
    db: Any, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualdb.observability.health.BACKGROUND_TIMEOUT", -1.0)
    report = io(db.health())
    assert (report.live, report.ready) == (False, True)
    assert report.reasons[0].startswith("the background work has been stuck for ")


def test_what_was_found_is_used_for_a_second(
    db: Any, io: IO, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dualdb.topology.health.CACHED", 1000.0)
    first = io(db.health(deep=True))
    assert io(db.health(deep=True)).databases == first.databases
    monkeypatch.setattr("dualdb.topology.health.CACHED", 0.0)
    assert io(db.health(deep=True)).databases != first.databases


def test_a_pool_without_a_free_connection_does_not_hold_it_up(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    small = databases.config.model_copy(update={"pool_size": 1, "max_overflow": 0})
    db = open_service(small, refresh_interval=None)
    with io.entered(db.shard(1).transaction()):
        report = io(db.health(deep=True, timeout=0.3))
    assert report.state == "degraded"
    assert "connection" in str(report.databases["shard 1"].reason)


def test_arguments_are_checked(db: Any, io: IO, caplog: pytest.LogCaptureFixture) -> None:
    for arguments in ({"timeout": -1}, {"timeout": "2"}, {"require": "some"}, {"require": True}):
        with pytest.raises(ParameterError):
            io(db.health(**arguments))
    with caplog.at_level(logging.WARNING):
        io(db.health(deep=True))
    assert caplog.records == []
