"""Metrics for Prometheus, read by its own parser."""

from typing import Any, Dict, Iterator, List, Tuple

import pytest
from database_servers import Databases
from io_kinds import IO
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics
from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families

from dualdb import PoolTimeout, ProgrammingError
from dualdb.integrations.prometheus import Collector

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

Samples = Dict[Tuple[str, Tuple[Tuple[str, str], ...]], float]


@pytest.fixture
def db(io: IO, databases: Databases) -> Iterator[Any]:
    small = databases.config.model_copy(
        update={"pool_size": 1, "max_overflow": 0, "pool_timeout": 0.2}
    )
    service = io.Service(small, refresh_interval=None, digests=True)
    with io.entered(service):
        yield service


@pytest.fixture
def registry(db: Any) -> CollectorRegistry:
    made = CollectorRegistry()
    made.register(Collector(db))
    return made


def samples(registry: CollectorRegistry) -> Samples:
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(found: Samples, name: str, **labels: str) -> float:
    return found[name, tuple(sorted(labels.items()))]


def test_calls_and_pools_are_counted(
    db: Any, io: IO, registry: CollectorRegistry, databases: Databases
) -> None:
    io(db.shard(1).query("SELECT SLEEP(0.02), 'canary'"))
    with pytest.raises(ProgrammingError):
        io(db.shard(1).query("SELECT 'canary' FROM absent"))
    with io.entered(db.shard(2).transaction()) as tx:
        io(tx.query("SELECT %s", ("canary",)))
        with pytest.raises(PoolTimeout):
            io.in_other_caller(lambda: db.shard(2).query("SELECT 1"))
        during = samples(registry)
    duration = "db_client_operation_duration_seconds"
    io.wait_for(
        lambda: (
            ("db_client_connection_wait_time_seconds_count", (("target", "shard 2"),))
            in samples(registry)
        )
    )
    found = samples(registry)
    assert value(found, f"{duration}_count", target="shard 1", error="") == 1
    assert value(found, f"{duration}_sum", target="shard 1", error="") >= 0.02
    assert value(found, f"{duration}_count", target="shard 1", error="ProgrammingError") == 1
    assert value(found, f"{duration}_bucket", target="shard 1", error="", le="0.01") == 0
    assert value(found, f"{duration}_bucket", target="shard 1", error="", le="+Inf") == 1
    pool = "db_client_connection"
    assert value(during, f"{pool}_count", target="shard 2", state="used") == 1
    assert value(found, f"{pool}_count", target="shard 2", state="used") == 0
    assert value(found, f"{pool}_count", target="shard 2", state="idle") == 1
    assert value(found, f"{pool}_max", target="global") == 1
    assert value(found, f"{pool}_timeouts_total", target="shard 2") == 1
    assert value(found, f"{pool}_wait_time_seconds_count", target="shard 2") == 1
    transactions = "dualdb_transaction_duration_seconds_count"
    assert value(found, transactions, target="shard 2", outcome="committed") == 1
    assert value(found, "dualdb_shard_state", shard_id="1", state="active") == 1
    assert value(found, "dualdb_shard_state", shard_id="1", state="unreachable") == 0
    assert value(found, "dualdb_map_version") == db.status().version
    assert value(found, "dualdb_map_readable") == 1
    slowest = db.top(1)[0]
    assert value(found, "dualdb_statement_calls_total", digest=slowest.digest) == slowest.calls
    assert "canary" not in generate_latest(registry).decode()


def test_coordination_is_counted(
    db: Any, io: IO, registry: CollectorRegistry, databases: Databases
) -> None:
    databases.run(1, "DROP TABLE IF EXISTS dualdb_idempotency")
    for _ in range(3):
        io(db.shard(1).run(io.function(nothing), idempotency_key="canary"))
    name = "dualdb_idempotency_hits_total"
    io.wait_for(lambda: samples(registry).get((name, (("target", "shard 1"),))) == 2)
    assert "canary" not in generate_latest(registry).decode()


def nothing(tx: Any) -> Any:
    yield tx.execute("DO 1")


def test_the_text_is_openmetrics_too(db: Any, io: IO, registry: CollectorRegistry) -> None:
    io(db.shards().query("SELECT 1"))
    text: Any = openmetrics.generate_latest(registry)  # type: ignore[no-untyped-call]
    read: Any = openmetrics_parser.text_string_to_metric_families
    families = list(read(text.decode()))
    assert len(families) > 15
    assert all(family.documentation for family in families)


def test_the_number_of_series_does_not_depend_on_the_statements(
    db: Any, io: IO, registry: CollectorRegistry
) -> None:
    lines: List[int] = []
    for start in (0, 100):
        for number in range(start, start + 30):
            io(db.query(f"SELECT 1 AS column_{number}"))
        lines.append(generate_latest(registry).count(b"\n"))
    assert lines[0] == lines[1]


def test_a_service_that_is_not_open_has_metrics_as_well(io: IO, databases: Databases) -> None:
    service = io.Service(databases.config)
    registry = CollectorRegistry()
    collector = Collector(service)
    registry.register(collector)
    assert value(samples(registry), "dualdb_map_version") == 0
    with io.entered(service):
        io(service.query("SELECT 1"))
        collector.close()
        io(service.query("SELECT 1"))
    count = value(
        samples(registry), "db_client_operation_duration_seconds_count", target="global", error=""
    )
    assert count == 1
