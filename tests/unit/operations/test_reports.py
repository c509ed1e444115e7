"""What reports are as JSON."""

import dataclasses
import datetime
from typing import Dict, List, Tuple, Type

import pytest

import dualdb.coordination  # noqa: F401 - it has reports, too
from dualdb.operations.reports import DatabaseRun, MigrationRun, Report, State, time_text


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({}, "00:00:00"),
        ({"hours": 1, "seconds": 2}, "01:00:02"),
        ({"hours": 838, "minutes": 59, "seconds": 59}, "838:59:59"),
        ({"hours": -27, "seconds": -1, "microseconds": -500000}, "-27:00:01.500000"),
        ({"microseconds": -1}, "-00:00:00.000001"),
    ],
)
def test_a_time_is_written_as_mysql_does(fields: Dict[str, float], text: str) -> None:
    assert time_text(datetime.timedelta(**fields)) == text


def all_reports(base: Type[Report] = Report) -> List[Type[Report]]:
    """Every kind of report."""
    found = base.__subclasses__()
    return found + [each for kind in found for each in all_reports(kind)]


# A list of events is made otherwise.
WITH_OK = [each for each in all_reports() if hasattr(each, "ok") and not issubclass(each, list)]


def test_many_reports_say_whether_all_is_well() -> None:
    assert len(WITH_OK) > 10


@pytest.mark.parametrize("kind", WITH_OK, ids=lambda kind: str(kind.__name__))
@pytest.mark.parametrize("ok", [True, False])
def test_the_ok_of_a_report_is_in_its_document(
    kind: Type[Report], ok: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kind, "ok", property(lambda self: ok))
    empty = kind.__new__(kind)
    for field in dataclasses.fields(kind):
        object.__setattr__(empty, field.name, None)
    assert empty.to_dict()["ok"] is ok
    assert next(iter(empty.to_dict())) == "ok"


@pytest.mark.parametrize(
    ("states", "dry_run", "ok"),
    [
        ((State.DONE, State.DONE), False, True),
        ((State.DONE, State.NOT_BEGUN), False, False),
        ((State.NOT_BEGUN, State.NOT_BEGUN), True, True),
        ((State.FAILED, State.NOT_BEGUN), True, False),
        ((State.FAILED, State.DONE), False, False),
    ],
)
def test_a_run_of_migrations_is_not_ok_where_one_failed(
    states: Tuple[State, State], dry_run: bool, ok: bool
) -> None:
    databases = tuple(DatabaseRun(str(number), each) for number, each in enumerate(states))
    assert MigrationRun(databases, dry_run).ok is ok
