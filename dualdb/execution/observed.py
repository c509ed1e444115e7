"""Calls that somebody observes: interceptors before, hooks after."""

import inspect
import time
from functools import lru_cache, partial
from typing import Any, Callable, Optional, Tuple, TypeVar, Union

from ..observability.events import QueryEvent, TransactionEvent
from ..observability.observers import Observers, log_failure, rows_of
from ..observability.query_call import ObservedCall
from ..protocol.statements import Call, Statement
from .steps import AwaitUser, CallHooks, Executor, Plan, Route

Sent = Union[Statement, Call]
SentT = TypeVar("SentT", bound=Sent)
Clock = Callable[[], float]


def observable(statement: Sent) -> bool:
    """Return whether a statement is a call's that is not observed yet."""
    return statement.observation is None and not statement.asks_packet_limit


def begin(
    executor: Executor,
    statement: SentT,
    clock: Clock = time.monotonic,
    parent: Optional[ObservedCall] = None,
) -> Tuple[ObservedCall, SentT]:
    """Return a call, and its statement to be executed in place of the given one.

    Args:
        executor: Its executor.
        statement: The statement or procedure call, which may be shared with others.
        clock: Returns seconds.
        parent: The call to several shards that it is part of.
    """
    call = ObservedCall(
        "query", executor.name, executor.shard_id, statement, began=clock(), parent=parent
    )
    watched = _copy(statement)
    watched.observation = call
    return call, watched


def found_route(executor: Executor, route: Route) -> Route:
    """Return a route that gives an executor which was found already, and after that
    whatever the original route gives.
    """
    found = [executor]

    def resolve(until: Optional[float] = None) -> Plan[Executor]:
        return found.pop() if found else (yield from route(until))

    return resolve


def intercept(observers: Observers, call: ObservedCall) -> Plan[None]:
    """Call the interceptors.

    Raises:
        BaseException: What an interceptor raised, to prevent the call.
    """
    for interceptor in observers.interceptors:
        pending = interceptor(call)
        if pending is not None and inspect.isawaitable(pending):
            if not observers.awaits:
                _close(pending)
                raise TypeError("a coroutine function is an interceptor for the asyncio service")
            yield AwaitUser(pending)


def finish(observers: Observers, event: Union[QueryEvent, TransactionEvent]) -> Plan[None]:
    """Call the hooks of a call or a transaction that has ended."""
    for hook in observers.hooks(event.name):
        try:
            pending = hook(event)
        except (Exception, SystemExit, GeneratorExit) as error:
            log_failure(partial(hook, event), error)
            continue
        if pending is not None and inspect.isawaitable(pending):
            yield CallHooks((partial(_same, hook, pending),))


def observe(
    observers: Observers, call: ObservedCall, plan: Plan[Any], clock: Clock = time.monotonic
) -> Plan[Any]:
    """Run the plan of a call, with its interceptors before and its hooks after it.

    Args:
        observers: The hooks and interceptors.
        call: The call.
        plan: Makes it.
        clock: Returns seconds.
    """
    try:
        yield from intercept(observers, call)
        result = yield from plan
    except GeneratorExit:
        raise  # the plan is given up, and must not yield a step
    except BaseException as error:
        yield from finish(observers, call.finished(clock(), None, error))
        raise
    yield from finish(observers, call.finished(clock(), rows_of(result), None))
    return result


@lru_cache(maxsize=32)
def _slots(cls: type) -> Tuple[str, ...]:
    return tuple([name for base in cls.__mro__ for name in getattr(base, "__slots__", ())])


def _copy(statement: SentT) -> SentT:
    """Do what copy.copy does, in a tenth of its time."""
    cls: Any = type(statement)
    copied: SentT = cls.__new__(cls)
    for name in _slots(cls):
        setattr(copied, name, getattr(statement, name))
    if hasattr(statement, "__dict__"):
        copied.__dict__.update(statement.__dict__)
    return copied


def _same(hook: object, pending: object) -> object:
    return pending


def _close(pending: object) -> None:
    close = getattr(pending, "close", None)
    if close is not None:
        close()
