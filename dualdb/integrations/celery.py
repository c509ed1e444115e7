"""Celery tasks on one service, whatever the worker's pool."""

import contextlib
import logging
import time
from typing import TYPE_CHECKING, Any, Dict, Mapping, MutableMapping, Optional, Tuple, Type

from celery import Celery, signals

from .. import deadlines, errors
from ..api import session_scope
from ..api.interfaces import internals_of, route_of
from ..deadlines import Deadline
from ..results import ScatterResult
from ..sync_impl import DatabaseService
from ..topology.routing import SessionRoute

if TYPE_CHECKING:  # it imports asyncio's implementation, which few workers need
    from .asgi import Service

__all__ = ["RETRYABLE", "setup"]

log = logging.getLogger("dualdb.integrations")

#: For ``autoretry_for``: errors that may pass by waiting. Nothing of the call that
#: raised them was applied.
RETRYABLE: Tuple[Type[errors.Error], ...] = (
    errors.ClockMovedBack,
    errors.ConnectionFailed,
    errors.ConnectionLost,
    errors.Deadlock,
    errors.LockNotAvailable,
    errors.LockWaitTimeout,
    errors.NotPrimary,
    errors.NotReady,
    errors.Overloaded,
    errors.PoolTimeout,
    errors.ServiceNotOpen,
    errors.ShardUnavailable,
    errors.StaleMap,
    errors.TenantFenced,
    errors.TransactionAborted,
)

#: The header of a message that says in which blocks its sender was.
HEADER = "dualdb"


def setup(
    app: Celery, service: DatabaseService, *senders: "Service", carry_deadline: bool = True
) -> None:
    """Open a service in the workers of an application, and carry the sender's blocks to
    the tasks.

    Call it once in the module of the application, which senders and workers import. It
    opens nothing itself. Each process opens the service before its first task, with
    every pool (prefork, threads, solo, gevent), and closes it when it ends.

    A task that is sent inside ``db.scope`` runs in the same scope, and ``db.current``
    is the same database. One that is sent inside ``db.deadline`` has what is left of
    that time, by the clocks of both machines.

    What the senders' services had written before is visible to the reads of the task,
    also on replicas; see ``db.causal``.

    Errors reach the sender whole, with ``shard_id``, ``sent`` and their other
    attributes, in JSON results as well as in pickled ones.

    Args:
        app: The application.
        service: The service that its tasks use.
        senders: Other services whose scopes are carried, such as the
            AsyncDatabaseService of a web application that sends tasks.
        carry_deadline: Whether deadlines are carried.

    Example:
        >>> app = Celery("tasks", broker="redis://localhost")
        >>> db = DatabaseService(DatabaseConfig.from_env())
        >>> setup(app, db)
    """
    worker = _Worker(app, service, senders, carry_deadline=carry_deadline)
    # Celery holds receivers weakly, unless it is told otherwise.
    signals.worker_process_init.connect(worker.process_begins, weak=False)
    signals.worker_process_shutdown.connect(worker.process_ends, weak=False)
    signals.worker_shutdown.connect(worker.process_ends, weak=False)
    signals.before_task_publish.connect(worker.publish, weak=False)
    signals.task_prerun.connect(worker.task_begins, weak=False)
    signals.task_postrun.connect(worker.task_ends, weak=False)
    _keep_errors_whole(app)


class _Worker:
    """The receivers of Celery's signals for one application."""

    def __init__(
        self,
        app: Celery,
        service: DatabaseService,
        senders: Tuple["Service", ...],
        *,
        carry_deadline: bool,
    ) -> None:
        self._app = app
        self._service = service
        self._senders: Tuple[Service, ...] = (service, *senders)
        self._carry_deadline = carry_deadline
        self._blocks: Dict[str, contextlib.ExitStack] = {}

    def process_begins(self, **_: object) -> None:
        """Open the service, so that the first task need not wait for it."""
        self._blocks.clear()
        self._open()

    def process_ends(self, **_: object) -> None:
        """Close the service; its tasks have ended."""
        self._service.close_service()

    def _open(self) -> None:
        try:
            self._service.get_global_client()
        except errors.ServiceNotOpen:
            self._service.init_service()

    def publish(self, headers: Optional[MutableMapping[str, Any]] = None, **_: object) -> None:
        """Write the sender's blocks into a message."""
        blocks: Dict[str, Any] = {}
        for service in self._senders:
            scope = session_scope.innermost(service)
            if scope is not None:
                blocks["scope"] = _carried(scope)
                break
        at = deadlines.deadline_after()
        if at is not None and self._carry_deadline:
            blocks["deadline"] = time.time() + at - time.monotonic()
        tokens = [service.causal_token() for service in self._senders]
        if any(tokens):
            blocks["causal"] = [token for token in tokens if token]
        if blocks and headers is not None:
            headers[HEADER] = blocks

    def task_begins(self, task_id: str, task: Any, **_: object) -> None:
        """Open the service, and enter the blocks that the message has."""
        if task.app is not self._app:
            return
        self._open()
        carried: Mapping[str, Any] = task.request.get(HEADER) or {}
        stack = contextlib.ExitStack()
        deadline = carried.get("deadline")
        if deadline is not None:
            left = min(max(0.0, deadline - time.time()), deadlines.LONGEST)
            stack.enter_context(Deadline(left))
        for token in carried.get("causal", ()):
            with contextlib.suppress(errors.ParameterError):  # of another release
                stack.enter_context(self._service.causal(token))
        scope = carried.get("scope")
        if scope is not None:
            stack.enter_context(_scope(self._service, **scope))
        self._blocks[task_id] = stack

    def task_ends(self, task_id: str, **_: object) -> None:
        """Leave the blocks."""
        stack = self._blocks.pop(task_id, None)
        if stack is not None:
            stack.close()


def _carried(scope: "session_scope.BaseScope[Any]") -> Dict[str, Any]:
    """What says which database a scope has.

    A session's own shard id and not that of its database: the map of this process may
    not have a new shard yet, and take it for absent.
    """
    route = route_of(scope.target)
    if isinstance(route, SessionRoute):
        return {"shard_id": route.requested_shard(), "named": False, "lock": scope.lock}
    return {"shard_id": scope.shard_id(), "named": True, "lock": scope.lock}


def _scope(service: DatabaseService, *, shard_id: Optional[int], named: bool, lock: bool) -> Any:
    session = {"session": {"shard_id": shard_id}}
    if (
        named or internals_of(service).shard_of_session(session) != shard_id
    ):  # it reads another shape
        return service.scope(shard_id=shard_id, lock=lock)
    return service.scope(session, lock=lock)


# Errors in JSON results.


def _keep_errors_whole(app: Celery) -> None:
    """Have the result backend write the attributes of our errors beside their
    arguments.
    """
    make = app._get_backend

    def get_backend() -> Any:
        backend = make()
        base = type(backend)
        backend.__class__ = type(base.__name__, (_WholeErrors, base), {})
        return backend

    app._get_backend = get_backend


class _WholeErrors:
    """Added to the class of an application's result backend."""

    def prepare_exception(self, exc: object, serializer: Optional[str] = None) -> Any:
        prepared = super().prepare_exception(exc, serializer)  # type: ignore[misc]
        if isinstance(exc, errors.Error) and isinstance(prepared, dict):
            prepared["exc_state"] = self._state(exc)
        return prepared

    def _state(self, error: errors.Error) -> Dict[str, Any]:
        state: Dict[str, Any] = {}
        for name, value in vars(error).items():
            if isinstance(value, ScatterResult):
                found = {str(key): self.prepare_exception(e) for key, e in value.errors.items()}
                state["result"] = {"values": self._encodable(dict(value.by_shard)), "errors": found}
            elif name != "driver_error" and self._encodable(value) is not None:
                state[name] = value
        return state

    def _encodable(self, value: Any) -> Any:
        try:
            self.encode(value)  # type: ignore[attr-defined]
        except Exception:
            return None
        return value

    def exception_to_python(self, exc: object) -> Any:
        error = super().exception_to_python(exc)  # type: ignore[misc]
        if isinstance(error, errors.Error) and isinstance(exc, dict):
            state = exc.get("exc_state", {})
            vars(error).update({name: self._value(name, state[name]) for name in state})
        return error

    def _value(self, name: str, value: Any) -> Any:
        if name != "result":
            return tuple(value) if isinstance(value, list) else value
        found = {int(key): self.exception_to_python(e) for key, e in value["errors"].items()}
        values = {int(key): each for key, each in (value["values"] or {}).items()}
        return ScatterResult(values, found)
