"""Reads from replicas of real servers: which serves them, which are left out, and what
they see.
"""

import asyncio
import json
import random
import re
import threading
from types import SimpleNamespace
from typing import Any, Callable, Dict, Generator, Iterator, List, Tuple

import pytest
from io_kinds import IO

from dualdb import (
    ConnectionFailed,
    Count,
    CrossShardError,
    DatabaseService,
    Error,
    Max,
    Min,
    ProgrammingError,
    ReadOnlyTargetError,
    ReplicaOptions,
    ShardUnavailable,
)
from dualdb.endpoints.gtid import parse_position
from dualdb.integrations import asgi, celery, wsgi
from dualdb.operations.places import Databases
from dualdb.operations.throttle import Limits, Throttle
from dualdb.sandbox import Sandbox
from dualdb.topology.replicas import REPLICA_DDL

pytestmark = pytest.mark.slow

PORT = "SELECT @@port"


class World:
    """A shard and the global database, each with two replicas."""

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox
        self.primary, *self.replicas = sandbox.members[1]
        (version,) = self.primary.run("SELECT VERSION() AS v")
        self.mariadb = "MariaDB" in version["v"]

    def prepare(self) -> None:
        """Bring every server back, and make the tables as they were."""
        for server in [*self.sandbox.members["global"], *self.sandbox.members[1]]:
            server.resume()
            if not server.is_running:
                server.start()
        for replica in [*self.replicas, *self.sandbox.members["global"][1:]]:
            replica.run(self.command("START"))
        self.sandbox.run(
            "global",
            REPLICA_DDL.format(table="table_shard_replica"),
            "DELETE FROM table_shard_replica",
            *[
                "INSERT INTO table_shard_replica (shard_id, host, port) "
                f"VALUES (1, '{each.host}', {each.port})"
                for each in self.replicas
            ],
        )
        self.sandbox.run(
            1,
            "DROP TABLE IF EXISTS written",
            "CREATE TABLE written (id INT AUTO_INCREMENT PRIMARY KEY, value INT NOT NULL)",
            "DROP FUNCTION IF EXISTS writes",
            "CREATE FUNCTION writes(given INT) RETURNS INT DETERMINISTIC MODIFIES SQL DATA "
            "BEGIN INSERT INTO written (value) VALUES (given); RETURN given; END",
        )
        self.sandbox.wait_synced(1)
        self.sandbox.wait_synced("global")

    def command(self, verb: str) -> str:
        """The statement that stops or starts the applier of a replica."""
        return f"{verb} {'SLAVE' if self.mariadb else 'REPLICA'} SQL_THREAD"

    @property
    def ports(self) -> List[int]:
        return [each.port for each in self.replicas]


@pytest.fixture(scope="module")
def sandbox(request: pytest.FixtureRequest) -> Iterator[Sandbox]:
    program = request.config.getoption("--server-program")
    with Sandbox(shards=1, replicas=2, program=program) as sandbox:
        yield sandbox


@pytest.fixture
def world(sandbox: Sandbox) -> World:
    made = World(sandbox)
    made.prepare()
    return made


@pytest.fixture
def opened(world: World, io: IO) -> Iterator[Callable[..., Any]]:
    """A function that opens a service with options for its replicas."""
    services: List[Any] = []

    def open_one(config: Any = None, **options: Any) -> Any:
        service = io.Service(config or world.sandbox.config, replicas=ReplicaOptions(**options))
        services.append(service)
        io(service.init_service())
        io.wait_for(lambda: all(each.in_rotation for each in service.replicas()))
        return service

    yield open_one
    for service in services:
        io(service.close_service(timeout=1))


def ports(db: Any, io: IO, count: int = 40) -> Dict[int, int]:
    """How many reads each server served."""
    found: Dict[int, int] = {}
    for _ in range(count):
        port = io(db.shard(1).read.query_value(PORT))
        found[port] = found.get(port, 0) + 1
    return found


def test_reads_are_spread_over_the_replicas(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    for policy in ("least_in_flight", "round_robin", "weighted", "latency"):
        found = ports(opened(policy=policy), io)
        assert set(found) == set(world.ports), policy
    assert io(opened().shard(1).query_value(PORT)) == world.primary.port


def test_every_verb_that_reads(world: World, opened: Callable[..., Any], io: IO) -> None:
    read = opened().shard(1).read
    assert io(read.query(PORT))[0]["@@port"] in world.ports
    assert io(read.query_one(PORT))["@@port"] in world.ports
    assert io(read.query_column(PORT))[0] in world.ports
    assert io.collect(read.stream(PORT))[0]["@@port"] in world.ports
    assert (read.shard_id, read.name) == (1, "shard 1")
    shard = opened().shard(1)
    assert io(shard.query(PORT, role="replica"))[0]["@@port"] in world.ports
    assert io(shard.query_one(PORT, role="replica"))["@@port"] in world.ports
    assert io(shard.query_value(PORT, role="replica")) in world.ports
    assert io(shard.query_column(PORT, role="replica"))[0] in world.ports
    assert io.collect(shard.stream(PORT, role="replica"))[0]["@@port"] in world.ports
    with io.entered(read.transaction()) as tx:
        port = io(tx.query_value(PORT))
        assert port in world.ports
        assert {io(read.query_value(PORT)) for _ in range(5)} == {port}, "it takes part"


def test_the_replica_of_a_read_is_chosen_once(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    read = opened(policy="round_robin").shard(1).read.read
    assert {io(read.query_value(PORT)) for _ in range(4)} == set(world.ports)


@pytest.mark.parametrize("served_by", ["replica", "primary"])
def test_writes_are_refused_before_they_are_sent(
    world: World, opened: Callable[..., Any], io: IO, served_by: str
) -> None:
    db = opened()
    if served_by == "primary":
        world.sandbox.run("global", "DELETE FROM table_shard_replica")
        io(db.refresh())
    read = db.shard(1).read
    writes = (
        lambda: io(read.execute("INSERT INTO written (value) VALUES (1)")),
        lambda: io(read.query("SELECT writes(1)")),
        lambda: io(read.query("SELECT id FROM written FOR UPDATE")),
        lambda: io(read.query("WITH w AS (SELECT 1) INSERT INTO written SELECT 1, 1 FROM w")),
        lambda: io(read.call("anything")),
        lambda: io.collect(read.stream("SELECT writes(1)")),
        lambda: io(io.enter(read.connection())),
    )
    for write in writes:
        with pytest.raises(ReadOnlyTargetError) as caught:
            write()
        assert caught.value.sent is False
        assert caught.value.shard_id == 1
    with io.entered(read.transaction()) as tx:
        with pytest.raises(ReadOnlyTargetError):
            io(tx.execute("INSERT INTO written (value) VALUES (1)"))
        with pytest.raises(ReadOnlyTargetError):
            tx.cursor()
        assert io(tx.query_value("SELECT COUNT(*) FROM written")) == 0
    assert world.sandbox.run(1, "SELECT COUNT(*) AS n FROM written") == [{"n": 0}]


def test_a_read_only_block(world: World, opened: Callable[..., Any], io: IO) -> None:
    db = opened()

    def inside(tx: Any) -> Generator[Any, Any, None]:
        with db.read_only():
            with pytest.raises(ReadOnlyTargetError):
                yield tx.execute("INSERT INTO written (value) VALUES (1)")
            assert (yield tx.query_value(PORT)) == world.primary.port

    io.awaited(io.block(lambda: db.shard(1).transaction(), inside)())

    def delete(tx: Any) -> Any:
        return tx.execute("DELETE FROM written")

    def body(read_only: bool) -> Generator[Any, Any, None]:
        if not read_only:
            yield db.shard(1).execute("INSERT INTO written (value) VALUES (1)")
            return
        with db.read_only():
            calls: Tuple[Callable[[], Any], ...] = (
                lambda: db.execute("CREATE TABLE never (id INT)"),
                lambda: db.shard(1).execute("INSERT INTO written (value) VALUES (1)"),
                lambda: db.shards().execute("INSERT INTO written (value) VALUES (1)"),
                lambda: db.shard(1).run(delete),
            )
            for call in calls:
                with pytest.raises(Error) as caught:
                    yield call()
                assert "only reads are allowed" in str(caught.value)
            yield db.shard(1).read.query_value(PORT)

    io.awaited(io.function(body)(True))
    io.awaited(io.function(body)(False))
    assert world.sandbox.run(1, "SELECT COUNT(*) AS n FROM written") == [{"n": 1}]


def test_a_read_inside_a_transaction_is_part_of_it(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    shard = opened().shard(1)
    with io.entered(shard.transaction()):
        io(shard.execute("INSERT INTO written (value) VALUES (1)"))
        assert io(shard.read.query_value("SELECT COUNT(*) FROM written")) == 1
        with pytest.raises(ReadOnlyTargetError):
            io(shard.read.execute("DELETE FROM written"))


def test_a_replica_that_dies_is_left_out_until_it_is_back(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(policy="round_robin")
    dead, alive = world.replicas
    ports(db, io)
    dead.kill()
    assert set(ports(db, io)) == {alive.port}, "no caller sees an error"
    with io.entered(db.shard(1).read.transaction()) as tx:
        assert io(tx.query_value(PORT)) == alive.port
    dead.start()
    io.wait_for(lambda: all(each.in_rotation for each in db.replicas()))
    assert set(ports(db, io)) == set(world.ports)


def test_a_read_moves_when_its_replica_is_killed_under_it(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened()
    ports(db, io)
    for replica in world.replicas:
        threading.Timer(0.4, replica.kill).start()
        assert io(db.shard(1).read.query_value("SELECT SLEEP(0.8)", read_only=True)) == 0
        io.wait_for(lambda replica=replica: not replica.is_running)
    assert io(db.shard(1).read.query_value(PORT)) == world.primary.port


def test_without_a_replica_in_the_rotation(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    strict, lenient = opened(fallback=False), opened()
    for replica in world.replicas:
        replica.kill()
    assert io(lenient.shard(1).read.query_value(PORT)) == world.primary.port
    assert io.collect(lenient.shard(1).read.stream(PORT))
    for call in (strict.shard(1).read.query_value, strict.shard(1).read.query):
        with pytest.raises(ShardUnavailable, match="no replica is in the rotation"):
            io(call(PORT))


def test_the_replicas_of_the_global_database(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    members = world.sandbox.members["global"][1:]
    hosts = ", ".join([f"{each.host}:{each.port}" for each in members])
    config = type(world.sandbox.config)(
        **{**dict(world.sandbox.config), "replicas": hosts, "password": world.sandbox._password}
    )
    db = opened(config, fallback=False)
    assert {io(db.read.query_value(PORT)) for _ in range(20)} == {each.port for each in members}
    assert {each.shard_id for each in db.replicas()} == {None, 1}
    for each in members:
        each.kill()
    with pytest.raises(ConnectionFailed, match="no replica of the global database|refused"):
        io(db.read.query_value(PORT))
    assert io(db.query_value(PORT)) == world.sandbox.servers["global"].port


def test_rows_that_change(world: World, opened: Callable[..., Any], io: IO) -> None:
    db = opened()
    first, second = world.replicas
    run = world.sandbox.run
    run("global", f"UPDATE table_shard_replica SET status = 'inactive' WHERE port = {first.port}")
    io(db.refresh())
    assert set(ports(db, io)) == {second.port}
    run(
        "global",
        "DELETE FROM table_shard_replica",
        "INSERT INTO table_shard_replica (shard_id, host, port) VALUES "
        f"(1, '127.0.0.1:{first.port}, 127.0.0.1:{second.port}', 1), (99, 'x', 1), (1, '', 3306)",
    )
    io(db.refresh())
    assert set(ports(db, io)) == set(world.ports)
    run("global", "DROP TABLE table_shard_replica")
    io(db.refresh())
    assert db.replicas() == []
    assert set(ports(db, io)) == {world.primary.port}


def test_a_replica_that_lags_leaves_and_returns(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(max_lag=1.0)
    late, other = world.replicas
    late.run(world.command("STOP"))

    def has_left() -> bool:
        world.sandbox.run(1, "INSERT INTO written (value) VALUES (1)")
        return not all(each.in_rotation for each in db.replicas())

    io.wait_for(has_left)
    (status,) = [each for each in db.replicas() if not each.in_rotation]
    assert str(late.port) in status.address
    assert "behind" in str(status.reason)
    assert set(ports(db, io)) == {other.port}
    late.run(world.command("START"))
    io.wait_for(lambda: all(each.in_rotation for each in db.replicas()))
    assert set(ports(db, io)) == set(world.ports)


def test_a_move_would_wait_for_a_replica_that_lags(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened()  # which measures no lags itself
    databases = Databases(db)
    throttle = Throttle(databases, [databases.one(1)], Limits(max_lag=0.5))

    def why_wait() -> str:
        world.sandbox.run(1, "INSERT INTO written (value) VALUES (1)")
        why: str = io(db._run(throttle.why_wait()))
        return why

    world.sandbox.wait_synced(1)
    assert why_wait() == ""
    late = world.replicas[0]
    late.run(world.command("STOP"))
    assert re.fullmatch(r"replication is \d+\.\d s behind", io.wait_for(why_wait))
    late.run(world.command("START"))
    io.wait_for(lambda: not why_wait())
    late.pause()
    assert why_wait() == "", "one that does not answer is not waited for"
    late.resume()


# A second replica for slow reads.


@pytest.fixture
def one_is_slow(world: World) -> World:
    """The servers, of which the first replica takes its time."""
    slow = world.replicas[0].port
    world.sandbox.run(
        1,
        "DROP FUNCTION IF EXISTS slowly",
        "CREATE FUNCTION slowly() RETURNS INT DETERMINISTIC NO SQL "
        f"BEGIN RETURN IF(@@port = {slow}, SLEEP(1.5) + @@port, @@port); END",
    )
    world.sandbox.wait_synced(1)
    return world


def test_a_slow_replica_is_hedged_within_the_budget(
    one_is_slow: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(policy="round_robin", hedge=0.05)
    slow, quick = one_is_slow.ports
    reads = [io(db.shard(1).read.query_value("SELECT slowly()", read_only=True)) for _ in range(2)]
    assert sorted(reads) == sorted([slow, quick]), "nothing has been earned yet"
    for _ in range(20):
        io(db.shard(1).read.query_value("SELECT 1"))
    reads = [io(db.shard(1).read.query_value("SELECT slowly()", read_only=True)) for _ in range(2)]
    assert reads == [quick, quick]


def test_the_error_of_a_hedged_read(world: World, opened: Callable[..., Any], io: IO) -> None:
    db = opened(hedge=0.0)
    for _ in range(40):
        io(db.shard(1).read.query_value("SELECT 1"))
    with pytest.raises(ProgrammingError, match="nothing"):
        io(db.shard(1).read.query_value("SELECT id FROM nothing"))


# Several shards.


@pytest.fixture
def three(world: World) -> Iterator[World]:
    """Three shards on the servers of the first; the third has no replicas."""
    run = world.sandbox.run
    config = world.sandbox.config_of(1)
    columns = "host, port, username, password, status"
    names = {shard_id: f"{config.database}_{shard_id}" for shard_id in (2, 3)}
    for shard_id, name in names.items():
        run(
            1,
            f"DROP DATABASE IF EXISTS {name}",
            f"CREATE DATABASE {name}",
            f"CREATE TABLE {name}.written LIKE written",
            f"GRANT ALL ON {name}.* TO {config.user}@'%'",
        )
        run(
            "global",
            f"INSERT INTO table_shard_config (shard_id, database_name, {columns}) "
            f"SELECT {shard_id}, '{name}', {columns} FROM table_shard_config WHERE shard_id = 1",
        )
    run(
        "global",
        "INSERT INTO table_shard_replica (shard_id, host, port) "
        "SELECT 2, host, port FROM table_shard_replica",
    )
    world.sandbox.wait_synced(1)
    yield world
    run("global", "DELETE FROM table_shard_config WHERE shard_id > 1")
    run(1, *[f"DROP DATABASE {name}" for name in names.values()])


MOST = pytest.mark.parametrize("most", [1, 2, 16])


@MOST
def test_several_shards_are_read_on_their_replicas(
    three: World, opened: Callable[..., Any], io: IO, most: int
) -> None:
    db = opened(policy="round_robin")
    read = db.shards(max_concurrency=most).read
    primary, replicas = three.primary.port, three.ports

    def check(found: Dict[int, int]) -> None:
        assert found[1] in replicas
        assert found[2] in replicas
        assert found[3] == primary, "it has no replicas"

    for _ in range(3):
        check(io(read.query_value(PORT)).by_shard)
    check({key: rows[0]["@@port"] for key, rows in io(read.query(PORT)).by_shard.items()})
    check({key: row["@@port"] for key, row in io(read.query_one(PORT)).by_shard.items()})
    check({key: values[0] for key, values in io(read.query_column(PORT)).by_shard.items()})
    ports = f"{PORT} AS port"
    merged = [row["port"] for row in io.collect(read.merge(ports, order_by="port"))]
    assert sorted(merged) == merged
    assert merged.count(primary) == 1
    (total,) = io(read.aggregate(ports, n=Count(), low=Min("port"), high=Max("port")))
    assert total["n"] == 3
    assert {total["low"], total["high"]} <= {primary, *replicas}
    assert io(read.to_arrow(ports, shard_column="shard")).column("port").to_pylist()[2] == primary
    assert set(io(db.shards().query_value(PORT)).values) == {primary}


@MOST
def test_several_shards_are_not_written_by_their_reader(
    three: World, opened: Callable[..., Any], io: IO, most: int
) -> None:
    read = opened().shards(max_concurrency=most, on_error="partial").read
    for write in (
        lambda: io(read.query(INSERT)),
        lambda: io(read.query_one("SELECT writes(1)")),
        lambda: io(read.query_value("SELECT id FROM written FOR UPDATE")),
        lambda: io(read.query_column("DELETE FROM written RETURNING id")),
        lambda: io(read.call("anything")),
        lambda: io.collect(read.merge("SELECT writes(1) AS one", order_by="one")),
    ):
        with pytest.raises(ReadOnlyTargetError) as caught:
            write()
        assert caught.value.sent is False
    for name in ("execute", "transaction"):
        assert not hasattr(read, name)
    assert three.sandbox.run(1, "SELECT COUNT(*) AS n FROM written") == [{"n": 0}]


@MOST
def test_several_shards_while_replicas_die(
    three: World, opened: Callable[..., Any], io: IO, most: int
) -> None:
    strict, db = opened(fallback=False), opened(policy="round_robin")
    read = db.shards(max_concurrency=most).read
    io(read.query_value(PORT))
    dead, alive = three.replicas
    threading.Timer(0.3, dead.kill).start()
    slow = "SELECT IF(@@port IN (%s, %s), SLEEP(0.6), 0)"
    found = io(read.query_value(slow, (dead.port, alive.port), read_only=True))
    assert found.values == [0, 0, 0], "lost reads were moved"
    io.wait_for(lambda: not dead.is_running)
    for _ in range(4):
        found = io(read.query_value(PORT))
        assert found.by_shard == {1: alive.port, 2: alive.port, 3: three.primary.port}
    assert len(io.collect(read.merge(f"{PORT} AS port", order_by="port"))) == 3
    alive.kill()
    assert set(io(read.query_value(PORT)).values) == {three.primary.port}
    partial = strict.shards(max_concurrency=most, on_error="partial").read
    refused = io(partial.query_value(PORT))
    assert {type(error) for error in refused.errors.values()} == {ShardUnavailable}
    assert sorted(refused.errors) == [1, 2, 3]
    assert "it has none" in str(refused.errors[3])


@MOST
def test_several_shards_are_read_as_they_were_written(
    three: World, opened: Callable[..., Any], io: IO, most: int
) -> None:
    db = opened(causal_timeout=0.05)
    for replica in three.replicas:
        replica.run(three.command("STOP"))
    read = db.shards(max_concurrency=most).read

    def body() -> Generator[Any, Any, None]:
        with db.causal():
            yield db.shards().execute("INSERT INTO written (value) VALUES (7)")
            found = yield read.query_column("SELECT value FROM written")
            assert found.by_shard == {1: [7], 2: [7], 3: [7]}
            total = yield read.aggregate("SELECT value FROM written", n=Count())
            assert total == [{"n": 3}]
            merge = read.merge("SELECT value, @@port AS port FROM written", order_by="value")
            ports = set()
            for _ in range(3):
                ports.add((yield io.advance(merge))["port"])
            yield merge.close()
            assert ports == {three.primary.port}

    io.awaited(io.function(body)())
    assert io(read.query_column("SELECT value FROM written")).by_shard == {1: [], 2: [], 3: [7]}


def test_several_shards_inside_blocks(three: World, opened: Callable[..., Any], io: IO) -> None:
    db = opened()

    def body() -> Generator[Any, Any, None]:
        with db.read_only():
            found = yield db.shards().read.query_value(PORT)
            assert found.by_shard[1] in three.ports

    io.awaited(io.function(body)())
    for target in (db.shard(1), db.shard(1).read):
        with io.entered(target.transaction()), pytest.raises(CrossShardError):
            io(db.shards().read.query_value(PORT))


def test_the_shards_of_keys_are_read_on_their_replicas(
    three: World, opened: Callable[..., Any], io: IO
) -> None:
    with io.entered(io.Service(three.sandbox.config, shard_of_key=lambda key: key % 3 + 1)) as db:
        io.wait_for(lambda: len(db.replicas()) == 4 and all(e.in_rotation for e in db.replicas()))
        read = db.keys([0, 1, 2, 3]).read
        found = io(read.query_value("SELECT @@port + 0 * (1 IN %(keys)s)"))
        assert found.by_shard[3] == three.primary.port
        assert {found.by_shard[1], found.by_shard[2]} <= set(three.ports)
        with pytest.raises(ReadOnlyTargetError):
            io(read.query("DELETE FROM written WHERE id IN %(keys)s"))


def test_slow_reads_of_several_shards_are_hedged(
    three: World, one_is_slow: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(policy="round_robin", hedge=0.05)
    slow, quick = three.ports
    for _ in range(20):
        io(db.shards().read.query_value("SELECT 1"))
    ask = f"SELECT IF(@@port = {slow}, SLEEP(1.5) + @@port, @@port)"
    reads = [io(db.shards([1, 3]).read.query_value(ask, read_only=True)) for _ in range(2)]
    assert [each.by_shard for each in reads] == [{1: quick, 3: three.primary.port}] * 2


# Read-your-writes.


class Stopped(threading.Thread):
    """Replicas whose applier stands still for a random while, again and again."""

    def __init__(self, world: World, seed: int) -> None:
        super().__init__()
        self._world, self._random = world, random.Random(seed)
        self._end = threading.Event()

    def run(self) -> None:
        connections = [each.admin() for each in self._world.replicas]
        while not self._end.is_set():
            chosen = self._random.choice(connections)
            with chosen.cursor() as cursor:
                cursor.execute(self._world.command("STOP"))
                self._end.wait(self._random.uniform(0.0, 0.05))
                cursor.execute(self._world.command("START"))
            self._end.wait(self._random.uniform(0.0, 0.02))
        for each in connections:
            each.close()

    def __enter__(self) -> "Stopped":
        self.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._end.set()
        self.join()


@pytest.mark.parametrize("trials", [100, 1000])
def test_no_read_is_stale(
    world: World, opened: Callable[..., Any], io: IO, trials: int, seed: int
) -> None:
    writer, reader = opened(), opened(causal_timeout=0.03)
    served: Dict[int, int] = {}
    read = reader.shard(1).read

    def trial(value: int) -> Generator[Any, Any, bool]:
        with writer.causal() as block:
            target = writer.shard(1)
            if value % 3:
                yield target.execute("INSERT INTO written (value) VALUES (%s)", (value,))
            else:
                yield target.run(
                    lambda tx: tx.execute("INSERT INTO written (value) VALUES (%s)", (value,))
                )
        with reader.causal(block.token):
            row = yield read.query_one("SELECT MAX(value) AS last, @@port AS port FROM written")
        served[row["port"]] = served.get(row["port"], 0) + 1
        return bool(row["last"] == value)

    with Stopped(world, seed):
        fresh = [io.awaited(io.function(trial)(value)) for value in range(1, trials + 1)]
    assert fresh.count(False) == 0
    assert sum(served.get(port, 0) for port in world.ports) > trials / 10, served


def test_without_a_token_reads_are_stale(world: World, opened: Callable[..., Any], io: IO) -> None:
    db = opened()
    for replica in world.replicas:
        replica.run(world.command("STOP"))
    io(db.shard(1).execute("INSERT INTO written (value) VALUES (1)"))
    assert io(db.shard(1).read.query("SELECT id FROM written")) == []

    def body() -> Generator[Any, Any, Any]:
        with db.causal(db.causal_token(), timeout=0.1):
            return (yield db.shard(1).read.query("SELECT id FROM written"))

    assert len(io.awaited(io.function(body)())) == 1


@pytest.mark.parametrize(
    "write",
    ["SELECT writes(7)", "INSERT INTO written (value) VALUES (7) RETURNING id"],
)
def test_a_write_whose_position_is_not_reported(
    world: World, opened: Callable[..., Any], io: IO, write: str
) -> None:
    if not world.mariadb and "RETURNING" in write:
        write = "SELECT writes(8)"
    db = opened()
    for replica in world.replicas:
        replica.run(world.command("STOP"))

    def body() -> Generator[Any, Any, Any]:
        with db.causal():
            yield db.shard(1).query(write)
            return (yield db.shard(1).read.query_value("SELECT COUNT(*) FROM written"))

    assert io.awaited(io.function(body)()) == 1


def test_streams_and_transactions_wait_too(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(causal_timeout=20.0)
    for replica in world.replicas:
        replica.run(world.command("STOP"))
    io(db.shard(1).execute("INSERT INTO written (value) VALUES (1)"))
    token = db.causal_token()
    for replica in world.replicas:
        threading.Timer(0.3, replica.run, (world.command("START"),)).start()
    read = db.shard(1).read

    def count(tx: Any) -> Generator[Any, Any, Any]:
        return (yield tx.query_value("SELECT COUNT(*) FROM written"))

    def body() -> Generator[Any, Any, None]:
        with db.causal(token):
            stream = read.stream("SELECT value, @@port AS port FROM written")
            assert (yield io.advance(stream))["port"] in world.ports
            yield stream.close()
            assert (yield io.block(read.transaction, count)()) == 1

    io.awaited(io.function(body)())


def test_the_token_of_a_shard_is_what_its_primary_has(
    world: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened()
    io(db.shard(1).execute("INSERT INTO written (value) VALUES (1)"))
    position = db.get_shard_client(1).pool.writes.entry.position
    if world.mariadb:
        (known,) = world.primary.run("SELECT @@gtid_binlog_pos AS at")
        assert position == parse_position("mariadb_gtid", known["at"])
    else:
        (known,) = world.primary.run("SELECT @@global.gtid_executed AS at")
        executed = parse_position("gtid", known["at"])
        assert executed is not None
        assert executed.covers(position)
        ((_, ((_, last),)),) = position.sources.items()
        assert last == max(high for each in executed.sources.values() for _, high in each)


# Tokens that travel.

INSERT = "INSERT INTO written (value) VALUES (1)"
COUNT = "SELECT COUNT(*) FROM written"


@pytest.fixture
def stopped(world: World) -> World:
    """The servers, with replicas that apply nothing."""
    for replica in world.replicas:
        replica.run(world.command("STOP"))
    return world


def requests(headers: Dict[str, str]) -> List[Dict[str, str]]:
    """The headers of a client's next request, by those of the response to its last: as
    a browser sends a cookie, and as a service passes a header on.
    """
    assert headers["x-causal"]
    assert "HttpOnly" in headers["set-cookie"]
    assert "Secure" not in headers["set-cookie"]
    cookie = headers["set-cookie"].split(";")[0]
    return [{"x-causal": headers["x-causal"]}, {"cookie": f"a=b; {cookie}"}]


def ignored(headers: Dict[str, str]) -> None:
    """Nothing was written, so that the response has no token."""
    assert "x-causal" not in headers
    assert "set-cookie" not in headers


def test_tokens_in_headers_and_cookies_of_asgi(
    stopped: World, opened: Callable[..., Any], io: IO
) -> None:
    db = opened(causal_timeout=0.05)

    async def value(call: Callable[..., Any], sql: str) -> Any:
        return await (call(sql) if io.name == "async" else asyncio.to_thread(call, sql))

    async def application(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/write":
            await value(db.shard(1).execute, INSERT)
        body = str(await value(db.shard(1).read.query_value, COUNT)).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": body})

    wrapped = asgi.DatabaseMiddleware(
        application, db, causal_header="X-Causal", causal_cookie="causal"
    )

    async def request(path: str, headers: Dict[str, str]) -> Tuple[bytes, Dict[str, str]]:
        messages: List[Any] = []
        waiting = asyncio.Event()

        async def receive() -> Any:
            await waiting.wait()

        async def send(message: Any) -> None:
            messages.append(message)

        given = [(name.encode(), text.encode()) for name, text in headers.items()]
        scope = {"type": "http", "method": "GET", "path": path, "headers": given}
        await wrapped(scope, receive, send)
        start, body = messages
        return body["body"], {name.decode(): text.decode() for name, text in start["headers"]}

    def run(path: str, headers: Dict[str, str]) -> Any:
        if io.name == "async":
            return io(request(path, headers))
        return asyncio.run(request(path, headers))

    body, headers = run("/write", {})
    assert body == b"1", "in the same request"
    for following in requests(headers):
        assert run("/read", following)[0] == b"1"
    body, headers = run("/read", {"x-causal": "nonsense"})
    assert body == b"0", "stale: without a token"
    ignored(headers)


def test_tokens_in_headers_and_cookies_of_wsgi(stopped: World, opened: Callable[..., Any]) -> None:
    with DatabaseService(
        stopped.sandbox.config, replicas=ReplicaOptions(causal_timeout=0.05)
    ) as db:

        def application(environ: Any, start_response: Any) -> Any:
            if environ["PATH_INFO"] == "/write":
                db.shard(1).execute(INSERT)
            body = str(db.shard(1).read.query_value(COUNT)).encode()
            start_response("200 OK", [])
            return [body]

        wrapped = wsgi.DatabaseMiddleware(
            application, db, causal_header="X-Causal", causal_cookie="causal"
        )

        def run(path: str, headers: Dict[str, str]) -> Tuple[bytes, Dict[str, str]]:
            environ: Dict[str, Any] = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
            environ.update(
                {f"HTTP_{name.upper().replace('-', '_')}": text for name, text in headers.items()}
            )
            found: Dict[str, str] = {}

            def start_response(status: str, given: Any, exc_info: Any = None) -> Any:
                found.update({name.lower(): text for name, text in given})
                return lambda data: None

            return b"".join(wrapped(environ, start_response)), found

        body, headers = run("/write", {})
        assert body == b"1", "in the same request"
        for following in requests(headers):
            assert run("/read", following)[0] == b"1"
        body, headers = run("/read", {"x-causal": "nonsense"})
        assert body == b"0", "stale: without a token"
        ignored(headers)


def test_tokens_in_messages_of_celery(stopped: World, opened: Callable[..., Any], io: IO) -> None:
    sender = opened()
    message: Dict[str, Any] = {}
    with DatabaseService(
        stopped.sandbox.config, replicas=ReplicaOptions(causal_timeout=0.05)
    ) as worker:
        app: Any = SimpleNamespace()
        carrier = celery._Worker(app, worker, (sender,), carry_deadline=True)
        carrier.publish(message)
        assert message == {}, "nothing was written"
        io(sender.shard(1).execute(INSERT))
        carrier.publish(message)
        request = json.loads(json.dumps(message))
        task = SimpleNamespace(app=app, request=request)
        assert worker.shard(1).read.query_value(COUNT) == 0
        carrier.task_begins("1", task)
        assert worker.shard(1).read.query_value(COUNT) == 1
        carrier.task_ends("1")
        assert worker.shard(1).read.query_value(COUNT) == 0
