"""Spans and metrics, collected by OpenTelemetry's SDK."""

import subprocess
import sys
from typing import Any, Dict, Generator, Iterator, List

import pytest
from database_servers import Databases
from io_kinds import IO
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from dualdb import ProgrammingError, ScatterError
from dualdb.integrations.opentelemetry import instrument, summary_of

# Their events are those of the background.
pytestmark = pytest.mark.usefixtures("frequent_maintenance")

OWN_STATEMENT = "SELECT info FROM information_schema.processlist WHERE id = CONNECTION_ID()"


class Telemetry:
    """What was exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._exporter))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider(metric_readers=[self._reader])

    @property
    def spans(self) -> List[ReadableSpan]:
        return list(self._exporter.get_finished_spans())

    def metrics(self) -> Dict[str, List[Any]]:
        """The data points by name of the metric."""
        data = self._reader.get_metrics_data()
        assert data is not None
        return {
            metric.name: list(metric.data.data_points)
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


@pytest.fixture
def db(io: IO, databases: Databases, telemetry: Telemetry) -> Iterator[Any]:
    service = io.Service(databases.config, refresh_interval=None)
    with io.entered(service):
        instrument(
            service,
            tracer_provider=telemetry.tracers,
            meter_provider=telemetry.meters,
            comment=True,
        )
        yield service


def test_a_call_is_a_span_without_values(
    db: Any, io: IO, telemetry: Telemetry, databases: Databases
) -> None:
    def handle() -> Generator[Any, Any, Any]:
        with telemetry.tracers.get_tracer("app").start_as_current_span("request") as request:
            yield db.shard(1).query("SELECT user_id FROM trades WHERE symbol = %s", ("canary",))
            return request

    request = io(io.function(handle)())
    span = telemetry.spans[0]
    config = databases.config_of(1)
    assert (span.name, span.kind) == ("SELECT trades", SpanKind.CLIENT)
    assert dict(span.attributes or {}) == {
        "db.system.name": "mysql",
        "db.namespace": config.database,
        "db.operation.name": "SELECT",
        "db.query.summary": "SELECT trades",
        "db.query.text": "SELECT user_id FROM trades WHERE symbol = ?",
        "db.response.returned_rows": 0,
        "dualdb.attempts": 1,
        "dualdb.digest": dict(span.attributes or {})["dualdb.digest"],
        "dualdb.in_transaction": False,
        "dualdb.shard_id": 1,
        "dualdb.waited": dict(span.attributes or {})["dualdb.waited"],
        "server.address": config.host,
        "server.port": config.port,
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is not None
    assert span.parent.span_id == request.get_span_context().span_id
    assert "canary" not in span.to_json()


def test_a_scatter_is_a_span_with_a_child_for_each_shard(
    db: Any, io: IO, telemetry: Telemetry, databases: Databases
) -> None:
    other = databases.config_of(2).database
    fails = f"(SELECT 1 UNION SELECT IF(DATABASE() = '{other}', 2, 1))"
    with pytest.raises(ScatterError):
        io(db.shards().query(f"SELECT {fails} FROM trades RIGHT JOIN (SELECT 'canary') a ON 1"))
    *children, parent = telemetry.spans
    assert (parent.name, parent.parent, len(children)) == ("SELECT trades", None, 2)
    assert parent.context is not None
    by_shard = {dict(child.attributes or {})["dualdb.shard_id"]: child for child in children}
    for child in children:
        assert child.parent is not None
        assert child.parent.span_id == parent.context.span_id
        assert (child.start_time or 0) >= (parent.start_time or 0)
        assert (child.end_time or 0) <= (parent.end_time or 0)
    assert by_shard[1].status.status_code is StatusCode.UNSET
    failed = by_shard[2]
    assert failed.status.status_code is StatusCode.ERROR
    attributes = dict(failed.attributes or {})
    assert (attributes["error.type"], attributes["db.response.status_code"]) == (
        "OperationalError",
        "1242",
    )
    assert dict(parent.attributes or {})["error.type"] == "ScatterError"
    assert not any("canary" in span.to_json() for span in telemetry.spans)


def test_the_trace_is_in_the_statement(db: Any, io: IO, telemetry: Telemetry) -> None:
    sent = io(db.query_value(OWN_STATEMENT))
    context = telemetry.spans[0].context
    assert context is not None
    assert f"/*traceparent='00-{context.trace_id:032x}-{context.span_id:016x}-" in sent


def test_metrics_have_the_names_of_the_conventions(db: Any, io: IO, telemetry: Telemetry) -> None:
    io(db.shard(1).query("SELECT SLEEP(0.02)"))
    with pytest.raises(ProgrammingError):
        io(db.shard(1).query("SELECT * FROM absent"))
    found = telemetry.metrics()
    ok, failed = sorted(
        found["db.client.operation.duration"], key=lambda point: len(point.attributes)
    )
    assert (ok.count, failed.count) == (1, 1)
    assert ok.sum >= 0.02
    assert failed.attributes["error.type"] == "ProgrammingError"
    used = {
        (point.attributes["target"], point.attributes["state"]): point.value
        for point in found["db.client.connection.count"]
    }
    assert used["shard 1", "used"] == 0
    assert used["shard 1", "idle"] == 1
    assert "db.client.connection.pending_requests" in found


def test_coordination_is_counted(
    db: Any, io: IO, telemetry: Telemetry, databases: Databases
) -> None:
    databases.run(1, "DROP TABLE IF EXISTS dualdb_idempotency")

    def nothing(tx: Any) -> Generator[Any, Any, None]:
        yield tx.execute("DO 1")

    for _ in range(3):
        io(db.shard(1).run(io.function(nothing), idempotency_key="canary"))

    def hits() -> Any:
        return telemetry.metrics().get("dualdb.idempotency.hits")

    (point,) = io.wait_for(hits)
    io.wait_for(lambda: hits()[0].value == 2)
    assert dict(point.attributes) == {"target": "shard 1"}


def test_it_ends(io: IO, databases: Databases, telemetry: Telemetry) -> None:
    service = io.Service(databases.config, refresh_interval=None)
    with io.entered(service):
        made = instrument(
            service, tracer_provider=telemetry.tracers, meter_provider=telemetry.meters
        )
        io(service.query("SELECT 1"))
        made.close()
        io(service.query("SELECT 1"))
    assert len(telemetry.spans) == 1


@pytest.mark.parametrize(
    ("statement", "summary"),
    [
        ("SELECT a FROM `app`.`trades` WHERE b = ?", "SELECT app.trades"),
        ("insert into t (a) values (?)", "INSERT t"),
        ("UPDATE t SET a = ?", "UPDATE t"),
        ("CALL `p`", "CALL p"),
        ("SET @a = ?", "SET"),
        ("", "SQL"),
    ],
)
def test_the_name_of_a_span_is_short(statement: str, summary: str) -> None:
    assert summary_of(statement) == summary


@pytest.mark.slow
def test_without_it_nothing_is_imported() -> None:
    script = (
        "import sys, dualdb, dualdb.async_impl; "
        "found = {name.split('.')[0] for name in sys.modules}; "
        "sys.exit(str(found) if found & {'opentelemetry', 'prometheus_client'} else 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
