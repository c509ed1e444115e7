"""Plans performed by threads."""

import contextlib
import inspect
import logging
import queue
import threading
import time
from typing import Any, Callable, Generator, List, Literal, Set, TypeVar

from .. import forks, plans

log = logging.getLogger("dualdb")

S = TypeVar("S")
T = TypeVar("T")


def drive(plan: Generator[S, Any, T], perform: Callable[[S], Any]) -> T:
    """Perform a plan (or hold a talk) step by step and give its result."""
    try:
        step = next(plan)
        while True:
            try:
                answer = perform(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


def perform(step: plans.Step) -> Any:
    """Perform one step; those of a service's background and of a pool are performed by them."""
    if isinstance(step, plans.Execute):
        return step.place._say(step.statement, step.until)
    if isinstance(step, plans.Next):
        return step.stream._read()
    if isinstance(step, plans.Sleep):
        return time.sleep(step.seconds)
    if isinstance(step, plans.Open):
        return step.client.pool.open(step.until)
    if isinstance(step, plans.CheckOut):
        return step.client.pool.checkout(step.until)
    if isinstance(step, plans.Close):
        for client in step.clients:
            client.pool.close()
        return None
    if isinstance(step, plans.Cut):
        for client in step.clients:
            cut = client.pool.cut()
            if cut:
                log.warning("%s: %d connections were still in use and have been cut", client.name, cut)
        return None
    if isinstance(step, plans.WaitEnded):
        for client in step.clients:
            client.pool.wait_ended(plans.PATIENCE)
        return None
    if isinstance(step, plans.Tidy):
        for client in step.clients:
            client.pool.tidy()
        return None
    if isinstance(step, plans.Perform):
        return drive(step.plan, perform)
    if isinstance(step, plans.Alone):
        return step.run(step.plan, step.wait)
    if isinstance(step, plans.Notify):
        for hook in step.calls:
            _notify(hook)
        return None
    if isinstance(step, plans.Gather):
        return _gather(step.steps, step.at_once)
    raise TypeError(f"nobody here performs {step!r}")


def _notify(hook: Callable[[], Any]) -> None:
    try:
        if inspect.iscoroutinefunction(hook):
            raise TypeError("a coroutine function is a hook for the asyncio service")
        hook()
    except (Exception, SystemExit):
        log.exception("the hook %r failed", hook)


def _gather(steps: "tuple[plans.Step, ...]", at_once: int) -> List[Any]:
    if len(steps) < 2 or at_once < 2:
        return [_attempt(step) for step in steps]
    answers: List[Any] = [None] * len(steps)
    left = iter(range(len(steps)))

    def work() -> None:
        for number in left:  # of a range, which gives each number to one thread
            try:
                answers[number] = _attempt(steps[number])
            except BaseException as error:
                answers[number] = error

    workers.do(work, min(len(steps), at_once))
    return answers


class Workers:
    """Daemon threads that stay for a while when they have done their work, because starting one takes longer than asking a server.

    Not an executor: its threads keep the process from ending while one of them waits for a host that does not answer.
    """

    STAY = 10.0

    def __init__(self) -> None:
        self._forked()
        forks.watch(self)

    def _forked(self) -> None:
        self._idle: List[queue.SimpleQueue[Any]] = []
        self._threads: Set[threading.Thread] = set()

    def do(self, work: Callable[[], None], times: int) -> None:
        """Have so many threads do the work, and wait until they have."""
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(times):
            try:
                self._idle.pop().put((work, done))
            except IndexError:
                thread = threading.Thread(target=self._serve, args=(work, done), name="dualdb-gather", daemon=True)
                self._threads.add(thread)
                thread.start()
        for _ in range(times):
            done.get()

    def dismiss(self) -> None:
        """End those that have nothing to do."""
        threads = list(self._threads)
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)
        for thread in threads:
            thread.join(0.1)

    def _serve(self, work: Callable[[], None], done: "queue.SimpleQueue[None]") -> None:
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        while True:
            work()
            self._idle.append(inbox)
            done.put(None)
            try:
                given = inbox.get(timeout=self.STAY)
            except queue.Empty:
                try:
                    self._idle.remove(inbox)
                    given = None
                except ValueError:  # something is given at the last moment
                    given = inbox.get()
            if given is None:
                break
            work, done = given
        self._threads.discard(threading.current_thread())


#: Of all services of the process.
workers = Workers()


def _attempt(step: plans.Step) -> Any:
    try:
        return perform(step)
    except Exception as error:
        return error


class _Halted(BaseException):
    """Thrown into a background plan when its service closes."""


class Background:
    """The plans that a service runs beside its callers, each in a daemon thread."""

    def __init__(self) -> None:
        self._halt = threading.Event()
        self._threads: Set[threading.Thread] = set()

    def spawn(self, plan: "plans.Plan[None]") -> None:
        thread = threading.Thread(target=self._work, args=(plan,), name="dualdb-background", daemon=True)
        self._threads.add(thread)
        thread.start()

    def halt(self) -> None:
        """Ends every plan at its next step. One that is in the middle of a connect ends by itself after it."""
        self._halt.set()
        for thread in list(self._threads):
            if thread is not threading.current_thread():  # a hook that closes its service: the plan ends when the hook has
                thread.join(1.0)
        self._halt = threading.Event()

    def _work(self, plan: "plans.Plan[None]") -> None:
        halt = self._halt

        def perform_or_halt(step: plans.Step) -> Any:
            if halt.wait(step.seconds if isinstance(step, plans.Sleep) else 0):
                raise _Halted
            return None if isinstance(step, plans.Sleep) else perform(step)

        try:
            drive(plan, perform_or_halt)
        except _Halted:
            pass
        except Exception:
            log.exception("a background plan failed")
        finally:
            self._threads.discard(threading.current_thread())


class Threads:
    """Mixed into whatever runs plans in the caller's thread."""

    _colour: Literal["threads"] = "threads"
    _awaits = False

    _owner = staticmethod(threading.current_thread)

    def _run(self, plan: "plans.Plan[Any]") -> Any:
        return drive(plan, perform)
