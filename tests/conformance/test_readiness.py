"""Waiting until the databases answer."""

import threading
from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import DeadlineExceeded, NotReady, ParameterError
from dualdb.topology import readiness


def test_a_service_that_answers_is_ready(db: Any, io: IO) -> None:
    requirements: List[Any] = ["all", "global", 0, 2, [], [1], {2, 1}]
    for require in requirements:
        assert io(db.wait_ready(5, require=require)) is None


def test_a_service_that_is_not_open_is_opened(io: IO, databases: Databases) -> None:
    service = io.Service(databases.config)
    io(service.wait_ready(10))
    assert io(service.query_value("SELECT 1")) == 1
    io(service.close_service())


@pytest.mark.slow
def test_what_does_not_answer_is_named(
    io: IO, databases: Databases, open_service: Callable[..., Any]
) -> None:
    databases.set_row(2, port="1")
    databases.set_row(3, status="maintenance")
    db = open_service()
    for require, says in (
        ("all", "shard 2: no connection"),
        (2, "1 of 2 shards answer; shard 2: no connection"),
        ([1, 2], "shard 2: no connection"),
        ([3], "shard 3: it is maintenance"),
        ([9], "shard 9: it is not in the shard table"),
    ):
        with pytest.raises(NotReady, match=f"not ready after 1 s: {says}") as caught:
            io(db.wait_ready(1, require=require))
        assert databases.config.reveal_password() not in str(caught.value)
    io(db.wait_ready(5, require=1))
    io(db.wait_ready(5, require=[1]))


def test_a_global_database_that_cannot_be_reached_is_named(io: IO, databases: Databases) -> None:
    service = io.Service(databases.config.model_copy(update={"port": 1}))
    with pytest.raises(NotReady, match="global: "):
        io(service.wait_ready(0.3, require="global"))


@pytest.mark.slow
def test_it_waits_for_a_shard_that_comes_up(
    io: IO, databases: Databases, open_service: Callable[..., Any]
) -> None:
    db = open_service(refresh_interval=None)
    databases.run("global", "DELETE FROM table_shard_config WHERE shard_id = 2")
    io(db.refresh())
    timer = threading.Timer(0.3, databases.set_row, (2,), vars_of(databases))
    timer.start()
    try:
        io(db.wait_ready(20, require=[2]))
    finally:
        timer.join()
    assert io(db.shard(2).query_value("SELECT 1")) == 1


def vars_of(databases: Databases) -> Any:
    config = databases.config_of(2)
    return {"port": config.port, "host": config.host, "database_name": config.database}


@pytest.mark.parametrize("require", ["some", -1, True, None, 1.5, ["1"], b"all"])
def test_what_is_required_is_checked_at_once(db: Any, require: Any) -> None:
    with pytest.raises(ParameterError):
        db.wait_ready(1, require=require)


@pytest.mark.parametrize(
    ("wanted", "failures", "says"),
    [
        ("all", {None: None, 1: None}, None),
        ("all", {None: "down", 1: None}, "global: down"),
        ("global", {None: None, 1: "down"}, None),
        (1, {None: None, 1: None, 2: "x"}, None),
        (2, {None: None, 1: None, 2: "x"}, "1 of 2 shards answer; shard 2: x"),
        ([1], {None: None, 1: None, 2: "x"}, None),
        ([2, 3], {None: None, 2: "x"}, "shard 2: x; shard 3: it is not in the shard table"),
    ],
)
def test_what_is_missing(wanted: Any, failures: Any, says: Any) -> None:
    assert readiness.unmet(wanted, failures) == says


def test_an_attempt_that_was_cut_short_says_less_than_the_one_before() -> None:
    late, refused = DeadlineExceeded("late"), ValueError("refused")
    before = {None: None, 1: None, 2: "down"}
    assert readiness.reasons_of({None: [], 1: late, 2: late, 3: late}, before) == {
        **before,
        3: "late",
    }
    assert readiness.reasons_of({1: refused, 2: refused}, before) == {1: "refused", 2: "down"}
    assert readiness.reasons_of({1: late, 2: []}, {}) == {1: "late", 2: None}
