"""The two implementations, as one test body sees them: it calls, and gets the value
whichever way the implementation makes it.
"""

import asyncio
import contextlib
import gc
import inspect
import os
import signal
import threading
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import (
    Any,
    Callable,
    ContextManager,
    Coroutine,
    Dict,
    Generator,
    Iterator,
    List,
    Optional,
    Sequence,
    Type,
    TypeVar,
)

import pytest
from waiting import wait_for

import dualdb
from dualdb import async_impl, sync_impl
from dualdb.deadlines import Deadline

T = TypeVar("T")


class IO(ABC):
    """One implementation. ``io(db.query(...))`` is the value of the call."""

    name: str
    Service: Any
    Client: Any
    Transaction: Any
    impl: Any

    @abstractmethod
    def __call__(self, answer: Any) -> Any:
        """The value of a call to the package."""

    @abstractmethod
    def awaited(self, answer: Any) -> Any:
        """The value of what is awaited in asyncio, and is there at once in threads."""

    @abstractmethod
    def entered(self, manager: Any) -> ContextManager[Any]:
        """The manager's block, as an ordinary ``with`` block."""

    @abstractmethod
    def deadline(self, seconds: float) -> ContextManager[Any]:
        """A block with a deadline."""

    @abstractmethod
    def concurrently(self, calls: Sequence[Callable[..., Any]]) -> List[Any]:
        """Make every call in a thread or task of its own; their values, or the
        exceptions they raised.
        """

    def in_other_caller(self, call: Callable[[], Any]) -> Any:
        """The value of a call made by another thread or task."""
        (outcome,) = self.concurrently([call])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    @abstractmethod
    def interrupted(self, call: Callable[[], Any], once: Optional[threading.Event] = None) -> None:
        """Make a call and break it off from outside while it waits: after a moment, or
        once something has happened.
        """

    @abstractmethod
    def function(self, body: Callable[..., Generator[Any, Any, T]]) -> Callable[..., Any]:
        """A function as a user of this implementation writes it, from a generator that
        yields calls to the package, or ``pause``, and is sent their values.
        """

    @abstractmethod
    def block(
        self, opened: Callable[[], Any], body: Callable[[Any], Generator[Any, Any, T]]
    ) -> Callable[[], Any]:
        """A function that enters what ``opened`` makes and runs a body, as that of
        ``function``, inside.
        """

    @abstractmethod
    def enter(self, manager: Any) -> Any:
        """The call that enters a context manager; not yet awaited."""

    @abstractmethod
    def leave(self, manager: Any) -> Any:
        """The call that leaves it without an error; not yet awaited."""

    @abstractmethod
    def advance(self, stream: Any) -> Any:
        """The call that takes the next row of a stream; not yet awaited."""

    @abstractmethod
    def pause(self, seconds: float) -> Any:
        """For the body of a ``function``: let time pass."""

    def next_row(self, stream: Any) -> Any:
        """The next row of a stream; StopIteration or StopAsyncIteration at its end."""
        return self(self.advance(stream))

    @abstractmethod
    def collect(self, stream: Any, most: int = 10**9) -> List[Any]:
        """The first rows of a stream, in a loop that is left then."""

    @abstractmethod
    def sleep(self, seconds: float) -> None:
        """Let time pass, in which tasks in the background go on."""

    def wait_for(
        self, condition: Callable[..., T], seconds: float = 20.0, *, every: float = 0.02
    ) -> T:
        """What the condition returns once that is true; AssertionError if it has not
        become true in time.
        """
        return wait_for(condition, seconds, every=every, sleep=self.sleep)

    def close_what_is_open(self) -> None:
        """Close what a test that failed has left open: its connections would be
        complained of in a later test, where they are collected.
        """
        for each in gc.get_objects():
            with contextlib.suppress(Exception):
                if type(each) is self.Service:
                    self(each.close_service(timeout=0))
                elif type(each) is self.Client and not each.pool.closed:
                    self(each.close_pool(timeout=0))

    @abstractmethod
    def close(self) -> None:
        """The end of a test: nothing may be left running."""


class SyncIO(IO):
    """Calls block and give their value."""

    name = "sync"
    Service = dualdb.DatabaseService
    Client = sync_impl.MySQLClient
    Transaction = sync_impl.Transaction
    impl = sync_impl

    def __call__(self, answer: Any) -> Any:
        assert not inspect.isawaitable(answer) or hasattr(answer, "__enter__"), (
            "of the other implementation"
        )
        return answer

    def awaited(self, answer: Any) -> Any:
        """The value of what is awaited in asyncio, and is there at once in threads."""
        return answer

    @contextlib.contextmanager
    def entered(self, manager: Any) -> Iterator[Any]:
        with manager as value:
            yield value

    def deadline(self, seconds: float) -> Any:
        """A block with a deadline."""
        return Deadline(seconds)

    def concurrently(self, calls: Sequence[Callable[..., Any]]) -> List[Any]:
        """Start every call in a thread of its own; their values, or the exceptions they
        raised.
        """
        with ThreadPoolExecutor(len(calls)) as executor:
            return [_outcome(future.result) for future in [executor.submit(call) for call in calls]]

    def interrupted(self, call: Callable[[], Any], once: Optional[threading.Event] = None) -> None:
        """Make a call and break into it from outside, as Ctrl-C or Celery's soft time
        limit does.
        """
        before = signal.signal(signal.SIGALRM, _interrupt)
        if once is None:
            signal.setitimer(signal.ITIMER_REAL, 0.2)
        else:
            threading.Thread(target=_alarm, args=(once,), daemon=True).start()
        try:
            with pytest.raises(Interrupted):
                call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def collect(self, stream: Any, most: int = 10**9) -> List[Any]:
        """The first rows of a stream, in a loop that is left then."""
        rows: List[Any] = []
        for row in stream:
            rows.append(row)
            if len(rows) >= most:
                break
        return rows

    def function(self, body: Callable[..., Generator[Any, Any, T]]) -> Callable[..., T]:
        def call(*args: Any) -> T:
            generator, value = body(*args), None
            while True:
                try:
                    value = generator.send(value)
                except StopIteration as done:
                    result: T = done.value
                    return result

        return call

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def block(
        self, opened: Callable[[], Any], body: Callable[[Any], Generator[Any, Any, T]]
    ) -> Callable[[], T]:
        def call() -> T:
            with opened() as value:
                return self.function(body)(value)

        return call

    def enter(self, manager: Any) -> Any:
        return manager.__enter__()

    def leave(self, manager: Any) -> Any:
        return manager.__exit__(None, None, None)

    def advance(self, stream: Any) -> Any:
        return next(stream)

    def sleep(self, seconds: float) -> None:
        threading.Event().wait(seconds)

    def close(self) -> None:
        pass


class AsyncIO(IO):
    """Calls give a coroutine.

    One task awaits all of a test's coroutines, so that they are one caller, as a web
    handler is.
    """

    name = "async"
    Service = dualdb.AsyncDatabaseService
    Client = async_impl.MySQLClient
    Transaction = async_impl.Transaction
    impl = async_impl

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._work: asyncio.Queue[Any] = self._in_loop(self._new_queue())
        self._caller = self.loop.create_task(self._await_all())

    def _in_loop(self, coroutine: Any) -> Any:
        return self.loop.run_until_complete(coroutine)

    async def _new_queue(self) -> Any:
        return asyncio.Queue()

    async def _await_all(self) -> None:
        while True:
            awaitable, future = await self._work.get()
            if awaitable is None:
                future.set_result(None)
                return
            try:
                future.set_result(await awaitable)
            except Exception as error:
                future.set_exception(error)
            finally:
                del awaitable, future

    def __call__(self, answer: Any) -> Any:
        assert answer is None or inspect.isawaitable(answer), "of the other implementation"
        future = self.loop.create_future()
        self._work.put_nowait((answer, future))
        return self._in_loop(future)

    awaited = __call__

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """A block with a deadline, entered and left by the task that awaits the test's
        coroutines.
        """
        block = Deadline(seconds)
        self(self._of(block.__enter__))
        try:
            yield
        finally:
            self(self._of(lambda: block.__exit__(None, None, None)))

    @staticmethod
    async def _of(call: Callable[[], Any]) -> None:
        call()

    @contextlib.contextmanager
    def entered(self, manager: Any) -> Iterator[Any]:
        value = self(manager.__aenter__())
        try:
            yield value
        except BaseException as error:
            if not self(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self(manager.__aexit__(None, None, None))

    def concurrently(self, calls: Sequence[Callable[..., Any]]) -> List[Any]:
        """Await every call in a task of its own; their values, or the exceptions they
        raised.
        """

        async def gather() -> List[Any]:
            async def one(call: Callable[..., Any]) -> Any:
                answer = call()
                return await answer if inspect.isawaitable(answer) else answer

            return await asyncio.gather(*[one(call) for call in calls], return_exceptions=True)

        result: List[Any] = self(gather())
        return result

    def interrupted(self, call: Callable[[], Any], once: Optional[threading.Event] = None) -> None:
        """Make a call and cancel it while it waits, as a time limit does."""

        async def cancel() -> None:
            task = asyncio.ensure_future(call())
            if once is None:
                await asyncio.sleep(0.2)
            else:
                await asyncio.get_running_loop().run_in_executor(None, once.wait, 60)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        self(cancel())

    def collect(self, stream: Any, most: int = 10**9) -> List[Any]:
        """The first rows of a stream, in a loop that is left then."""
        rows: List[Any] = []

        async def loop() -> None:
            async for row in stream:
                rows.append(row)
                if len(rows) >= most:
                    break

        self(loop())
        return rows

    def function(
        self, body: Callable[..., Generator[Any, Any, T]]
    ) -> Callable[..., Coroutine[Any, Any, T]]:
        async def task(*args: Any) -> T:
            generator = body(*args)
            resume: Callable[[], Any] = partial(generator.send, None)
            while True:
                try:
                    answer = resume()
                except StopIteration as done:
                    result: T = done.value
                    return result
                try:
                    value = await answer if inspect.isawaitable(answer) else answer
                except BaseException as error:
                    resume = partial(generator.throw, error)
                else:
                    resume = partial(generator.send, value)

        return task

    def pause(self, seconds: float) -> Any:
        return asyncio.sleep(seconds)

    def block(
        self, opened: Callable[[], Any], body: Callable[[Any], Generator[Any, Any, T]]
    ) -> Callable[[], Coroutine[Any, Any, T]]:
        async def task() -> T:
            async with opened() as value:
                return await self.function(body)(value)

        return task

    def enter(self, manager: Any) -> Any:
        return manager.__aenter__()

    def leave(self, manager: Any) -> Any:
        return manager.__aexit__(None, None, None)

    def advance(self, stream: Any) -> Any:
        return stream.__anext__()

    def sleep(self, seconds: float) -> None:
        self(asyncio.sleep(seconds))

    def close(self) -> None:
        self(None)
        self._in_loop(self._caller)
        left = asyncio.all_tasks(self.loop)
        if left:  # what ends by itself may need a moment
            _, left = self._in_loop(asyncio.wait(left, timeout=5.0))
        assert not left, f"tasks were left behind: {left}"
        self._in_loop(asyncio.sleep(0))
        self._in_loop(self.loop.shutdown_asyncgens())
        self.loop.close()


class Interrupted(BaseException):
    """What a signal handler raised."""


def _interrupt(*args: Any) -> None:
    raise Interrupted


def _alarm(once: threading.Event) -> None:
    if once.wait(60):
        os.kill(os.getpid(), signal.SIGALRM)


def _outcome(result: Callable[[], Any]) -> Any:
    try:
        return result()
    except BaseException as error:
        return error


IO_KINDS: Dict[str, Type[IO]] = {"sync": SyncIO, "async": AsyncIO}
