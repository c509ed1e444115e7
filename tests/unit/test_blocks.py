"""Which blocks a context is in."""

import contextvars
import time

from dualdb import blocks, deadlines


def test_a_request_is_in_no_block_of_the_context_that_started_it() -> None:
    with deadlines.Deadline(100):
        inherited = contextvars.copy_context()
        with blocks.outside_all():
            assert deadlines.deadline_after() is None
            assert deadlines.deadline_after(1) is not None
        at = deadlines.deadline_after()
        assert at is not None
        assert at > time.monotonic()
    with blocks.outside_all():
        assert inherited.run(deadlines.deadline_after) == at


def test_every_kind_of_block_is_left() -> None:
    names = {each.name for each, _ in blocks._variables}
    assert {"dualdb_deadline", "dualdb_scopes", "dualdb_transactions"} <= names
