"""A block in which ``db.current`` is one session's database."""

from contextvars import ContextVar, Token
from typing import Any, Callable, Generic, Optional, Tuple

from .. import errors
from ..execution import steps
from .identity import database_name
from .typevars import TargetT


class BaseScope(Generic[TargetT]):
    """A block with a current database; see ``scope``. For one block at a time."""

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
        #: Between the beginning and the end of the block, whoever asks.
        self.open = False

    def shard_id(self) -> Optional[int]:
        """The shard of the scope; the last one known where it must be asked for."""
        try:
            self._last = self._identify()
        except errors.RoutingError:
            pass
        return self._last

    def _prepare(self) -> steps.Plan[None]:
        """What is asked before the block begins."""
        if self.open:
            raise errors.InterfaceError("a scope is for one block at a time: ask for another")
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
            # Left in another context than it was entered in, which the end above makes
            # known to both.
            pass


_scopes: "ContextVar[Tuple[BaseScope[Any], ...]]" = ContextVar("dualdb_scopes", default=())


def current(service: object) -> "BaseScope[Any]":
    """The innermost scope of this service that the caller is in.

    Raises:
        InterfaceError: There is none.
    """
    found = [each for each in _scopes.get() if each.service is service]
    for each in reversed(found):
        if each.open:
            return each
    if found:
        raise errors.InterfaceError("the scope that this was begun in is over")
    raise errors.InterfaceError(
        "there is no scope here: db.current is for code inside `with db.scope(...)`, "
        "in the same task, or in a thread that was given a copy of its context"
    )


def check_lock(service: object, shard_id: int) -> None:
    """Refuse a call to another shard than that of a locked scope.

    Raises:
        CrossShardError: It is another.
    """
    for scope in _scopes.get():
        if scope.lock and scope.open and scope.service is service:
            locked = scope.shard_id()
            if locked != shard_id:
                raise errors.CrossShardError(
                    f"shard {shard_id} is another database than {database_name(locked)}, "
                    "which the scope around this is locked to"
                ).with_context(f"shard {shard_id}", shard_id, sent=False)
