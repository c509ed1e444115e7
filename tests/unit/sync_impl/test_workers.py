"""The threads in which calls to several shards run."""

import contextvars
import weakref
from typing import Any, List

from dualdb.sync_impl.concurrency import Workers

request: contextvars.ContextVar[Any] = contextvars.ContextVar("request")


class Request:
    """Something that a caller has in its context."""


def _serve(workers: Workers, seen: List[int]) -> "weakref.ref[Request]":
    own = Request()
    request.set(own)
    workers.begin(lambda: seen.append(id(request.get())), 1)()
    assert seen[-1] == id(own)
    return weakref.ref(own)


def test_work_has_its_callers_context_which_no_idle_thread_keeps() -> None:
    workers = Workers()
    seen: List[int] = []
    requests = [contextvars.Context().run(_serve, workers, seen) for _ in range(3)]
    assert len(seen) == 3
    assert [each() for each in requests] == [None] * 3
    assert len(workers._threads) == 1
    workers.dismiss()
