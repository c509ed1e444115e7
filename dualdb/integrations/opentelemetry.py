"""Spans and metrics for OpenTelemetry; needs the extra ``otel``.

Names and attributes are those of the semantic conventions for databases.
"""

import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from opentelemetry import metrics, propagate, trace
from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from ..api.service_life import AnyService
from ..config import DatabaseConfig
from ..observability.events import (
    COORDINATION_EVENTS,
    Event,
    EventName,
    Hook,
    PoolEvent,
    QueryEvent,
)
from ..observability.metrics import (
    BOUNDS,
    CoordinationRecorder,
    Distribution,
    Metric,
    state_metrics,
)
from ..observability.query_call import QueryCall

__all__ = ["Instrumentation", "instrument"]

_SPAN = "opentelemetry.span"


class _Server(NamedTuple):
    """Where a database is."""

    host: str
    port: int
    database: str


def instrument(
    service: AnyService,
    *,
    tracer_provider: Optional[TracerProvider] = None,
    meter_provider: Optional[MeterProvider] = None,
    system: str = "mysql",
    comment: bool = False,
) -> "Instrumentation":
    """Make a span for each call of a service, and metrics.

    A call to several shards has a span with a child for each shard. Spans have the
    statement without its values.

    Args:
        service: The service, of threads or of asyncio.
        tracer_provider: None for the global one.
        meter_provider: None for the global one.
        system: ``db.system.name``: "mysql" or "mariadb".
        comment: Append the trace context to each statement as a comment.

    Returns:
        The instrumentation, whose ``close`` ends it.

    Example:
        >>> instrumentation = instrument(db)
    """
    return Instrumentation(
        service,
        trace.get_tracer("dualdb", tracer_provider=tracer_provider),
        metrics.get_meter("dualdb", meter_provider=meter_provider),
        system=system,
        comment=comment,
    )


class Instrumentation:
    """The hooks of one service; see ``instrument``."""

    def __init__(
        self,
        service: AnyService,
        tracer: trace.Tracer,
        meter: metrics.Meter,
        *,
        system: str,
        comment: bool,
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._system = system
        self._comment = comment
        self._servers: Dict[Optional[int], _Server] = {}
        self._durations = _histogram(meter, "db.client.operation.duration", "Duration of calls")
        self._connects = _histogram(
            meter, "db.client.connection.create_time", "Duration of attempts to connect"
        )
        self._waits = _histogram(
            meter, "db.client.connection.wait_time", "How long callers waited for a connection"
        )
        self._retries = meter.create_counter("dualdb.retries", description="Repeated attempts")
        self._closed = False
        self._coordination = CoordinationRecorder()
        for source in (self._state_metrics, self._coordination.metrics):
            for metric in source():
                _observable(meter, metric.kind)(
                    metric.name,
                    callbacks=[_Callback(self, source, metric.name)],
                    unit=metric.unit or "{count}",
                    description=metric.description,
                )
        service.add_interceptor(self._begin)
        self._hooks: List[Tuple[EventName, Hook]] = [
            ("query", self._end),
            ("scatter", self._end),
            ("map_refreshed", self._forget_servers),
            ("connect", self._pool),
            ("pool_wait", self._pool),
            ("retry", self._pool),
            *[(name, self._coordination.add) for name in COORDINATION_EVENTS],
        ]
        for name, hook in self._hooks:
            service.on(name, hook)

    def close(self) -> None:
        """Stop making spans and metrics."""
        self._closed = True
        self._service.remove_interceptor(self._begin)
        for name, hook in self._hooks:
            self._service.off(name, hook)

    def observe(self, source: Callable[[], List[Metric]], name: str) -> Iterator[Observation]:
        """Return the present values of a metric of a source, for a callback."""
        if self._closed:
            return
        for metric in source():
            if metric.name == name:
                for labels, value in metric.values.items():
                    assert not isinstance(value, Distribution)
                    yield Observation(value, dict(labels))

    def _state_metrics(self) -> List[Metric]:
        return list(state_metrics(self._service.status()))

    def _begin(self, call: QueryCall) -> None:
        digest = call.digest
        summary = summary_of(digest.statement)
        parent: Optional[Span] = None if call.parent is None else call.parent.context.get(_SPAN)
        span = self._tracer.start_span(
            summary,
            None if parent is None else trace.set_span_in_context(parent),
            SpanKind.CLIENT,
            {
                "db.query.text": digest.statement,
                "db.query.summary": summary,
                "dualdb.digest": digest.id,
                **self._attributes(call),
            },
        )
        call.context[_SPAN] = span
        if self._comment and call.name == "query":
            propagate.inject(call.tags, trace.set_span_in_context(span))

    def _end(self, event: QueryEvent) -> None:
        attributes = self._attributes(event.call)
        if event.error is not None:
            attributes["error.type"] = type(event.error).__name__
            code = getattr(event.error, "errno", None)
            if code is not None:
                attributes["db.response.status_code"] = str(code)
        if event.name == "query":
            self._durations.record(event.seconds, attributes)
        span: Optional[Span] = event.call.context.pop(_SPAN, None)
        if span is None:
            return
        span.set_attributes(
            {
                **attributes,
                "dualdb.attempts": event.attempts,
                "dualdb.waited": event.waited,
                "dualdb.in_transaction": event.in_transaction,
            }
        )
        if event.rows is not None:
            span.set_attribute("db.response.returned_rows", event.rows)
        if event.error is not None:
            # not its text, which may have values
            span.set_status(StatusCode.ERROR, type(event.error).__name__)
        span.end()

    def _pool(self, event: PoolEvent) -> None:
        attributes = {"db.client.connection.pool.name": event.target}
        if event.error is not None:
            attributes["error.type"] = type(event.error).__name__
        if event.name == "connect":
            self._connects.record(event.seconds, attributes)
        elif event.name == "pool_wait":
            self._waits.record(event.seconds, attributes)
        else:
            self._retries.add(1, {**attributes, "what": event.detail or ""})

    def _attributes(self, call: QueryCall) -> Dict[str, Any]:
        operation = call.digest.statement.split(" ", 1)[0].upper()
        found: Dict[str, Any] = {"db.system.name": self._system, "db.operation.name": operation}
        if call.name == "scatter":
            return found
        if call.shard_id is not None:
            found["dualdb.shard_id"] = call.shard_id
        server = self._server(call.shard_id)
        if server is not None:
            found["server.address"] = server.host
            found["server.port"] = server.port
            found["db.namespace"] = server.database
        return found

    def _server(self, shard_id: Optional[int]) -> Optional[_Server]:
        if shard_id not in self._servers:
            self._servers = {
                key: _server_of(config) for key, config in self._service.shard_configs.items()
            }
            self._servers[None] = _server_of(self._service.global_config)
        return self._servers.get(shard_id)

    def _forget_servers(self, event: Event) -> None:
        self._servers = {}


def _server_of(config: DatabaseConfig) -> _Server:
    return _Server(config.host, config.port, config.database)


class _Callback:
    """Gives the values of one metric."""

    def __init__(
        self, instrumentation: Instrumentation, source: Callable[[], List[Metric]], name: str
    ) -> None:
        self._instrumentation = instrumentation
        self._source = source
        self._name = name

    def __call__(self, options: CallbackOptions) -> List[Observation]:
        return list(self._instrumentation.observe(self._source, self._name))


_TABLE = re.compile(r"\b(?:FROM|INTO|UPDATE|JOIN|TABLE|CALL)\s+([\w$.`]+)", re.I)


def summary_of(statement: str) -> str:
    """Return a short name of a statement: its first word and its first table.

    Example:
        >>> summary_of("SELECT a FROM trades WHERE b = ?")
        'SELECT trades'
    """
    word = statement.split(" ", 1)[0].upper() or "SQL"
    table = _TABLE.search(statement)
    return word if table is None else f"{word} {table[1].replace('`', '')}"


def _histogram(meter: metrics.Meter, name: str, description: str) -> metrics.Histogram:
    return meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=list(BOUNDS)
    )


def _observable(meter: metrics.Meter, kind: str) -> Any:
    if kind == "counter":
        return meter.create_observable_counter
    return meter.create_observable_gauge
