"""Determining whether a transaction with a commit marker was committed."""

import logging
import time
from typing import Callable, List, Optional

from .. import deadlines, errors
from ..observability.logs import about
from ..protocol.transaction_commands import marker
from ..results import ResultSet
from . import retry
from .detached import DetachedExecutor
from .execute import execute_statement
from .steps import Executor, Plan, Sleep, fixed_route

log = logging.getLogger("dualdb.transaction")


#: The most seconds that are spent on determining the outcome of a COMMIT.
COMMIT_LOOKUP_TIMEOUT = 30.0


def resolve_commit_outcome(
    client: Executor,
    token: str,
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Plan[Optional[bool]]:
    """Determine whether the transaction with this commit marker was committed.

    Args:
        client: The database of the transaction.
        token: The token of its commit marker.
        until: When to give up, by ``clock``; ``COMMIT_LOOKUP_TIMEOUT`` also applies.
        clock: Returns seconds.

    Returns:
        Whether it was committed; None if this could not be determined.
    """
    route = fixed_route(DetachedExecutor(client, refresh_on_miss=client.refresh_on_miss))
    limit = clock() + COMMIT_LOOKUP_TIMEOUT
    for other in (until, deadlines.deadline_after()):
        limit = limit if other is None else min(limit, other)
    while clock() < limit:
        try:
            results: List[ResultSet] = yield from execute_statement(
                route, marker(token), limit, clock
            )
            return bool(results[0].rows)
        except errors.LockWaitTimeout:
            continue  # the server has not yet detected the lost connection
        except errors.Error as error:
            if not error.retryable or clock() >= limit:
                log.warning(
                    "%s: the outcome of a COMMIT could not be determined: %s",
                    client.name,
                    error,
                    extra=about("commit_outcome_unknown", client),
                )
                return None
            yield Sleep(retry.backoff(1))
    return None
