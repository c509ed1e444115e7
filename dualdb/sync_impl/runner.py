"""Running plans in threads."""

import inspect
import logging
import queue
import sys
import threading
import time
import warnings
from functools import partial
from typing import Any, Callable, Dict, Generator, List, Literal, Set, TypeVar

from .. import blocks, errors
from ..execution import shutdown, steps
from ..execution.resumable import Resumable
from ..observability.logs import about
from ..observability.observers import log_failure
from .concurrency import gather, outcome_of, workers

log = logging.getLogger("dualdb.background")

#: Seconds that what ran alongside a plan may go on after it.
_ALONGSIDE_GRACE = 1.0

S = TypeVar("S")
T = TypeVar("T")


def run_plan(plan: Generator[S, Any, T], run_step: Callable[[S], Any]) -> T:
    """Run a plan or an exchange to its end.

    Args:
        plan: A generator of steps.
        run_step: Runs one step.

    Returns:
        The return value of the plan.

    Raises:
        BaseException: What the plan raised.
    """
    # Not by a Resumable until a step fails: most plans take longer in it than in SQL.
    result: T
    try:
        step = next(plan)
    except StopIteration as done:
        result = done.value
        return result
    while True:
        try:
            value = run_step(step)
        except BaseException as error:
            running = Resumable(plan)
            following = running.fail(error)
            if following is None:
                return running.result
            step = following
        else:
            try:
                step = plan.send(value)
            except StopIteration as done:
                result = done.value
                return result


def run_step(step: steps.Step) -> Any:
    """Run one step; steps of the background and of pools are run there.

    Args:
        step: One of ``HANDLERS``.

    Raises:
        TypeError: No handler runs it.
    """
    handler = HANDLERS.get(type(step))
    if handler is None:
        raise TypeError(f"unsupported step: {step!r}")
    return handler(step)


def _in_loop() -> bool:
    asyncio = sys.modules.get("asyncio")
    return asyncio is not None and asyncio._get_running_loop() is not None


def _execute(step: steps.Execute) -> Any:
    if _in_loop():
        _warn_of_loop()
    return step.executor.run_statement(step.statement, step.until)


def _fetch_row(step: steps.FetchRow) -> Any:
    return step.stream.read()


def _sleep(step: steps.Sleep) -> None:
    time.sleep(step.seconds)


def _open(step: steps.Open) -> None:
    step.client.pool.open(step.until)


def _check_out(step: steps.CheckOut) -> Any:
    if _in_loop():
        _warn_of_loop()
    step.into.append((step.client, step.client.pool.checkout(step.until)))
    return step.into[-1][1]


def _run_block(step: steps.RunBlock) -> Any:
    result = None
    with step.transaction as tx:
        result = step.function(tx)
    return result  # noqa: RET504 - None where Rollback left the block


def _call_user(step: steps.CallUser) -> Any:
    return step.function(step.argument)


def _await_user(step: steps.AwaitUser) -> None:
    if inspect.iscoroutine(step.given):
        step.given.close()
    raise errors.ParameterError(
        "a coroutine function is for the asyncio service; this one calls plain functions"
    )


def _enter_block(step: steps.EnterBlock) -> None:
    step.transaction.__enter__()


def _close(step: steps.Close) -> None:
    for client in step.clients:
        client.close()


def _abort_in_use(step: steps.AbortInUse) -> None:
    for client in step.clients:
        aborted = client.pool.abort_in_use()
        if aborted:
            log.warning(
                "%s: %d connections were still in use and have been aborted",
                client.name,
                aborted,
                extra=about("connections_aborted", client),
            )


def _wait_for_kills(step: steps.WaitForKills) -> None:
    for client in step.clients:
        client.pool.wait_for_kills(shutdown.KILL_GRACE)


def _wait_unused(step: steps.WaitUnused) -> None:
    for client in step.clients:
        client.pool.wait_unused(step.until - time.monotonic())


def _prune_idle(step: steps.PruneIdle) -> None:
    for client in step.clients:
        client.pool.prune_idle()


def _await_signal(step: steps.AwaitSignal) -> None:
    signal = threading.Event()
    step.subscribe(signal.set)
    signal.wait(step.seconds)


def _resize(step: steps.Resize) -> None:
    step.client.resize(step.config)


def _run_inner(step: steps.RunPlan) -> Any:
    return run_plan(step.plan, run_step)


def _run_alongside(step: steps.RunAlongside) -> Any:
    ended = threading.Event()

    def work() -> None:
        try:
            _attempt(steps.RunPlan(step.alongside))
        finally:
            ended.set()

    workers.begin(work, 1)
    try:
        return run_plan(step.plan, run_step)
    finally:
        ended.wait(_ALONGSIDE_GRACE)


def _exclusive(step: steps.Exclusive) -> Any:
    return step.run(step.plan, step.wait)


def _call_hooks(step: steps.CallHooks) -> None:
    for hook in step.calls:
        _notify(hook)


def _gather(step: steps.Gather) -> List[Any]:
    return gather(step.steps, step.max_concurrency, _attempt)


def _run_within(step: steps.RunWithin) -> bool:
    ended = threading.Event()

    def work() -> None:
        try:
            _attempt(step.step)
        finally:
            ended.set()

    workers.begin(work, 1)
    return ended.wait(max(0.0, step.until - time.monotonic()))


def _hedge(step: steps.Hedge) -> Any:
    outcomes: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def start(each: steps.Step) -> None:
        run = partial(run_step, each)
        if not workers.submit(lambda: outcomes.put(outcome_of(run))):
            outcomes.put(outcome_of(run))

    start(step.first)
    left = 1
    try:
        outcome = outcomes.get(timeout=step.after)
    except queue.Empty:
        second = step.second()
        if second is not None:
            start(second)
            left += 1
        outcome = outcomes.get()
    while isinstance(outcome, BaseException):
        left -= 1
        if not left or not isinstance(outcome, Exception):
            raise outcome
        outcome = outcomes.get()
    return outcome


def _notify(hook: Callable[[], Any]) -> None:
    try:
        response = hook()
        if inspect.iscoroutine(response):
            response.close()
            raise TypeError("a coroutine function is a hook for the asyncio service")
    except (Exception, SystemExit, GeneratorExit) as error:
        log_failure(hook, error)


def _attempt(step: steps.Step) -> Any:
    try:
        return run_step(step)
    except Exception as error:
        return error


#: Who runs which step.
HANDLERS: Dict[type, Callable[[Any], Any]] = {
    steps.AbortInUse: _abort_in_use,
    steps.AwaitUser: _await_user,
    steps.CallHooks: _call_hooks,
    steps.CallUser: _call_user,
    steps.CheckOut: _check_out,
    steps.Close: _close,
    steps.EnterBlock: _enter_block,
    steps.Exclusive: _exclusive,
    steps.Execute: _execute,
    steps.FetchRow: _fetch_row,
    steps.Gather: _gather,
    steps.Hedge: _hedge,
    steps.Open: _open,
    steps.PruneIdle: _prune_idle,
    steps.Resize: _resize,
    steps.AwaitSignal: _await_signal,
    steps.RunAlongside: _run_alongside,
    steps.RunBlock: _run_block,
    steps.RunPlan: _run_inner,
    steps.RunWithin: _run_within,
    steps.Sleep: _sleep,
    steps.WaitForKills: _wait_for_kills,
    steps.WaitUnused: _wait_unused,
}


class _Halted(BaseException):
    """Thrown into a background plan when its service closes."""


class Background:
    """The background plans of a service, each in a daemon thread."""

    def __init__(self) -> None:
        self._halt = threading.Event()
        self._threads: Set[threading.Thread] = set()

    def spawn(self, plan: "steps.Plan[None]") -> None:
        """Run a plan in its own thread, until it ends or ``halt`` is called."""
        # Its event is handed over: the thread may begin after ``halt`` has been called.
        thread = threading.Thread(
            target=self._work, args=(plan, self._halt), name="dualdb-background", daemon=True
        )
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException:
            self._threads.discard(thread)
            raise

    def halt(self) -> None:
        """Stop every plan at its next step.

        A connect in progress is completed first.
        """
        self._halt.set()
        for thread in list(self._threads):
            # a hook that closes its service: the plan ends when the hook has
            if thread is not threading.current_thread() and thread.is_alive():
                thread.join(1.0)
        self._halt = threading.Event()

    def _work(self, plan: "steps.Plan[None]", halt: threading.Event) -> None:
        def perform_or_halt(step: steps.Step) -> Any:
            if halt.wait(step.seconds if isinstance(step, steps.Sleep) else 0):
                raise _Halted
            return None if isinstance(step, steps.Sleep) else run_step(step)

        try:
            run_plan(plan, perform_or_halt)
        except _Halted:
            pass
        except Exception:
            log.exception("a background plan failed", extra=about("background_failed"))
        finally:
            self._threads.discard(threading.current_thread())


def _warn_of_loop() -> None:
    """Warn about a call that blocks the running event loop, once for each place."""
    frame = blocks.user_frame()
    if frame is None or "ipykernel" in sys.modules:  # each cell of a notebook is in a loop
        return
    warnings.warn_explicit(
        "a DatabaseService is called inside a running event loop, which waits until the call is "
        "over: use AsyncDatabaseService, or asyncio.to_thread",
        errors.SyncInLoopWarning,
        frame.f_code.co_filename,
        frame.f_lineno,
        frame.f_globals.get("__name__"),
        frame.f_globals.setdefault("__warningregistry__", {}),
    )


def caller() -> Any:
    """Return the calling greenlet or task, several of which share a thread; the
    thread if there is neither.
    """
    greenlets = sys.modules.get("greenlet")
    if greenlets is not None:
        greenlet = greenlets.getcurrent()
        if greenlet.parent is not None:
            return greenlet
    # Where asyncio has not been imported no task runs, and this does not import it.
    asyncio = sys.modules.get("asyncio")
    if asyncio is None or asyncio._get_running_loop() is None:
        return threading.current_thread()
    return asyncio.current_task() or threading.current_thread()


class Threads:
    """Mixin that runs plans in the caller's thread."""

    _io: Literal["threads"] = "threads"
    _awaits = False

    _caller = staticmethod(caller)

    def _run(self, plan: "steps.Plan[Any]") -> Any:
        try:
            return run_plan(plan, run_step)
        except errors.Error as error:
            errors.cut_own_frames(error)
            raise error
