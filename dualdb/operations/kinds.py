"""A method that is written once as a plan, and typed for threads and for asyncio."""

import functools
from typing import (
    Any,
    Callable,
    Coroutine,
    Generic,
    Literal,
    Optional,
    Protocol,
    TypeVar,
    Union,
    cast,
    overload,
)

from typing_extensions import Concatenate, ParamSpec

from ..api.interfaces import run_in
from ..execution import steps
from .places import Databases

P = ParamSpec("P")
T = TypeVar("T")

#: What calls give: their value in threads, a coroutine in asyncio.
KindT = TypeVar("KindT", bound=Union[Literal["threads"], Literal["tasks"]])

KindT_co = TypeVar("KindT_co", bound=Union[Literal["threads"], Literal["tasks"]], covariant=True)


class ServiceOf(Protocol[KindT_co]):
    """A service, as far as its kind goes."""

    @property
    def _io(self) -> KindT_co: ...


class Group(Generic[KindT]):
    """Operations of one service."""

    def __init__(self, databases: Databases) -> None:
        self._databases = databases

    def _run(self, plan: "steps.Plan[Any]") -> Any:
        return run_in(self._databases.service, plan)


class Operation(Generic[P, T]):
    """The type of a method that ``operation`` made."""

    @overload
    def __get__(self, instance: "Group[Literal['threads']]", owner: object) -> Callable[P, T]: ...

    @overload
    def __get__(
        self, instance: "Group[Literal['tasks']]", owner: object
    ) -> Callable[P, Coroutine[Any, Any, T]]: ...

    @overload
    def __get__(self, instance: None, owner: object) -> "Operation[P, T]": ...

    def __get__(self, instance: Optional[object], owner: object) -> object:
        raise NotImplementedError


def operation(plan: "Callable[Concatenate[Any, P], steps.Plan[T]]") -> Operation[P, T]:
    """Make a method that performs the plan the service's way."""

    @functools.wraps(plan)
    def perform(self: Any, *args: P.args, **kwargs: P.kwargs) -> Any:
        return self._run(plan(self, *args, **kwargs))

    return cast("Operation[P, T]", perform)
