"""``with`` blocks of the caller's code: find their frames, and make sure that each
block ends.
"""

import contextlib
import functools
import inspect
import os
import sys
import weakref
from contextvars import ContextVar
from inspect import CO_ASYNC_GENERATOR, CO_GENERATOR
from types import FrameType
from typing import Any, Callable, Iterator, List, Optional, Tuple, TypeVar, cast

T = TypeVar("T")
FunctionT = TypeVar("FunctionT", bound=Callable[..., Any])

_PACKAGE = os.path.dirname(os.path.abspath(__file__)) + os.sep

#: Modules that resume a generator on behalf of a block of their caller.
BLOCK_MAKERS = frozenset({"contextlib", "_pytest.fixtures"})

_variables: List[Tuple["ContextVar[Any]", Any]] = []


def variable(name: str, default: T) -> "ContextVar[T]":
    """Make a context variable that has the blocks which its context is in.

    Args:
        name: Its name.
        default: Its value outside all blocks.
    """
    made: ContextVar[T] = ContextVar(name, default=default)
    _variables.append((made, default))
    return made


@contextlib.contextmanager
def outside_all() -> Iterator[None]:
    """A block of which the context is in none of the blocks around it.

    A web server may start the task of one request in the context of another, such as
    that of the request before on the same connection.
    """
    tokens = [(each, each.set(default)) for each, default in _variables]
    try:
        yield
    finally:
        for each, token in tokens:
            each.reset(token)


def user_frame(also: "frozenset[str]" = frozenset()) -> Optional[FrameType]:
    """Return the innermost frame outside this package.

    Args:
        also: Names of further modules whose frames are skipped.
    """
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None and (
        frame.f_code.co_filename.startswith(_PACKAGE) or frame.f_globals.get("__name__") in also
    ):
        frame = frame.f_back
    return frame


def suspendable(frame: Optional[FrameType]) -> Optional[FrameType]:
    """Return the generator that may be suspended inside a block entered by
    ``frame``.
    """
    while True:
        frame = _outside_block_makers(frame)
        if frame is None or not frame.f_code.co_flags & (CO_GENERATOR | CO_ASYNC_GENERATOR):
            return None
        driver = frame.f_back
        if _outside_block_makers(driver) is driver:
            return frame
        frame = driver


def _outside_block_makers(frame: Optional[FrameType]) -> Optional[FrameType]:
    while frame is not None and frame.f_globals.get("__name__") in BLOCK_MAKERS:
        frame = frame.f_back
    return frame


def runs(wanted: FrameType) -> bool:
    """Return whether a frame is on the current call stack."""
    frame: Optional[FrameType] = sys._getframe(1)
    while frame is not None and frame is not wanted:
        frame = frame.f_back
    return frame is not None


def current_place() -> str:
    """Return file and line of the calling code outside this package."""
    frame = user_frame()
    while frame is not None and frame.f_globals.get("__name__", "").startswith("asyncio."):
        frame = frame.f_back
    return "?" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


class EndedBlock:
    """Base of a context manager whose block ends although its ``__exit__`` or
    ``__aexit__`` is skipped; see ``ends_block``.
    """

    #: The coroutine of ``__aexit__``, weakly; None before it has begun.
    _leaving: Any = None

    @property
    def _entered(self) -> bool:
        """Its block has been entered."""
        raise NotImplementedError

    def _abandon(self) -> None:
        """Called for a block that was left without running the method."""
        raise NotImplementedError

    def _abandon_unless_leaving(self) -> None:
        if self._leaving is None:
            self._abandon()

    def _leave_in_task(self, function: Callable[..., Any], *exc_info: object) -> Any:
        """Watch the coroutine of ``__aexit__``, which ``async with`` holds at the
        end.
        """
        coroutine = function(self, *exc_info)
        try:
            self._leaving = weakref.ref(coroutine, lambda _: self._abandon())
            return coroutine
        except BaseException:
            self._leaving = None
            coroutine.close()
            raise


class _BlockEnd(functools.partial):  # type: ignore[type-arg]
    """The ``__exit__`` that a ``with`` statement holds until the block ends.

    A signal handler may raise at the first instruction of ``__exit__``, or between the
    return of ``__enter__`` and the block, where no ``try`` can catch it. The statement
    then drops this object, whose finaliser ends the block instead.
    """

    def __del__(self) -> None:
        self.args[0]._abandon_unless_leaving()


class _EndsBlock:
    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._awaited = inspect.iscoroutinefunction(function)
        functools.update_wrapper(self, function)  # type: ignore[arg-type]

    def __get__(self, manager: Any, owner: Optional[type] = None) -> Any:
        if manager is None:
            return self._function
        # A ``with`` statement loads it before it enters the block; a later access is
        # not the block's own.
        if manager._entered:
            return functools.partial(self._function, manager)
        if self._awaited:
            return _BlockEnd(EndedBlock._leave_in_task, manager, self._function)
        return _BlockEnd(self._function, manager)


def ends_block(function: FunctionT) -> FunctionT:
    """Decorate an ``__exit__`` or ``__aexit__`` of an EndedBlock that must not be
    skipped.
    """
    return cast(FunctionT, _EndsBlock(function))
