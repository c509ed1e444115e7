"""Finding out whether a transaction with a commit marker was committed."""

import logging
import time
from typing import Callable, List, Optional

from .. import deadlines, errors
from ..protocol.transaction_commands import marker
from ..results import ResultSet
from . import retry
from .execute import execute_statement
from .steps import Executor, Plan, Sleep, fixed_route

log = logging.getLogger("dualdb")


#: Seconds that are spent on finding out what became of a COMMIT, where no deadline says
#: less.
COMMIT_LOOKUP_TIMEOUT = 30.0


def resolve_commit_outcome(
    client: Executor,
    token: str,
    until: Optional[float] = None,
    clock: Callable[[], float] = time.monotonic,
) -> Plan[Optional[bool]]:
    """Whether the transaction that left this token was committed; None if that could
    not be found out.

    It is tried until ``until``, by the clock, or for ``COMMIT_LOOKUP_TIMEOUT`` seconds.
    """
    limit = clock() + COMMIT_LOOKUP_TIMEOUT
    for other in (until, deadlines.deadline_after()):
        limit = limit if other is None else min(limit, other)
    while clock() < limit:
        try:
            results: List[ResultSet] = yield from execute_statement(
                fixed_route(client), marker(token), limit, clock
            )
            return bool(results[0].rows)
        except errors.LockWaitTimeout:
            continue  # the server has not noticed yet that its client is gone
        except errors.Error as error:
            if not error.retryable or clock() >= limit:
                log.warning(
                    "%s: it could not be found out what became of a COMMIT: %s", client.name, error
                )
                return None
            yield Sleep(retry.backoff(1))
    return None
