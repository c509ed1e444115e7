"""In which order databases are worked on, and when no further one is begun."""

import inspect
from typing import Any, Callable, Generic, List, Optional, Tuple, TypeVar, Union

from .. import errors
from ..execution import steps
from .places import Place

R = TypeVar("R")

#: What to do about a statement that may or may not have been performed.
DOUBTFUL = (
    "check it, and say doubtful='repeat' to perform it again, or doubtful='done' to take it as "
    "done (--doubtful on the command line)"
)


class Rollout(Generic[R]):
    """Work on several databases: a canary alone, then the others at the same time.

    Args:
        work: The work on one database; its errors are in what it gives.
        not_begun: What is reported of a database that was not begun.
        failed: Whether the work on a database failed.
        stop: Begin no further database after one that failed.
        progress: Called with what each database gave; in asyncio it may be a coroutine
            function.
    """

    def __init__(
        self,
        work: Callable[[Place], steps.Plan[R]],
        not_begun: Callable[[Place], R],
        failed: Callable[[R], bool],
        *,
        stop: bool = True,
        progress: Optional[Callable[[R], object]] = None,
    ) -> None:
        self._work = work
        self._not_begun = not_begun
        self._failed = failed
        self._stop = stop
        self._progress = progress
        self._stopped = False

    def run(
        self, places: List[Place], canary: Union[bool, int, str], max_concurrency: int
    ) -> steps.Plan[List[R]]:
        """Work on the databases. Gives what each gave, the canary's first."""
        if not isinstance(max_concurrency, int) or max_concurrency < 1:
            raise errors.ParameterError(
                f"max_concurrency must be a number from 1 up, not {max_concurrency!r}"
            )
        first, others = canary_first(places, canary)
        found = []
        for place in first:
            found.append((yield from self._one(place)))
            # nobody else is begun after a canary that failed, whatever was asked for
            self._stopped = self._stopped or self._failed(found[-1])
        members = tuple(steps.RunPlan(self._one(place)) for place in others)
        rest: List[Any] = (yield steps.Gather(members, max_concurrency)) if members else []
        for each in rest:
            if isinstance(each, Exception):
                raise each
        return [*found, *rest]

    def _one(self, place: Place) -> steps.Plan[R]:
        if self._stopped:
            return self._not_begun(place)
        result = yield from self._work(place)
        if self._failed(result) and self._stop:
            self._stopped = True
        yield from notify(self._progress, result)
        return result


def canary_first(
    places: List[Place], canary: Union[bool, int, str]
) -> Tuple[List[Place], List[Place]]:
    """The database that goes first, if one does, and the others.

    Raises:
        ParameterError: The canary is not one of the databases.
    """
    if canary is False:
        return [], places
    name = places[0].name if canary is True else str(canary)
    first = [place for place in places if place.name == name]
    if not first:
        raise errors.ParameterError(f"the canary {canary!r} is not one of the databases")
    return first, [place for place in places if place.name != name]


def notify(progress: Optional[Callable[[R], object]], value: R) -> steps.Plan[None]:
    """Call a function of the caller's, which may be a coroutine function."""
    answer = None if progress is None else progress(value)
    if inspect.isawaitable(answer):
        yield steps.AwaitUser(answer)


def message(error: BaseException) -> str:
    """What an error says, in a report."""
    return f"{type(error).__name__}: {error}"
