"""What an HTTP client is answered for an error."""

from types import SimpleNamespace
from typing import Any, Optional

import pymysql.err
import pytest

import dualdb
from dualdb import errors
from dualdb.integrations.http import error_answer


def aborted(cause: Optional[BaseException]) -> errors.Error:
    error = errors.TransactionAborted("gone")
    error.__cause__ = cause
    return error


def scatter(*found: errors.Error) -> errors.Error:
    error = errors.ScatterError("failed")
    error.result = SimpleNamespace(errors=dict(enumerate(found)))
    return error


def partial(error: errors.Error) -> errors.Error:
    error.partially_committed = True
    return error


UNAVAILABLE = errors.shard_unavailable(7, "it is in maintenance", 2.1)
DEADLOCK = errors.Deadlock(1213, "Deadlock found")


@pytest.mark.parametrize(
    ("error", "status", "retry_after"),
    [
        (UNAVAILABLE, 503, 3),
        (errors.shard_unavailable(7, "unknown"), 503, 1),
        (errors.ConnectionLost(2013, "Lost connection"), 503, 1),
        (errors.ConnectionFailed(1045, "Access denied"), 503, None),
        (errors.PoolTimeout("busy"), 429, 1),
        (errors.DeadlineExceeded("late").with_context(None, sent=False), 504, 1),
        (errors.DeadlineExceeded("late").with_context(None, sent=True), 504, None),
        (errors.WriteTimedOut("late"), 504, None),
        (DEADLOCK, 409, 1),
        (errors.IntegrityError(1062, "Duplicate entry"), 409, None),
        (errors.KeyNotFound("no shard"), 404, None),
        (aborted(DEADLOCK), 409, 1),
        (scatter(DEADLOCK, UNAVAILABLE), 503, 3),
    ],
)
def test_what_may_pass_has_a_status(error: Any, status: int, retry_after: Optional[int]) -> None:
    answer = error_answer(error)
    assert answer is not None
    assert (answer.status, answer.retry_after) == (status, retry_after)
    assert answer.headers.get("retry-after") == (None if retry_after is None else str(retry_after))


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        errors.ProgrammingError(1064, "You have an error in your SQL syntax"),
        errors.OutcomeUnknown(2013, "Lost connection"),
        errors.CrossShardError("another shard"),
        partial(errors.ConnectionLost(2013, "Lost connection")),
        aborted(None),
        scatter(DEADLOCK, errors.ProgrammingError(1064, "You have an error")),
    ],
)
def test_a_mistake_and_an_unknown_outcome_have_none(error: BaseException) -> None:
    assert error_answer(error) is None


def test_an_error_inside_one_of_another_package_is_found() -> None:
    sqlalchemy = pytest.importorskip("sqlalchemy", reason="needs dualdb[sqlalchemy]")
    raw = pymysql.err.OperationalError(1213, "Deadlock found")
    raw.sqlstate = "40001"
    for found in (raw, sqlalchemy.exc.OperationalError("SELECT 1", None, raw)):
        answer = error_answer(found)
        assert answer is not None
        assert (answer.status, answer.error, answer.retry_after) == (409, "Deadlock", 1)


def test_no_message_is_shown() -> None:
    answer = error_answer(dualdb.IntegrityError(1062, "Duplicate entry 'ann@example.com'"))
    assert answer is not None
    assert b"ann" not in answer.body
