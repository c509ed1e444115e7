"""The least privileges in docs/security.md are enough, with an account that has no
others.
"""

import json
from typing import Any, Callable, Iterator, List, Tuple

import pytest
from waiting import wait_for

from dualdb import (
    DatabaseConfig,
    DatabaseService,
    DeadlineExceeded,
    HashBuckets,
    LookupTable,
    MySQLClient,
    Out,
)
from dualdb.integrations.status_page import wsgi_app
from dualdb.operations import jobs
from dualdb.sandbox import Sandbox

pytestmark = pytest.mark.slow

TABLE = "app_shard_1.trades"
MARKERS = "app_shard_1.dualdb_commit"
RESULTS = "app_shard_1.dualdb_idempotency"
EVENTS = "app_shard_1.dualdb_outbox"
EVENT_KEYS = "app_shard_1.dualdb_outbox_key"
SHARD_TABLE = "app_global.table_shard_config"
Account = Callable[..., DatabaseConfig]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    with Sandbox(1) as made:
        made.run(
            1,
            "CREATE TABLE trades (id INT AUTO_INCREMENT PRIMARY KEY, quantity INT)",
            "INSERT INTO trades (quantity) VALUES (1)",
            "CREATE PROCEDURE next_number(IN a INT, OUT b INT) SET b = a + 1",
        )
        with DatabaseService(made.config) as db:
            db.outbox.create_tables()
        yield made


@pytest.fixture
def account(sandbox: Sandbox) -> Iterator[Account]:
    """Makes the configuration of an account that has been granted these and nothing
    else.
    """
    made: List[Tuple[Any, str]] = []

    def make(name: Any, *grants: str) -> DatabaseConfig:
        user = f"least_{len(made)}"
        made.append((name, user))
        sandbox.run(
            name,
            f"CREATE USER '{user}'@'%' IDENTIFIED BY 'x'",
            *[f"GRANT {grant} TO '{user}'@'%'" for grant in grants],
        )
        update = {"user": user, "password": "x"}
        return sandbox.config_of(name).model_copy(update=update)

    yield make
    for name, user in made:
        sandbox.run(name, f"DROP USER '{user}'@'%'")


def stream(client: MySQLClient) -> None:
    assert len(list(client.stream("SELECT quantity FROM trades"))) >= 1


def bulk(client: MySQLClient) -> None:
    rows = [(1,), (2,)]
    assert client.executemany("INSERT INTO trades (quantity) VALUES (%s)", rows) == 2


def transaction(client: MySQLClient) -> None:
    with client.transaction(isolation="READ COMMITTED", snapshot=True) as tx, tx.transaction():
        assert tx.query_value("SELECT COUNT(*) FROM trades") >= 1


def deadline(client: MySQLClient) -> None:
    with pytest.raises(DeadlineExceeded):
        client.query("SELECT SLEEP(60)", timeout=0.1)
    wait_for(lambda: client.stats().in_use == 0)  # the statement has been killed


def advisory_lock(client: MySQLClient) -> None:
    with client.lock("least", timeout=1) as lock:
        lock.check()


def procedure(client: MySQLClient) -> None:
    assert client.call("next_number", (1, Out("b"))).out == {"b": 2}
    client.call("next_number", (1, 5))


def commit_marker(client: MySQLClient) -> None:
    with client.transaction(commit_marker=True) as tx:
        tx.execute("INSERT INTO trades (quantity) VALUES (3)")
    assert client.query_value("SELECT COUNT(*) FROM dualdb_commit LOCK IN SHARE MODE") >= 1
    client.execute("DELETE FROM dualdb_commit WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000")


def idempotency_key(client: MySQLClient) -> None:
    for _ in range(2):
        assert client.run(lambda tx: tx.query_value("SELECT 7"), idempotency_key="least") == 7
    client.execute(f"DELETE FROM {RESULTS} WHERE expires_at < UTC_TIMESTAMP() LIMIT 1000")


def outbox_event(client: MySQLClient) -> None:
    with client.transaction() as tx:
        tx.outbox("least", {"id": 1})


def outbox_event_with_key(client: MySQLClient) -> None:
    for _ in range(2):
        with client.transaction() as tx:
            tx.outbox("least", {"id": 1}, key=7)


ON_A_SHARD = [
    (stream, [f"SELECT ON {TABLE}"]),
    (bulk, [f"INSERT ON {TABLE}"]),
    (transaction, [f"SELECT ON {TABLE}"]),
    (deadline, [f"SELECT ON {TABLE}"]),
    (advisory_lock, [f"SELECT ON {TABLE}"]),
    (procedure, ["EXECUTE ON PROCEDURE app_shard_1.next_number"]),
    (commit_marker, [f"INSERT ON {TABLE}", f"CREATE, SELECT, INSERT, DELETE ON {MARKERS}"]),
    (idempotency_key, [f"CREATE, SELECT, INSERT, UPDATE, DELETE ON {RESULTS}"]),
    (outbox_event, [f"INSERT ON {EVENTS}"]),
    (outbox_event_with_key, [f"INSERT ON {EVENTS}", f"SELECT, INSERT, UPDATE ON {EVENT_KEYS}"]),
]


@pytest.mark.parametrize(("feature", "grants"), ON_A_SHARD)
def test_what_a_feature_needs_on_a_shard(
    feature: Callable[[MySQLClient], None], grants: Tuple[str, ...], account: Account
) -> None:
    client = MySQLClient(account(1, *grants))
    try:
        feature(client)
    finally:
        client.close_pool(timeout=1.0)


def test_what_the_service_needs_on_its_table(sandbox: Sandbox, account: Account) -> None:
    with DatabaseService(account("global", f"SELECT ON {SHARD_TABLE}")) as db:
        assert db.get_active_shard_ids() == [1]
        assert db.health_check()["healthy"]
        assert db.health(deep=True).state == "ok"
    with DatabaseService(account("global", f"SELECT, INSERT ON {SHARD_TABLE}")) as db:
        row = sandbox.config_of(1)
        password = row.reveal_password()
        db.add_shard(
            2,
            host=row.host,
            port=row.port,
            database=row.database,
            user=row.user,
            password=password,
        )
    grants = f"SELECT, UPDATE (status) ON {SHARD_TABLE}"
    with DatabaseService(account("global", grants)) as db:
        db.set_shard_status(2, "readonly")
        assert db.drain_shard(2, timeout=1).aborted == 0
    with DatabaseService(account("global", f"SELECT, DELETE ON {SHARD_TABLE}")) as db:
        db.remove_shard(2)
        assert db.get_active_shard_ids() == [1]


def xa_transaction(db: DatabaseService) -> None:
    with db.shards([1]).transaction(mode="xa", global_=True) as tx:
        tx[1].execute("INSERT INTO trades (quantity) VALUES (5)")
        tx.global_.execute(f"INSERT INTO {MAPPING} (account_db_key, shard_id) VALUES (8, 1)")
    assert db.coordination.recover().ok


def consuming(db: DatabaseService) -> None:
    with db.shard(1).transaction() as tx:
        tx.outbox("least", {"id": 1}, key=7)
    topics: List[str] = []
    db.outbox.consume(lambda event: topics.append(event.topic), until_idle=True)
    assert "least" in topics


def assigning(db: DatabaseService) -> None:
    assert db.directory.assign(7) == 1
    db.directory.set(7, 1)
    assert db.key(7).shard_id == 1


def forgetting(db: DatabaseService) -> None:
    db.directory.forget(7)
    assert db.directory.get(7) is None


def aliases(db: DatabaseService) -> None:
    db.directory.set_alias("email", "ann@example.com", 7)
    assert db.directory.alias("email", "ann@example.com") == 7
    db.directory.remove_alias("email", "ann@example.com")


def made_tables(db: DatabaseService) -> None:
    db.directory.create_tables()


def buckets(db: DatabaseService) -> None:
    db.directory.create_tables()
    db.directory.set_bucket(0, 1)
    assert db.shard_id_of("ann") == 1


def ids(db: DatabaseService) -> None:
    assert db.ids.shard_of(db.ids.next(1)) == 1


def page(db: DatabaseService) -> None:
    """The status page shows the jobs."""
    environ: Any = {"REQUEST_METHOD": "GET", "PATH_INFO": "/status.json"}
    (body,) = wsgi_app(db)(environ, lambda *response: print)
    assert json.loads(body)["jobs_failure"] is None


MAPPING = "app_global.table_user_shard_mapping"
ALIASES = "app_global.dualdb_key_alias"
BUCKETS = "app_global.dualdb_bucket"
XA_GRANTS = [
    f"CREATE, SELECT, INSERT, UPDATE, DELETE ON app_global.dualdb_xa{suffix}"
    for suffix in ("", "_lease")
]
OUTBOX_GRANTS = [
    "SELECT, UPDATE, DELETE ON app_global.dualdb_outbox",
    "SELECT, DELETE ON app_global.dualdb_outbox_key",
    "SELECT, INSERT, UPDATE, DELETE ON app_global.dualdb_outbox_lease",
    "SELECT, INSERT, UPDATE, DELETE ON app_global.dualdb_outbox_retry",
]
IN_THE_GLOBAL_DATABASE = [
    (assigning, [f"SELECT, INSERT, UPDATE ON {MAPPING}"]),
    (forgetting, [f"SELECT, DELETE ON {MAPPING}"]),
    (aliases, [f"SELECT ON {MAPPING}", f"SELECT, INSERT, UPDATE, DELETE ON {ALIASES}"]),
    (made_tables, [f"CREATE ON {MAPPING}", f"CREATE ON {ALIASES}"]),
    (buckets, [f"CREATE, SELECT, INSERT, UPDATE ON {BUCKETS}", f"CREATE ON {ALIASES}"]),
    (xa_transaction, [f"INSERT ON {MAPPING}", *XA_GRANTS]),
    (consuming, OUTBOX_GRANTS),
    (page, ["SELECT ON app_global.dualdb_job"]),
    (ids, ["CREATE, SELECT, INSERT, UPDATE ON app_global.dualdb_worker"]),
]


@pytest.mark.parametrize(("feature", "grants"), IN_THE_GLOBAL_DATABASE)
def test_what_a_feature_needs_in_the_global_database(
    feature: Callable[[DatabaseService], None],
    grants: List[str],
    sandbox: Sandbox,
    account: Account,
) -> None:
    with DatabaseService(sandbox.config, directory=LookupTable()) as db:
        db.directory.create_tables()
    sandbox.run("global", jobs.DDL)
    config = account("global", f"SELECT ON {SHARD_TABLE}", *grants)
    directory = HashBuckets(64) if feature is buckets else LookupTable()
    with DatabaseService(config, directory=directory) as db:
        feature(db)
