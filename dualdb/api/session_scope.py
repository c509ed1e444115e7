"""Blocks with a current database, ``db.current``."""

from contextvars import ContextVar, Token
from typing import Any, Callable, Generic, Optional, Tuple

from .. import blocks, errors
from ..execution import steps
from .identity import database_name
from .typevars import TargetT


class BaseScope(Generic[TargetT]):
    """A block with a current database; see ``scope``. It is not reentrant.

    Args:
        service: The service.
        target: The current target inside the block.
        resolve: Makes the plan that finds the shard id when the block begins.
        identify: Returns the shard id without I/O.
        lock: Refuse calls to other shards inside the block.
    """

    def __init__(
        self,
        service: object,
        target: TargetT,
        resolve: Callable[[], steps.Plan[Optional[int]]],
        identify: Callable[[], Optional[int]],
        *,
        lock: bool,
    ) -> None:
        self.service = service
        self.target = target
        self.lock = lock
        self._resolve = resolve
        self._identify = identify
        self._last: Optional[int] = None
        self._token: Optional[Token[Tuple[Any, ...]]] = None
        #: True from the beginning to the end of the block, in every context.
        self.open = False

    def shard_id(self) -> Optional[int]:
        """Return the scope's shard id; the last known one if finding it needs I/O."""
        try:
            self._last = self._identify()
        except errors.RoutingError:
            pass
        return self._last

    def _prepare(self) -> steps.Plan[None]:
        """Find the shard before the block begins, and check it against outer locks."""
        if self.open:
            raise errors.InterfaceError(
                "a scope cannot be entered again while it is open: create another one"
            )
        self._last = yield from self._resolve()
        if self._last is not None:
            check_lock(self.service, self._last)

    def _enter(self) -> None:
        outer = tuple([each for each in _scopes.get() if each.open])
        self._token = _scopes.set((*outer, self))
        self.open = True

    def _exit(self) -> None:
        token = self._token
        self._token = None
        self.open = False
        assert token is not None
        try:
            _scopes.reset(token)
        except ValueError:
            # Exited in another context than it was entered in; ``open`` is False in
            # both.
            pass


_scopes: "ContextVar[Tuple[BaseScope[Any], ...]]" = blocks.variable("dualdb_scopes", ())


def current(service: object) -> "BaseScope[Any]":
    """Return the caller's innermost scope of a service.

    Raises:
        InterfaceError: There is none.
    """
    found = innermost(service)
    if found is not None:
        return found
    if any(each.service is service for each in _scopes.get()):
        raise errors.InterfaceError("the scope in which this task or thread was started has ended")
    raise errors.InterfaceError(
        "there is no scope here: db.current is for code inside `with db.scope(...)`, "
        "in the same task, or in a thread that runs in a copy of its context"
    )


def innermost(service: object) -> "Optional[BaseScope[Any]]":
    """Return the caller's innermost open scope of a service; None if there is none."""
    found = [each for each in _scopes.get() if each.service is service and each.open]
    return found[-1] if found else None


def check_lock(service: object, shard_id: int) -> None:
    """Check a call's shard against the locked scopes around it.

    Args:
        service: The service.
        shard_id: The shard of the call.

    Raises:
        CrossShardError: A scope is locked to another database.
    """
    for scope in _scopes.get():
        if scope.lock and scope.open and scope.service is service:
            locked = scope.shard_id()
            if locked != shard_id:
                raise errors.CrossShardError(
                    f"a call to shard {shard_id} inside a scope that is locked to "
                    f"{database_name(locked)}"
                ).with_context(f"shard {shard_id}", shard_id, sent=False)
