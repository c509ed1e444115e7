"""Metrics that are made of events."""

from typing import Dict, Tuple

from dualdb import CoordinationEvent
from dualdb.observability.events import COORDINATION_EVENTS
from dualdb.observability.metrics import FIGURES, CoordinationRecorder, Labels


def values(recorder: CoordinationRecorder) -> Dict[Tuple[str, Labels], float]:
    found: Dict[Tuple[str, Labels], float] = {}
    for metric in recorder.metrics():
        for labels, value in metric.values.items():
            assert isinstance(value, float)
            found[metric.name, labels] = value
    return found


def test_each_event_has_a_figure_and_each_figure_its_own_name() -> None:
    assert set(FIGURES) == set(COORDINATION_EVENTS)
    names = [figure.name for figures in FIGURES.values() for figure in figures]
    assert len(names) == len(set(names)) > 10


def test_a_gauge_is_the_last_value_and_a_counter_the_sum() -> None:
    recorder = CoordinationRecorder()
    shard: Labels = (("target", "shard 1"),)
    for number in (3, 1, 0):
        recorder.add(CoordinationEvent("xa_in_doubt", "shard 1", 1, number))
        recorder.add(CoordinationEvent("outbox_delivered", "shard 1", 1, number))
    recorder.add(CoordinationEvent("outbox_lag", "shard 1", 1, 7, 12.5))
    for seconds in (0.25, 0.5):
        recorder.add(CoordinationEvent("move_fenced", "shard 1", 1, seconds=seconds))
    recorder.add(CoordinationEvent("move_finished", "shard 1", 1, detail="done"))
    assert values(recorder) == {
        ("dualdb.xa.in_doubt", shard): 0.0,
        ("dualdb.outbox.delivered", shard): 4.0,
        ("dualdb.outbox.lag", shard): 12.5,
        ("dualdb.outbox.pending", shard): 7.0,
        ("dualdb.moves.switched", shard): 2.0,
        ("dualdb.moves.fenced_time", shard): 0.75,
        ("dualdb.moves.finished", (("state", "done"),)): 1.0,
    }


def test_no_label_is_a_key() -> None:
    recorder = CoordinationRecorder()
    for name in COORDINATION_EVENTS:
        recorder.add(CoordinationEvent(name, "shard 1", 1, subject="canary", detail="copy"))
    assert "canary" not in repr(values(recorder))
