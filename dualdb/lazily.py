"""Attributes that are made when they are first used."""

from typing import Any, Callable, Generic, Optional, TypeVar

T = TypeVar("T")


class made_on_first_use(Generic[T]):
    """An attribute that its method makes when it is first used.

    Unlike ``functools.cached_property`` it is one object for all threads, each of which
    may make one at the same time, and takes no lock. Reading it again costs what any
    attribute costs.

    Args:
        make: Makes it.
        then: Called with it when all threads have it; what was done to the instance
            while it was made may have missed it.
    """

    def __init__(
        self, make: Callable[[Any], T], then: Optional[Callable[[Any, T], None]] = None
    ) -> None:
        self._make = make
        self._then = then
        self.__doc__ = make.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: Optional[type] = None) -> T:
        if instance is None:
            return self  # type: ignore[return-value]
        made: T = instance.__dict__.setdefault(self._name, self._make(instance))
        if self._then is not None:
            self._then(instance, made)
        return made
