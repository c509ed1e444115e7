"""fork(): the child opens connections of its own and never touches its parent's."""

import asyncio
import gc
import json
import os
import signal
import threading
import traceback
import warnings
from typing import Any, Callable, List

import pytest
from database_servers import Databases
from io_kinds import IO
from waiting import wait_for

from dualdb import (
    AsyncMySQLClient,
    DatabaseService,
    LookupTable,
    MySQLClient,
    TransactionAborted,
)
from dualdb.async_impl.connection import Connection
from dualdb.sandbox import Sandbox


def in_child(work: Callable[[], Any]) -> str:
    """The repr of what the work gives in a forked child, or its traceback."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later: forking beside threads is what is tested
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(20)
            os.write(writer, repr(work()).encode())
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as file:
        written = file.read()
    os.waitpid(pid, 0)
    return written


def asked(io: IO, ask: Callable[[], Any]) -> Any:
    """What a call gives in a child: in asyncio, in a loop of the child's own."""
    return ask() if io.name == "sync" else asyncio.run(ask())


ID = "SELECT CONNECTION_ID()"


@pytest.mark.slow
def test_a_child_uses_connections_of_its_own(db: Any, io: IO) -> None:
    before = io(db.shard(1).query_value(ID)), io(db.query_value(ID))

    def work() -> Any:
        ids = [
            asked(io, lambda: db.shard(1).query_value(ID))
            for _ in range(2 if io.name == "sync" else 1)
        ]
        gc.collect()
        return ids

    written = in_child(work)
    theirs = json.loads(written)
    assert before[0] not in theirs
    assert len(set(theirs)) == 1, "and keeps them"
    assert (io(db.shard(1).query_value(ID)), io(db.query_value(ID))) == before, (
        "the parent's live on"
    )


def test_a_child_that_closes_the_service_leaves_its_parent_s_alone(db: Any, io: IO) -> None:
    before = io(db.query_value(ID))
    assert in_child(lambda: asked(io, db.close_service)) == "None"
    assert io(db.query_value(ID)) == before


def test_a_transaction_is_not_carried_over(db: Any, io: IO, databases: Databases) -> None:
    insert = "INSERT INTO trades (user_id, symbol, qty) VALUES (%s, 'A', 1)"
    with io.entered(db.shard(1).transaction()) as tx:
        io(tx.execute(insert, (1,)))

        def work() -> Any:
            try:
                asked(io, lambda: tx.execute(insert, (2,)))
            except Exception:
                try:
                    asked(
                        io,
                        lambda: io.leave(tx),
                    )
                except TransactionAborted as error:
                    return type(error).__name__
            return "committed"

        assert in_child(work) == "'TransactionAborted'"
        io(tx.execute(insert, (3,)))
    assert [
        row["user_id"] for row in databases.run(1, "SELECT user_id FROM trades ORDER BY user_id")
    ] == [1, 3]


def test_a_connect_goes_on_in_the_parent(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child must not touch the selector of the event loop, which it shares."""
    written: List[str] = []

    greeted = Connection._get_server_information

    async def fork_first(connection: Connection) -> None:
        written.append(in_child(lambda: gc.collect() >= 0))
        await greeted(connection)

    monkeypatch.setattr(Connection, "_get_server_information", fork_first)

    async def main() -> Any:
        client = AsyncMySQLClient(databases.config_of(1, connect_timeout=5.0))
        try:
            return await client.query_value("SELECT 7")
        finally:
            await client.close_pool()

    assert asyncio.run(main()) == 7
    assert written == ["True"]


@pytest.mark.slow
def test_forking_while_other_threads_are_at_work(databases: Databases) -> None:
    client = MySQLClient(databases.config_of(1, pool_size=4, max_overflow=0))
    halt = threading.Event()
    wrong = []

    def work(number: int) -> None:
        while not halt.is_set():
            found = client.query_value("SELECT %s", (number,))
            if found != number:
                wrong.append((number, found))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    try:
        written = [in_child(lambda: client.query_value("SELECT 'child'")) for _ in range(30)]
    finally:
        halt.set()
        for thread in threads:
            thread.join()
    client.close_pool()
    assert written == ["'child'"] * 30
    assert wrong == []


@pytest.mark.slow
def test_a_child_looks_out_for_shards_that_are_down_as_its_parent_did(quick_retries: None) -> None:
    with Sandbox(1) as sandbox:
        sandbox.servers[1].kill()
        with DatabaseService(sandbox.config) as db:

            def work() -> Any:
                wait_for(lambda: db.get_shard_client(1))
                return db.shard(1).query_value("SELECT 1")

            starting = threading.Timer(0.3, sandbox.servers[1].start)
            starting.start()
            assert in_child(work) == "1"
            starting.join()


def test_a_module_s_service_is_opened_first_after_the_fork(databases: Databases, io: IO) -> None:
    db = io.Service(databases.config)

    def work() -> Any:
        def body(opened: Any) -> Any:
            return (yield opened.shard(2).query_value("SELECT 2"))

        return asked(io, io.block(lambda: db, body))

    assert [in_child(work) for _ in range(2)] == ["2", "2"]


def test_a_transaction_in_a_child_says_whose_it_is(databases: Databases) -> None:
    with DatabaseService(databases.config) as db:
        with db.shard(1).transaction() as tx:
            for use in (lambda: tx.query("SELECT 1"), lambda: db.shard(1).query("SELECT 1")):
                assert f"belongs to process {os.getpid()}" in in_child(use)
            assert tx.query_value("SELECT 1") == 1


def test_a_child_makes_ids_under_a_number_of_its_own(databases: Databases) -> None:
    databases.run("global", "DROP TABLE IF EXISTS dualdb_worker")
    with DatabaseService(databases.config) as db:
        made = [db.ids.next(1) for _ in range(10)]
        written = in_child(lambda: [db.ids.next(1) for _ in range(10)])
        made += [db.ids.next(1) for _ in range(10)]
        workers = {db._ids.layout.unpack(each).worker for each in made}
    child = json.loads(written)
    assert len({*made, *child}) == 30
    assert len(workers) == 1
    assert not workers & {db._ids.layout.unpack(each).worker for each in child}
    databases.run("global", "DROP TABLE dualdb_worker")


def test_a_child_looks_keys_up_although_a_lookup_was_in_progress(databases: Databases) -> None:
    databases.run(
        "global",
        "CREATE TABLE homes (account_db_key BIGINT PRIMARY KEY, shard_id INT)",
        "INSERT INTO homes VALUES (7, 2)",
    )
    try:
        source = LookupTable("homes", placement="round_robin")
        with DatabaseService(databases.config, directory=source) as db:
            directory = db._directory
            assert directory is not None
            with directory.cache._lock, directory._rotation._lock, db._ids._lock:
                written = in_child(lambda: (db.shard_id_of(7), db.directory.assign(8)))
            assert written in ("(2, 1)", "(2, 2)")
    finally:
        databases.run("global", "DROP TABLE homes", "DROP TABLE IF EXISTS dualdb_worker")
