"""Plans performed by threads."""

import inspect
import logging
import sys
import threading
import time
from typing import Any, Callable, Generator, Literal, Set, TypeVar

from .. import errors
from ..execution import shutdown, steps
from .concurrency import gather

log = logging.getLogger("dualdb")

S = TypeVar("S")
T = TypeVar("T")


def run_plan(plan: Generator[S, Any, T], run_step: Callable[[S], Any]) -> T:
    """Perform a plan (or hold a talk) step by step and give its result."""
    try:
        step = next(plan)
        while True:
            try:
                response = run_step(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(response)
    except StopIteration as done:
        result: T = done.value
        return result


def run_step(step: steps.Step) -> Any:  # noqa: C901 - one branch for each step
    """Perform one step; those of a service's background and of a pool are performed by
    them.
    """
    if isinstance(step, steps.Execute):
        return step.executor._execute(step.statement, step.until)
    if isinstance(step, steps.FetchRow):
        return step.stream._read()
    if isinstance(step, steps.Sleep):
        return time.sleep(step.seconds)
    if isinstance(step, steps.Open):
        return step.client.pool.open(step.until)
    if isinstance(step, steps.CheckOut):
        step.into.append((step.client, step.client.pool.checkout(step.until)))
        return step.into[-1][1]
    if isinstance(step, steps.Close):
        for client in step.clients:
            client.pool.close()
        return None
    if isinstance(step, steps.AbortInUse):
        for client in step.clients:
            cut = client.pool.abort_in_use()
            if cut:
                log.warning(
                    "%s: %d connections were still in use and have been cut", client.name, cut
                )
        return None
    if isinstance(step, steps.WaitForKills):
        for client in step.clients:
            client.pool.wait_for_kills(shutdown.KILL_GRACE)
        return None
    if isinstance(step, steps.WaitUnused):
        for client in step.clients:
            client.pool.wait_unused(step.until - time.monotonic())
        return None
    if isinstance(step, steps.PruneIdle):
        for client in step.clients:
            client.pool.prune_idle()
        return None
    if isinstance(step, steps.RunBlock):
        result = None
        with step.transaction as tx:
            result = step.function(tx)
        return result  # noqa: RET504 - None where Rollback left the block
    if isinstance(step, steps.RunPlan):
        return run_plan(step.plan, run_step)
    if isinstance(step, steps.Exclusive):
        return step.run(step.plan, step.wait)
    if isinstance(step, steps.CallHooks):
        for hook in step.calls:
            _notify(hook)
        return None
    if isinstance(step, steps.Gather):
        return gather(step.steps, step.max_concurrency, _attempt)
    raise TypeError(f"nobody here performs {step!r}")


def _notify(hook: Callable[[], Any]) -> None:
    try:
        if inspect.iscoroutinefunction(hook):
            raise TypeError("a coroutine function is a hook for the asyncio service")
        hook()
    except (Exception, SystemExit):
        log.exception("the hook %r failed", hook)


def _attempt(step: steps.Step) -> Any:
    try:
        return run_step(step)
    except Exception as error:
        return error


class _Halted(BaseException):
    """Thrown into a background plan when its service closes."""


class Background:
    """The plans that a service runs beside its callers, each in a daemon thread."""

    def __init__(self) -> None:
        self._halt = threading.Event()
        self._threads: Set[threading.Thread] = set()

    def spawn(self, plan: "steps.Plan[None]") -> None:
        thread = threading.Thread(
            target=self._work, args=(plan,), name="dualdb-background", daemon=True
        )
        self._threads.add(thread)
        thread.start()

    def halt(self) -> None:
        """Ends every plan at its next step.

        One that is in the middle of a connect ends by itself after it.
        """
        self._halt.set()
        for thread in list(self._threads):
            # a hook that closes its service: the plan ends when the hook has
            if thread is not threading.current_thread():
                thread.join(1.0)
        self._halt = threading.Event()

    def _work(self, plan: "steps.Plan[None]") -> None:
        halt = self._halt

        def perform_or_halt(step: steps.Step) -> Any:
            if halt.wait(step.seconds if isinstance(step, steps.Sleep) else 0):
                raise _Halted
            return None if isinstance(step, steps.Sleep) else run_step(step)

        try:
            run_plan(plan, perform_or_halt)
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

    @staticmethod
    def _owner() -> Any:
        """The greenlet or task that is calling; its thread where there is neither.

        A greenlet or a task is one of several that share a thread.
        """
        greenlets = sys.modules.get("greenlet")
        if greenlets is not None:
            greenlet = greenlets.getcurrent()
            if greenlet.parent is not None:
                return greenlet
        # Where asyncio has not been imported, no task runs; and it is not imported for this.
        asyncio = sys.modules.get("asyncio")
        if asyncio is None or asyncio._get_running_loop() is None:
            return threading.current_thread()
        return asyncio.current_task() or threading.current_thread()

    def _run(self, plan: "steps.Plan[Any]") -> Any:
        try:
            return run_plan(plan, run_step)
        except errors.Error as error:
            errors.cut_own_frames(error)
            raise error
