"""Metrics for Prometheus; needs the extra ``prometheus``."""

from typing import Any, Dict, Iterable, Iterator, List, Tuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.registry import Collector as BaseCollector

from ..api.service_life import AnyService
from ..errors import InterfaceError
from ..observability.events import COORDINATION_EVENTS, EventName, Hook
from ..observability.metrics import (
    BOUNDS,
    HOOKS,
    CoordinationRecorder,
    Distribution,
    Metric,
    Recorder,
    digest_metrics,
    state_metrics,
)

__all__ = ["Collector"]

_FAMILIES: Dict[str, Any] = {
    "counter": CounterMetricFamily,
    "gauge": GaugeMetricFamily,
    "histogram": HistogramMetricFamily,
}


class Collector(BaseCollector):
    """Gives the metrics of a service to Prometheus at each scrape, without I/O.

    Histograms begin when it is made. Each process has metrics of its own.

    Args:
        service: The service, of threads or of asyncio.
        digests: The number of statements with metrics of their own, if the service was
            made with ``digests=True``. They are labelled by their digest.

    Example:
        >>> from prometheus_client import REGISTRY
        >>> REGISTRY.register(Collector(db))
    """

    def __init__(self, service: AnyService, *, digests: int = 20) -> None:
        self._service = service
        self._digests = digests
        self._recorder = Recorder()
        self._coordination = CoordinationRecorder()
        self._hooks: List[Tuple[EventName, Hook]] = [
            *[(event, getattr(self._recorder, method)) for event, method in HOOKS],
            *[(event, self._coordination.add) for event in COORDINATION_EVENTS],
        ]
        for event, hook in self._hooks:
            service.on(event, hook)

    def close(self) -> None:
        """Stop counting."""
        for event, hook in self._hooks:
            self._service.off(event, hook)

    def collect(self) -> Iterable[Family]:
        """Return the metrics; called by a registry."""
        return [_family(metric) for metric in self._metrics()]

    def _metrics(self) -> Iterator[Metric]:
        yield from self._recorder.metrics()
        yield from self._coordination.metrics()
        yield from state_metrics(self._service.status())
        try:
            yield from digest_metrics(self._service.top(self._digests))
        except InterfaceError:
            pass  # statements are not counted


def _family(metric: Metric) -> Family:
    unit = "seconds" if metric.unit == "s" else ""
    name = metric.name.replace(".", "_") + (f"_{unit}" if unit else "")
    label_names = next(iter(metric.values), ())
    family: Any = _FAMILIES[metric.kind](
        name, metric.description, labels=[label for label, _ in label_names]
    )
    for labels, value in metric.values.items():
        texts = [text for _, text in labels]
        if isinstance(value, Distribution):
            family.add_metric(texts, _cumulative(value), value.total)
        else:
            family.add_metric(texts, value)
    return family  # type: ignore[no-any-return]


def _cumulative(value: Distribution) -> List[Tuple[str, float]]:
    found = []
    count = 0
    for bound, number in zip([*map(str, BOUNDS), "+Inf"], value.counts):
        count += number
        found.append((bound, float(count)))
    return found
