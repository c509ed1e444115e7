"""Plans and exchanges that are run one step at a time.

Whoever performs the steps decides when: a runner performs one after the other, and the
poller of ``sync_impl.concurrency`` has one step of each of many on its way.
"""

from typing import Any, Callable, Generator, Generic, Optional, TypeVar

StepT = TypeVar("StepT")
ResultT = TypeVar("ResultT")


class Resumable(Generic[StepT, ResultT]):
    """A generator of steps, none of which is None.

    Args:
        generator: A plan, whose steps are of ``steps.Step``, or an exchange, whose
            steps are commands.

    Attributes:
        result: What the generator returned; there when ``advance`` or ``fail`` has
            returned None.

    Example:
        >>> def plan():
        ...     answer = yield "step"
        ...     return answer + 1
        >>> running = Resumable(plan())
        >>> running.advance(None), running.advance(1), running.result
        ('step', None, 2)
    """

    __slots__ = ("_generator", "result")

    result: ResultT

    def __init__(self, generator: Generator[StepT, Any, ResultT]) -> None:
        self._generator = generator

    def advance(self, value: object) -> Optional[StepT]:
        """Go on to the next step.

        Args:
            value: What the last step gave; None for the first call.

        Returns:
            The next step; None if there is none, and ``result`` is there.

        Raises:
            BaseException: What the generator ended with.
        """
        try:
            return self._generator.send(value)
        except StopIteration as done:
            self.result = done.value
            return None

    def fail(self, error: BaseException) -> Optional[StepT]:
        """Go on after the last step has failed.

        Args:
            error: What it raised.

        Returns:
            As ``advance``.

        Raises:
            BaseException: What the generator ended with; ``error`` where it handles
                no such error.
        """
        try:
            return self._generator.throw(error)
        except StopIteration as done:
            self.result = done.value
            return None
        except RuntimeError as changed:
            # A generator cannot raise the StopIteration thrown into it (PEP 479).
            if not isinstance(error, StopIteration) or changed.__cause__ is not error:
                raise
            raise error from error.__cause__
        finally:
            # Its traceback has this frame: what its callers hold would stay until the
            # next run of the garbage collector.
            del error

    def remaining(self, step: StepT) -> Generator[StepT, Any, ResultT]:
        """What is left of it, as a plan of its own.

        Args:
            step: The step that it has come to.
        """
        yield from self.run_until(lambda each: False, step)
        return self.result

    def run_until(
        self, stops: Callable[[StepT], bool], step: Optional[StepT] = None
    ) -> Generator[StepT, Any, Optional[StepT]]:
        """Go on, as a plan of its own, up to a step at which the caller stops.

        Args:
            stops: Says whether a step is not to be performed.
            step: The step that it has come to; None for one that has not begun.

        Returns:
            The step at which it has stopped; None if there is none, and ``result`` is
            there.
        """
        following = self.advance(None) if step is None else step
        while following is not None and not stops(following):
            try:
                value = yield following
            except BaseException as error:
                following = self.fail(error)
            else:
                following = self.advance(value)
        return following

    def close(self) -> None:
        """Give it up: nobody performs the step that it has come to."""
        self._generator.close()
