"""Where calls go when shards are away."""

import logging
from types import SimpleNamespace
from typing import Any, Callable, List

import pytest
from apis import Verbs, session
from database_servers import Databases
from io_kinds import IO

from dualdb import ParameterError, ProgrammingError, ServiceNotOpen, ShardNotFound, ShardUnavailable

WHERE_AM_I = "SELECT DATABASE() AS name"


def name_of(databases: Databases, name: Any) -> Any:
    return [{"name": databases.config_of(name).database}]


def reload(db: Any, call: IO) -> None:
    call(db.load_shard_configs())
    call(db.init_shard_connections())


@pytest.fixture(params=["unknown", "inactive"])
def absent(request: pytest.FixtureRequest, databases: Databases) -> int:
    """A shard that is not there."""
    if request.param == "unknown":
        return 77
    databases.set_row(2, status="inactive")
    return 2


def test_a_session_whose_shard_is_absent_uses_the_global_database_and_warns_once(
    absent: int, api: Verbs, databases: Databases, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "dualdb"):
        for _ in range(3):
            assert api.rows(session(absent), WHERE_AM_I) == name_of(databases, "global")
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"shard {absent} is absent" in caplog.text


def test_a_strict_service_refuses_it(
    absent: int, open_service: Callable[..., Any], call: IO, databases: Databases
) -> None:
    db = open_service(absent_shard="error")
    with pytest.raises(ShardNotFound, match=f"Shard {absent} not found: it is"):
        call(db.session(session(absent)).execute("INSERT INTO accounts (email) VALUES ('lost')"))
    with pytest.raises(ShardNotFound):
        call(db.execute_query_by_session(session(absent), WHERE_AM_I))
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 0
    assert call(db.query(WHERE_AM_I)) == name_of(databases, "global")


def test_named_outright_it_is_not_available(absent: int, api: Verbs, db: Any) -> None:
    for attempt in (api.rows, api.count):
        with pytest.raises(RuntimeError, match=f"^Shard {absent} not available: ") as caught:
            attempt(absent, WHERE_AM_I)
        assert isinstance(caught.value, ShardUnavailable)
    with pytest.raises(ShardUnavailable):
        api.procedure(absent, "portfolio", (1,))
    assert db.get_shard_client(absent) is None


def test_a_shard_in_maintenance_is_refused_and_never_another_database(
    databases: Databases, api: Verbs, db: Any, io: IO
) -> None:
    databases.set_row(2, status="maintenance")
    reload(db, io)
    for where in (2, session(2)):
        with pytest.raises(ShardUnavailable, match="^Shard 2 not available: ") as caught:
            api.count(where, "INSERT INTO accounts (email) VALUES ('lost')")
        assert caught.value.reason == "it is in maintenance"
    with pytest.raises(ShardUnavailable):
        db.get_client_by_session(session(2))
    assert db.get_shard_client(2) is None
    assert databases.value("global", "SELECT COUNT(*) FROM accounts") == 0
    assert api.rows(session(1), WHERE_AM_I) == name_of(databases, 1)
    databases.set_row(2, status="active")
    reload(db, io)
    assert api.rows(session(2), WHERE_AM_I) == name_of(databases, 2)


def test_a_bad_row_hurts_its_shard_alone(
    databases: Databases,
    open_service: Callable[..., Any],
    call: IO,
    caplog: pytest.LogCaptureFixture,
) -> None:
    databases.run(
        "global",
        "ALTER TABLE table_shard_config MODIFY port INT NULL",
        "UPDATE table_shard_config SET port = NULL WHERE shard_id = 2",
    )
    with caplog.at_level(logging.ERROR, "dualdb"):
        db = open_service()
    assert "shard table table_shard_config: shard 2: port is NULL" in caplog.text
    assert databases.config.reveal_password() not in caplog.text
    assert call(db.shard(1).query(WHERE_AM_I)) == name_of(databases, 1)
    with pytest.raises(ShardUnavailable) as caught:
        call(db.session(session(2)).query(WHERE_AM_I))
    assert "port is NULL" in str(caught.value.reason)
    assert call(db.health_check())["shards"][2]["status"] == "invalid"


def test_without_a_shard_table_the_service_runs_on_the_global_database(
    databases: Databases,
    open_service: Callable[..., Any],
    call: IO,
    caplog: pytest.LogCaptureFixture,
) -> None:
    databases.run("global", "DROP TABLE table_shard_config")
    with caplog.at_level(logging.WARNING, "dualdb"):
        db = open_service()
    assert "there is no shard table table_shard_config" in caplog.text
    assert call(db.query(WHERE_AM_I)) == name_of(databases, "global")
    assert call(db.session(session(1)).query(WHERE_AM_I)) == name_of(databases, "global")
    assert (db.shard_clients, db.shard_configs, call(db.get_active_shard_ids())) == ({}, {}, [])
    with pytest.raises(ShardUnavailable):
        call(db.shard(1).query(WHERE_AM_I))


def test_a_shard_table_that_cannot_be_read_is_no_empty_one(databases: Databases, io: IO) -> None:
    """Taken for "no shards", it would send every user's writes to the global
    database.
    """
    databases.run("global", "ALTER TABLE table_shard_config DROP COLUMN shard_id")
    service = io.Service(databases.config)
    with pytest.raises(Exception, match="shard_id") as caught:
        io(service.init_service())
    assert caught.value.args[0] == 1054
    with pytest.raises(ServiceNotOpen):
        io(service.query("SELECT 1"))


def test_a_shard_table_that_vanishes_leaves_the_last_map(
    db: Any, call: IO, databases: Databases
) -> None:
    databases.run("global", "DROP TABLE table_shard_config")
    with pytest.raises(ProgrammingError) as caught:
        call(db.load_shard_configs())
    assert caught.value.errno == 1146
    call(db.init_shard_connections())
    assert call(db.session(session(2)).query(WHERE_AM_I)) == name_of(databases, 2)


def test_a_shard_table_of_another_name(
    databases: Databases, open_service: Callable[..., Any], call: IO
) -> None:
    schema = databases.config.database
    databases.run("global", "RENAME TABLE table_shard_config TO my_shards")
    db = open_service(shard_table=f"{schema}.my_shards")
    assert call(db.shard(1).query(WHERE_AM_I)) == name_of(databases, 1)
    databases.run("global", "DROP TABLE my_shards")


def test_shard_zero_is_a_shard_like_any_other(
    databases: Databases, open_service: Callable[..., Any], call: IO
) -> None:
    databases.set_row(0)
    db = open_service()
    assert call(db.session(session(0)).query(WHERE_AM_I)) == name_of(databases, 1)
    assert call(db.shard(0).query(WHERE_AM_I)) == name_of(databases, 1)
    assert call(db.get_active_shard_ids()) == [0, 1, 2]


@pytest.mark.parametrize("shard_id", ["2", "", True, 2.0, b"2"])
def test_a_shard_id_of_the_wrong_type_goes_nowhere(db: Any, call: IO, shard_id: Any) -> None:
    attempts: List[Callable[[], Any]] = [
        lambda: call(db.session(session(shard_id)).query(WHERE_AM_I)),
        lambda: call(db.execute_query_by_session(session(shard_id), WHERE_AM_I)),
        lambda: call(db.execute_shard_query(shard_id, WHERE_AM_I)),
        lambda: db.shard(shard_id),
        lambda: db.get_shard_client(shard_id),
        lambda: db.get_client_by_session(session(shard_id)),
    ]
    for attempt in attempts:
        with pytest.raises(ParameterError, match="shard_id must be an int"):
            attempt()


def test_many_callers_never_see_another_s_database(db: Any, io: IO, databases: Databases) -> None:
    def ask(shard_id: Any) -> Any:
        return lambda: db.session(session(shard_id)).query_value(WHERE_AM_I)

    wanted = [None, 1, 2] * 40
    names = {
        name: databases.config_of("global" if name is None else name).database for name in wanted
    }
    assert io.concurrently([ask(name) for name in wanted]) == [names[name] for name in wanted]


def test_reloading_keeps_the_pools_of_unchanged_shards(
    db: Any, io: IO, databases: Databases
) -> None:
    first = {key: io(db.shard(key).query_value("SELECT CONNECTION_ID()")) for key in (1, 2)}
    databases.set_row(3)
    databases.set_row(2, status="inactive")
    before = db.shard_clients
    reload(db, io)
    assert db.shard_clients[1] is before[1]
    assert sorted(db.shard_clients) == sorted(db.shard_configs) == [1, 3]
    assert io(db.shard(1).query_value("SELECT CONNECTION_ID()")) == first[1]
    assert io(db.shard(3).query(WHERE_AM_I)) == name_of(databases, 1)
    with pytest.raises(ServiceNotOpen):
        io(before[2].query("SELECT 1"))


def test_a_session_of_another_shape_is_never_the_global_database(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    shapes: List[Any] = [
        SimpleNamespace(shard_id=1),
        SimpleNamespace(session=SimpleNamespace(shardId=1)),
        {"shard_id": 1},
        {"session": {"shardId": 1}},
        1,
        "1",
    ]

    def attempts(db: Any, shape: Any) -> List[Callable[[], Any]]:
        return [
            lambda: io(db.session(shape).query(WHERE_AM_I)),
            lambda: io(db.session(shape).execute("DELETE FROM trades")),
            lambda: io(db.execute_query_by_session(shape, WHERE_AM_I)),
            lambda: io(db.call_procedure_by_session(shape, "portfolio", (1,))),
            lambda: db.get_client_by_session(shape),
        ]

    services: List[Any] = [open_service(), open_service(absent_shard="error")]
    for db in services:
        for shape in shapes:
            for attempt in attempts(db, shape):
                with pytest.raises(ParameterError, match="a client session must be None or"):
                    attempt()
            with pytest.raises(ParameterError), io.entered(db.session(shape).transaction()):
                raise AssertionError("it was begun")
        mapping = {"session": {"shard_id": 2}}
        assert io(db.session(mapping).query(WHERE_AM_I)) == name_of(databases, 2)
        assert io(db.session(None).query(WHERE_AM_I)) == name_of(databases, "global")
        assert "shard 2" in repr(db.session(mapping))
        assert "shard 1" in repr(db.shard(1))


def test_a_function_reads_sessions_of_other_shapes(
    open_service: Callable[..., Any], io: IO, databases: Databases
) -> None:
    db = open_service(session_shard=lambda claims: claims["shard"])
    assert io(db.session({"shard": 2}).query(WHERE_AM_I)) == name_of(databases, 2)
    assert io(db.session({"shard": None}).query(WHERE_AM_I)) == name_of(databases, "global")
    assert io(db.execute_query_by_session({"shard": 1}, WHERE_AM_I)) == name_of(databases, 1)
    with pytest.raises(ParameterError, match="shard_id must be an int"):
        io(db.session({"shard": "1"}).query(WHERE_AM_I))
    with pytest.raises(TypeError, match="session_shard must be a function"):
        open_service(session_shard="shard")
