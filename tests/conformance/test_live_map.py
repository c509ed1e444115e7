"""The shard table is edited while the application runs."""

import asyncio
import socket
from typing import Any, Callable, List

import pytest
from colours import until
from faces import session

from dualdb import (
    ConnectionLost,
    OperationalError,
    ParameterError,
    ShardReadOnly,
    ShardUnavailable,
    TransactionAborted,
)
from dualdb.topology import lifecycle

INSERT = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"


@pytest.fixture
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A miss reads the table however short ago that was done."""
    monkeypatch.setattr(lifecycle, "LOOK_EVERY", 0.0)


@pytest.fixture
def live(open_service: Any) -> Any:
    """A service that reads its shard table five times in a second."""
    return open_service(refresh_interval=0.2)


@pytest.fixture
def still(open_service: Any) -> Any:
    """A service that reads its shard table only when it is told to."""
    return open_service(refresh_interval=None)


def users(world: Any, name: Any) -> List[int]:
    table = "trades" if isinstance(name, int) else "accounts"
    return [row["user_id"] for row in world.run(name, f"SELECT user_id FROM {table} ORDER BY 1")]


def sessions(world: Any, config: Any) -> int:
    return int(
        world.value(
            1,
            f"SELECT COUNT(*) FROM information_schema.processlist WHERE db = '{config.database}' AND user = '{config.user}'",
        )
    )


def test_a_row_is_usable_without_a_call_by_anybody(live: Any, colour: Any, world: Any) -> None:
    assert live.get_shard_client(3) is None
    world.set_row(3)
    assert until(colour, lambda: live.get_shard_client(3) is not None)
    assert colour(live.session(session(3)).execute(INSERT, (3,))) == 1
    assert users(world, 1) == [3]


def test_a_refresh_is_now_and_keeps_what_has_not_changed(
    still: Any, colour: Any, world: Any
) -> None:
    before = {
        shard_id: colour(still.shard(shard_id).query_value("SELECT CONNECTION_ID()"))
        for shard_id in (1, 2)
    }
    version = still.status().version
    colour(still.refresh())
    assert still.status().version == version, "nothing has changed"
    world.set_row(3)
    config = world.config_of(1)
    world.set_row(2, host=config.host, port=config.port, database_name=config.database)
    colour(still.refresh())
    assert still.status().version == version + 1
    assert colour(still.shard(3).query_value("SELECT 3")) == 3
    assert colour(still.shard(1).query_value("SELECT CONNECTION_ID()")) == before[1]
    assert colour(still.shard(2).query_value("SELECT DATABASE()")) == config.database


def test_simultaneous_misses_are_served_by_one_reading(
    still: Any, colour: Any, world: Any, quick_looks: None
) -> None:
    world.set_row(3)

    def selects() -> int:
        return int(world.run("global", "SHOW GLOBAL STATUS LIKE 'Com_select'")[0]["Value"])

    before = selects()
    assert colour.at_once([lambda: still.shard(3).query_value("SELECT 3")] * 50) == [3] * 50
    assert selects() - before == 1
    with pytest.raises(ShardUnavailable):
        colour(still.shard(9).query("SELECT 1"))


def test_a_miss_does_not_read_the_table_at_every_call(still: Any, colour: Any, world: Any) -> None:
    with pytest.raises(ShardUnavailable):
        colour(still.shard(3).query("SELECT 3"))
    world.set_row(3)
    with pytest.raises(ShardUnavailable):
        colour(still.shard(3).query("SELECT 3"))
    assert until(
        colour,
        lambda: (
            colour(still.session(session(3)).query_value("SELECT DATABASE()"))
            == world.config_of(1).database
        ),
    )


def test_an_inactive_shard_is_drained(still: Any, colour: Any, world: Any) -> None:
    config = world.config_of(1)
    with colour.using(still.shard(1).transaction()) as tx:
        colour(tx.execute(INSERT, (1,)))
        world.set_row(1, status="inactive")
        colour(still.refresh())
        assert still.status().draining == {config.address: 1}
        colour(tx.execute(INSERT, (2,)))
        assert colour(still.session(session(1)).execute(INSERT, (3,))) == 1, (
            "the same caller takes part in what it has begun"
        )
        with pytest.raises(ShardUnavailable, match="^Shard 1 not available$"):
            colour.elsewhere(lambda: still.shard(1).query("SELECT 1"))
        assert (
            colour.elsewhere(lambda: still.session(session(1)).query_value("SELECT DATABASE()"))
            == world.config_of("global").database
        )
    assert users(world, 1) == [1, 2, 3]
    assert until(colour, lambda: not sessions(world, config))
    assert until(colour, lambda: not still.status().draining)
    assert set(still.stats()) == {"global", 2}


def test_what_does_not_end_in_time_is_cut(
    open_service: Any, colour: Any, world: Any, caplog: Any
) -> None:
    db = open_service(refresh_interval=0.2, drain_timeout=0.3)
    with pytest.raises(TransactionAborted), colour.using(db.shard(1).transaction()) as tx:
        colour(tx.execute(INSERT, (1,)))
        world.set_row(1, status="maintenance")
        assert until(
            colour, lambda: "1 connections were still in use and have been cut" in caplog.text
        )
        with pytest.raises(OperationalError) as caught:
            colour(tx.execute(INSERT, (2,)))
        assert caught.value.sent is False
    assert users(world, 1) == []
    assert until(colour, lambda: not db.status().draining)


def test_a_transaction_that_was_cut_is_not_committed(still: Any, colour: Any, world: Any) -> None:
    with pytest.raises(ConnectionLost) as caught, colour.using(still.shard(1).transaction()) as tx:
        colour(tx.execute(INSERT, (1,)))
        colour.elsewhere(lambda: still.drain_shard(1, timeout=0.1))
    assert (caught.value.sent, caught.value.retryable) == (False, True)
    assert users(world, 1) == []


def test_maintenance_refuses_at_once_and_ends_by_itself(live: Any, colour: Any, world: Any) -> None:
    world.set_row(2, status="maintenance")
    assert until(colour, lambda: live.status().shards[2].state == "maintenance")
    for target in (live.shard(2), live.session(session(2))):
        with pytest.raises(ShardUnavailable) as caught:
            colour(target.execute(INSERT, (1,)))
        assert (caught.value.retry_after, caught.value.retryable, caught.value.sent) == (
            0.2,
            True,
            False,
        )
    world.set_row(2, status="active")
    assert until(colour, lambda: live.status().shards[2].state == "active")
    assert colour(live.session(session(2)).execute(INSERT, (1,))) == 1


def test_a_readonly_shard_serves_reads_and_refuses_writes_before_they_are_sent(
    still: Any, colour: Any, world: Any
) -> None:
    with colour.using(still.shard(1).transaction()) as tx:
        world.set_row(1, status="readonly")
        colour(still.refresh())
        colour(tx.execute(INSERT, (1,)))
        colour(still.shard(1).execute(INSERT, (2,)))
    shard = still.session(session(1))
    assert colour(shard.query_value("SELECT COUNT(*) FROM trades")) == 2
    assert colour(
        still.execute_shard_query(1, "SELECT user_id FROM trades WHERE user_id = %s", (1,))
    ) == [{"user_id": 1}]
    assert colour(shard.call("portfolio", (1,), read_only=True)).sets
    assert colour(shard.query_value("SELECT COUNT(*) FROM trades FOR UPDATE", read_only=True)) == 2
    writes: List[Callable[[], Any]] = [
        lambda: shard.execute(INSERT, (3,)),
        lambda: shard.query("SELECT COUNT(*) FROM trades FOR UPDATE"),
        lambda: shard.call("buy", (3, "A", 1)),
        lambda: still.call_shard_procedure(1, "portfolio", (1,)),
        lambda: shard.execute(INSERT, (3,), idempotent=True),
    ]
    for write in writes:
        with pytest.raises(ShardReadOnly, match="^Shard 1 not available$") as caught:
            colour(write())
        assert (caught.value.sent, caught.value.shard_id) == (False, 1)
        assert isinstance(caught.value, ShardUnavailable)
    with pytest.raises(ShardReadOnly), colour.using(shard.connection()):
        raise AssertionError("entered")
    with pytest.raises(ShardReadOnly), colour.using(shard.transaction()) as tx:
        assert colour(tx.query_value("SELECT COUNT(*) FROM trades")) == 2
        colour(tx.execute(INSERT, (3,)))
    assert users(world, 1) == [1, 2]
    assert colour(still.get_active_shard_ids()) == [1, 2]
    world.set_row(1, status="active")
    colour(still.refresh())
    assert colour(shard.execute(INSERT, (3,))) == 1


def test_a_shard_that_moves_takes_new_work_along_and_lets_old_work_finish(
    still: Any, colour: Any, world: Any
) -> None:
    elsewhere = world.config_of(2)
    with colour.using(still.shard(1).transaction()) as tx:
        colour(tx.execute(INSERT, (1,)))
        world.set_row(1, host=elsewhere.host, port=elsewhere.port, database_name=elsewhere.database)
        colour(still.refresh())
        assert colour.elsewhere(lambda: still.shard(1).execute(INSERT, (7,))) == 1
        colour(still.shard(1).execute(INSERT, (2,)))
        colour(tx.execute(INSERT, (3,)))
    assert (users(world, 1), users(world, 2)) == ([1, 2, 3], [7])
    assert colour(still.shard(1).query_value("SELECT COUNT(*) FROM trades")) == 1


def test_a_refused_password_has_the_table_read_before_it_is_an_error(
    still: Any, colour: Any, world: Any, quick_looks: None
) -> None:
    account = f"rotated_{colour.name}"
    world.run(
        1, f"DROP USER IF EXISTS {account}@'%'", f"CREATE USER {account}@'%' IDENTIFIED BY 'first'"
    )
    world.run(1, f"GRANT ALL ON {world.config_of(1).database}.* TO {account}@'%'")
    world.set_row(1, username=account, password="first")
    colour(still.refresh())
    assert colour(still.shard(1).execute(INSERT, (1,))) == 1
    world.run(1, f"ALTER USER {account}@'%' IDENTIFIED BY 'second'")
    for row in world.run(
        1, f"SELECT id FROM information_schema.processlist WHERE user = '{account}'"
    ):
        world.run(1, f"KILL {row.get('id', row.get('ID'))}")
    with pytest.raises(ShardUnavailable, match="^Shard 1 not available$") as caught:
        colour(still.shard(1).execute(INSERT, (9,)))
    assert "1045" in str(caught.value.reason)
    world.set_row(1, password="second")
    assert colour(still.shard(1).execute(INSERT, (2,))) == 1
    with colour.using(still.shard(1).transaction()) as tx:
        colour(tx.execute(INSERT, (3,)))
    assert users(world, 1) == [1, 2, 3]
    world.run(1, f"DROP USER {account}@'%'")


def test_a_bad_row_is_set_apart_and_mends_without_a_restart(
    live: Any, colour: Any, world: Any
) -> None:
    world.set_row(2, port="0")
    assert until(colour, lambda: live.status().shards[2].state == "invalid")
    status = live.status()
    assert "port" in str(status.shards[2].reason)
    assert status.problems[0].startswith("shard 2: port")
    assert colour(live.shard(1).query_value("SELECT 1")) == 1
    world.set_row(2, port=str(world.config_of(2).port))
    assert until(colour, lambda: live.status().shards[2].state == "active")
    assert colour(live.shard(2).query_value("SELECT 2")) == 2


def test_a_password_may_be_a_reference(
    still: Any, colour: Any, world: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    secret = world.config_of(1).reveal_password()
    (tmp_path / "password").write_text(secret + "\n")
    monkeypatch.setenv("SHARD_TWO", secret)
    world.set_row(1, password=f"file:{tmp_path / 'password'}")
    world.set_row(2, password="env:SHARD_TWO")
    world.set_row(3, password="env:NO_SUCH_VARIABLE")
    colour(still.refresh())
    assert [
        colour(still.shard(shard_id).query_value("SELECT %s", (shard_id,))) for shard_id in (1, 2)
    ] == [1, 2]
    assert (
        still.status().shards[3].reason
        == "password: there is no environment variable 'NO_SUCH_VARIABLE'"
    )
    kept = still.get_shard_client(1)
    colour(still.refresh())
    assert still.get_shard_client(1) is kept
    (tmp_path / "password").write_text("another")
    colour(still.refresh())
    assert still.get_shard_client(1) is not kept, (
        "a password that was changed in its file is a changed password"
    )


def test_a_host_that_is_not_allowed_is_sent_nothing(
    open_service: Any, colour: Any, world: Any
) -> None:
    with socket.create_server(("127.0.0.2", 0)) as listener:
        listener.settimeout(0.5)
        world.set_row(3, host="127.0.0.2", port=str(listener.getsockname()[1]))
        db = open_service(
            refresh_interval=0.2,
            allowed_hosts=[world.config_of(1).host, "127.0.0.1/32", "*.internal"],
        )
        with pytest.raises(ShardUnavailable) as caught:
            colour(db.shard(3).query("SELECT 1"))
        assert "host '127.0.0.2' is not among the allowed hosts" in str(caught.value.reason)
        with pytest.raises(socket.timeout):
            listener.accept()
        assert colour(db.shard(1).query_value("SELECT 1")) == 1


def test_hooks_are_told_in_order_and_cannot_break_anything(
    still: Any, colour: Any, world: Any, caplog: Any
) -> None:
    told: List[Any] = []

    @still.on("shard_added")  # type: ignore[untyped-decorator, unused-ignore]
    def fails(event: Any) -> None:
        raise ZeroDivisionError

    def tell(event: Any) -> Any:
        told.append((event.name, event.shard_id))
        return still.refresh() if event.name == "map_refreshed" else None

    for name in (
        "shard_added",
        "shard_removed",
        "shard_moved",
        "shard_state_changed",
        "map_refreshed",
    ):
        assert still.on(name, tell) is tell
    world.set_row(3)
    world.set_row(2, status="maintenance")
    colour(still.refresh())
    world.run("global", "DELETE FROM table_shard_config WHERE shard_id = 3")
    world.set_row(1, username="somebody")
    colour(still.refresh())
    assert told == [
        ("shard_state_changed", 2), ("shard_added", 3), ("map_refreshed", None),
        ("shard_moved", 1), ("shard_removed", 3), ("map_refreshed", None),
    ]  # fmt: skip
    assert "ZeroDivisionError" in caplog.text
    with pytest.raises(ValueError, match="no event 'shard_add'"):
        still.on("shard_add", tell)


def test_a_hook_that_has_the_table_read_again_overtakes_nobody(
    still: Any, colour: Any, world: Any
) -> None:
    told: List[Any] = []

    def again(event: Any) -> Any:
        if event.shard_id == 3:
            world.set_row(4)
            return still.refresh()
        return None

    still.on("shard_added", again)
    still.on("shard_added", lambda event: told.append((event.shard_id, event.version)))
    world.set_row(3)
    colour(still.refresh())
    assert told == [(3, 2), (4, 3)]


def test_the_status_is_told_without_asking_anybody(still: Any, colour: Any, world: Any) -> None:
    colour(still.shard(1).query("SELECT 1"))
    status = still.status()
    assert (status.version, status.failure, status.problems, status.draining) == (1, None, (), {})
    assert 0 <= status.age < 60
    assert {shard_id: shard.state for shard_id, shard in status.shards.items()} == {
        1: "active",
        2: "active",
    }
    assert status.shards[1].pool == still.stats()[1]
    assert status.shards[1].address == world.config_of(1).address
    assert world.config_of(1).reveal_password() not in repr(status)
    colour(still.close_service())
    assert (still.status().version, dict(still.status().shards)) == (0, {})


def test_shards_are_administered_from_python(still: Any, colour: Any, world: Any) -> None:
    config = world.config_of(1)
    row = {
        "host": config.host,
        "port": config.port,
        "database": config.database,
        "user": config.user,
    }
    right = {**row, "password": config.reveal_password()}
    colour(still.add_shard(5, **right))
    assert colour(still.session(session(5)).execute(INSERT, (1,))) == 1
    for wrong, cls, says in (
        (
            {**right, "status": "sleepy"},
            ParameterError,
            "would be unusable: shard 6: status 'sleepy'",
        ),
        (
            {**right, "privileges": ["SUPER POWERS"]},
            ParameterError,
            "has not been granted SUPER POWERS",
        ),
        ({**row, "password": "wrong"}, ShardUnavailable, "Shard 6 not available"),
    ):
        with pytest.raises(cls) as caught:
            colour(still.add_shard(6, **wrong))
        assert says in str(caught.value)
        assert not world.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 6")
    with pytest.raises(ParameterError, match="is in the shard table already"):
        colour(still.add_shard(5, **right))
    with pytest.raises(ParameterError, match="shard 5 is active: drain it before"):
        colour(still.remove_shard(5))
    colour(still.set_shard_status(5, "Maintenance"))
    with pytest.raises(ShardUnavailable):
        colour(still.shard(5).query("SELECT 1"))
    for shard_id, status, says in (
        (5, "sleepy", "status 'sleepy' is none of"),
        (8, "active", "shard 8 is not in the shard table"),
    ):
        with pytest.raises(ParameterError, match=says):
            colour(still.set_shard_status(shard_id, status))
    colour(still.set_shard_status(5, "active"))
    world.run(
        "global",
        "ALTER TABLE table_shard_config MODIFY status ENUM('active', 'inactive', 'maintenance')",
    )
    with pytest.raises(ParameterError, match="does not take 'readonly'"):
        colour(still.set_shard_status(5, "readonly"))
    with pytest.raises(TransactionAborted), colour.using(still.shard(5).transaction()) as tx:
        colour(tx.execute(INSERT, (2,)))
        report = colour.elsewhere(lambda: still.drain_shard(5, timeout=0.2))
        assert (report.shard_id, report.finished, report.cut) == (5, 0, 1)
        with pytest.raises(OperationalError):
            colour(tx.execute(INSERT, (3,)))
    colour(still.remove_shard(5))
    assert not world.run("global", "SELECT 1 FROM table_shard_config WHERE shard_id = 5")
    assert still.get_shard_client(5) is None


def test_a_map_is_never_read_inside_a_caller_s_transaction(
    still: Any, colour: Any, world: Any, quick_looks: None
) -> None:
    with colour.using(still.transaction()) as tx:
        colour(tx.query("SELECT * FROM table_shard_config"))
        world.set_row(1, status="maintenance")
        world.set_row(3)
        assert colour(still.shard(3).query_value("SELECT 3")) == 3, (
            "not an old snapshot of the table"
        )
        assert still.status().shards[1].state == "maintenance"
        colour(still.set_shard_status(2, "readonly"))
    with pytest.raises(ZeroDivisionError), colour.using(still.transaction()):
        colour(still.set_shard_status(1, "active"))
        raise ZeroDivisionError
    colour(still.refresh())
    assert {shard_id: shard.state for shard_id, shard in still.status().shards.items()} == {
        1: "active",
        2: "readonly",
        3: "active",
    }


def test_what_began_on_the_global_database_ends_there(still: Any, colour: Any, world: Any) -> None:
    world.set_row(1, status="inactive")
    colour(still.refresh())
    mine = still.session(session(1))
    insert = "INSERT INTO accounts (id, email) VALUES (%s, UUID())"
    with pytest.raises(ZeroDivisionError), colour.using(mine.transaction()):
        colour(mine.execute(insert, (71,)))
        world.set_row(1, status="active")
        colour(still.refresh())
        colour(mine.execute(insert, (72,)))
        assert (
            colour.elsewhere(lambda: mine.query_value("SELECT DATABASE()"))
            == world.config_of(1).database
        )
        raise ZeroDivisionError
    assert world.value("global", "SELECT COUNT(*) FROM accounts") == 0
    assert colour(mine.query_value("SELECT DATABASE()")) == world.config_of(1).database


def test_a_shard_that_nobody_can_know_of_is_not_taken_for_absent(
    still: Any, colour: Any, world: Any
) -> None:
    world.set_row(3)
    world.run("global", "RENAME TABLE table_shard_config TO hidden")
    for _ in range(2):
        with pytest.raises(ShardUnavailable) as caught:
            colour(still.session(session(3)).execute(INSERT, (1,)))
        assert "the shard table cannot be read" in str(caught.value.reason)
        with pytest.raises(ShardUnavailable):
            still.get_client_by_session(session(3))
    assert colour(still.session(session(1)).execute(INSERT, (1,))) == 1
    world.run("global", "RENAME TABLE hidden TO table_shard_config")


def test_a_new_shard_is_looked_for_however_short_ago_the_table_was_read(
    still: Any, colour: Any, world: Any
) -> None:
    for shard_id in (3, 4, 5):
        world.set_row(shard_id)
        assert (
            colour(still.session(session(shard_id)).query_value("SELECT DATABASE()"))
            == world.config_of(1).database
        )


def test_what_is_idle_in_a_transaction_is_cut_on_the_server_too(
    open_service: Any, colour: Any, world: Any
) -> None:
    db, config = open_service(refresh_interval=0.1, drain_timeout=0.2), world.config_of(1)
    with (
        pytest.raises((TransactionAborted, ConnectionLost)),
        colour.using(db.shard(1).transaction()) as tx,
    ):
        colour(tx.execute(INSERT, (1,)))
        world.set_row(1, status="inactive")
        assert until(colour, lambda: sessions(world, config) == 0)
    assert users(world, 1) == []


@pytest.mark.parametrize("what", ["close", "exit"])
def test_a_hook_that_closes_its_service_or_wants_to_exit(
    open_service: Any, colour: Any, world: Any, what: str
) -> None:
    db = open_service(refresh_interval=0.1)
    told: List[Any] = []

    def hook(event: Any) -> Any:
        told.append(event)
        if what == "exit":
            raise SystemExit
        return db.close_service() if len(told) == 1 else None

    db.on("shard_added", hook)
    world.set_row(3)
    assert until(colour, lambda: told)
    if what == "exit":
        world.set_row(4)
        assert until(colour, lambda: len(told) == 2)
        return
    assert until(colour, lambda: db.global_client is None)
    colour(db.init_service())
    world.set_row(4)
    assert until(colour, lambda: db.get_shard_client(4) is not None), (
        "the background is there again"
    )


def test_a_hook_may_wait_for_what_needs_the_service_alone(
    still: Any, colour: Any, world: Any
) -> None:
    if colour.name == "sync":
        still.on("shard_added", lambda event: still.refresh())
    else:

        async def hook(event: Any) -> None:
            await asyncio.gather(still.refresh(), still.refresh())

        still.on("shard_added", hook)
    world.set_row(3)
    colour(still.refresh())
    assert colour(still.shard(3).query_value("SELECT 3")) == 3


def test_a_readonly_shard_takes_no_marker_and_lends_no_cursor(
    still: Any, colour: Any, world: Any
) -> None:
    world.set_row(1, status="readonly")
    colour(still.refresh())
    with pytest.raises(ShardReadOnly), colour.using(still.shard(1).transaction(commit_marker=True)):
        raise AssertionError("entered")
    with colour.using(still.shard(1).transaction()) as tx, pytest.raises(ShardReadOnly):
        tx.cursor()
