"""Plans performed by tasks."""

import asyncio
import contextlib
import inspect
import logging
import time
from contextvars import ContextVar
from typing import (
    Any,
    Awaitable,
    Callable,
    Coroutine,
    Dict,
    Generator,
    List,
    Literal,
    Optional,
    Set,
    TypeVar,
)

from .. import errors
from ..execution import shutdown, steps
from ..observability.logs import about
from ..observability.observers import log_failure
from ..topology.slices import Slices

log = logging.getLogger("dualdb.background")

#: The task of the background plan that the caller is called by, as a hook is.
_serving: ContextVar[Any] = ContextVar("dualdb_serving", default=None)

#: Seconds that what ran alongside a plan may go on after it.
_ALONGSIDE_GRACE = 1.0

S = TypeVar("S")
T = TypeVar("T")


async def run_plan(plan: Generator[S, Any, T], run_step: Callable[[S], Awaitable[Any]]) -> T:
    """Run a plan or an exchange to its end.

    Args:
        plan: A generator of steps.
        run_step: Runs one step.

    Returns:
        The return value of the plan.

    Raises:
        BaseException: What the plan raised.
    """
    # Not by a Resumable: nothing else resumes these plans, and it takes longer.
    try:
        step = next(plan)
        while True:
            try:
                value = await run_step(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(value)
    except StopIteration as done:
        result: T = done.value
        return result


def run_step(step: steps.Step) -> Awaitable[Any]:
    """Run one step; steps of the background and of pools are run there.

    Args:
        step: One of ``HANDLERS``.

    Returns:
        The awaitable of the handler itself: another coroutine around it would cost a
        tenth of a short call.

    Raises:
        TypeError: No handler runs it.
    """
    handler = HANDLERS.get(type(step))
    if handler is None:
        raise TypeError(f"unsupported step: {step!r}")
    return handler(step)


async def _await_user(step: steps.AwaitUser) -> Any:
    return await step.given


def _execute(step: steps.Execute) -> Awaitable[Any]:
    coroutine: Awaitable[Any] = step.executor.run_statement(step.statement, step.until)
    return coroutine


def _fetch_row(step: steps.FetchRow) -> Awaitable[Any]:
    coroutine: Awaitable[Any] = step.stream.read()
    return coroutine


async def _sleep(step: steps.Sleep) -> None:
    await asyncio.sleep(step.seconds)


async def _open(step: steps.Open) -> None:
    await step.client.pool.open(step.until)


async def _check_out(step: steps.CheckOut) -> Any:
    step.into.append((step.client, await step.client.pool.checkout(step.until)))
    return step.into[-1][1]


async def _run_block(step: steps.RunBlock) -> Any:
    result = None
    async with step.transaction as tx:
        result = await step.function(tx)
    return result  # noqa: RET504 - None where Rollback left the block


async def _call_user(step: steps.CallUser) -> Any:
    answer = step.function(step.argument)
    return await answer if inspect.isawaitable(answer) else answer


async def _enter_block(step: steps.EnterBlock) -> None:
    await step.transaction.__aenter__()


async def _close(step: steps.Close) -> None:
    remaining = iter(step.clients)
    slices = Slices()
    try:
        for client in remaining:
            client.close()
            if slices.ends_with_item():
                await asyncio.sleep(0)
    finally:
        for client in remaining:  # of a task that was cancelled
            client.close()
    await asyncio.sleep(0)  # lets the transports close their sockets


async def _abort_in_use(step: steps.AbortInUse) -> None:
    for client in step.clients:
        aborted = client.pool.abort_in_use()
        if aborted:
            log.warning(
                "%s: %d connections were still in use and have been aborted",
                client.name,
                aborted,
                extra=about("connections_aborted", client),
            )


async def _wait_for_kills(step: steps.WaitForKills) -> None:
    for client in step.clients:
        await client.pool.wait_for_kills(shutdown.KILL_GRACE)


async def _wait_unused(step: steps.WaitUnused) -> None:
    for client in step.clients:
        await client.pool.wait_unused(step.until - time.monotonic())


async def _prune_idle(step: steps.PruneIdle) -> None:
    for client in step.clients:
        client.pool.prune_idle()


async def _await_signal(step: steps.AwaitSignal) -> None:
    loop = asyncio.get_running_loop()
    signal: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(_set_done, signal)

    step.subscribe(wake)
    await asyncio.wait({signal}, timeout=step.seconds)


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


async def _resize(step: steps.Resize) -> None:
    step.client.resize(step.config)


async def _run_inner(step: steps.RunPlan) -> Any:
    return await run_plan(step.plan, run_step)


async def _run_alongside(step: steps.RunAlongside) -> Any:
    task = background_task(_attempt(steps.RunPlan(step.alongside)), "dualdb-alongside")
    try:
        return await run_plan(step.plan, run_step)
    finally:
        try:
            await asyncio.wait({task}, timeout=_ALONGSIDE_GRACE)
        finally:
            task.cancel()  # nothing, if it has ended


async def _exclusive(step: steps.Exclusive) -> Any:
    return await step.run(step.plan, step.wait)


async def _call_hooks(step: steps.CallHooks) -> None:
    for hook in step.calls:
        await _notify(hook)


async def _notify(hook: Callable[[], Any]) -> None:
    try:
        response = hook()
    except (Exception, SystemExit, GeneratorExit) as error:
        log_failure(hook, error)
        return
    if not inspect.isawaitable(response):
        return
    # In a task of its own, so that a cancellation inside it is not one of ours.
    task = asyncio.ensure_future(response)
    try:
        await asyncio.wait({task})
    except BaseException:
        task.cancel()
        raise
    failure = asyncio.CancelledError() if task.cancelled() else task.exception()
    if failure is not None:
        log_failure(hook, failure)


async def _gather(gathering: steps.Gather) -> List[Any]:
    results: List[Any] = [None] * len(gathering.steps)
    remaining = iter(enumerate(gathering.steps))

    async def work() -> None:
        # of one iterator, which gives each step to one task: a task for each of very
        # many steps would hold up the loop
        for number, step in remaining:
            results[number] = await _attempt(step)

    workers = min(len(gathering.steps), gathering.max_concurrency)
    await asyncio.gather(*[work() for _ in range(workers)])
    return results


async def _run_within(step: steps.RunWithin) -> bool:
    task = background_task(_attempt(step.step), "dualdb-within")
    try:
        await asyncio.wait({task}, timeout=max(0.0, step.until - time.monotonic()))
    finally:
        task.cancel()  # nothing, if it has ended
    return task.done()


async def _hedge(step: steps.Hedge) -> Any:
    tasks = [background_task(_attempt(step.first), "dualdb-hedge")]
    try:
        done, left = await asyncio.wait(tasks, timeout=step.after)
        second = None if done else step.second()
        if second is not None:
            tasks.append(background_task(_attempt(second), "dualdb-hedge"))
            left = set(tasks)
        while True:
            if not done:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
            outcomes = [task.result() for task in done]
            succeeded = [each for each in outcomes if not isinstance(each, Exception)]
            if succeeded:
                return succeeded[0]
            if not left:
                raise outcomes[0]
            done = set()
    finally:
        for task in tasks:
            task.cancel()  # nothing, if it has ended


async def _attempt(step: steps.Step) -> Any:
    try:
        return await run_step(step)
    except Exception as error:
        return error


#: Who runs which step.
HANDLERS: Dict[type, Callable[[Any], Awaitable[Any]]] = {
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
    steps.Open: _open,
    steps.PruneIdle: _prune_idle,
    steps.Resize: _resize,
    steps.AwaitSignal: _await_signal,
    steps.RunAlongside: _run_alongside,
    steps.RunBlock: _run_block,
    steps.RunPlan: _run_inner,
    steps.Hedge: _hedge,
    steps.RunWithin: _run_within,
    steps.Sleep: _sleep,
    steps.WaitForKills: _wait_for_kills,
    steps.WaitUnused: _wait_unused,
}


async def acquire(lock: asyncio.Lock, seconds: Optional[float] = None) -> bool:
    """Acquire a lock.

    Args:
        lock: To be released by the caller.
        seconds: How long to wait at most; None for no limit.

    Returns:
        False if it was not free in time.
    """
    if seconds is None or not lock.locked():
        return await lock.acquire()
    # Not wait_for: before Python 3.12 it may lose the lock it has just been given.
    acquiring = asyncio.ensure_future(lock.acquire())
    try:
        await asyncio.wait({acquiring}, timeout=seconds)
        if not acquiring.done():
            acquiring.cancel()
            await asyncio.wait({acquiring})
    except BaseException:
        acquiring.add_done_callback(lambda done: None if done.cancelled() else lock.release())
        acquiring.cancel()
        raise
    return not acquiring.cancelled()


def background_task(
    coroutine: Coroutine[Any, Any, T], name: str, loop: Optional[asyncio.AbstractEventLoop] = None
) -> "asyncio.Task[T]":
    """Start a task that may be left when its loop ends, without a warning."""
    task = (loop or asyncio.get_running_loop()).create_task(coroutine, name=name)
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    return task


class Background:
    """The background plans of a service, each in a task."""

    def __init__(self) -> None:
        self._tasks: Set[asyncio.Task[None]] = set()

    def spawn(self, plan: "steps.Plan[None]") -> None:
        task = background_task(self._work(plan), "dualdb-background")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def halt(self) -> None:
        """Stop every plan where it waits."""
        # Those of another loop, which ended without closing the service, ended with it;
        # that of a hook which closes its service ends when the hook has.
        loop = asyncio.get_running_loop()
        mine = _serving.get()
        tasks = [task for task in self._tasks if task.get_loop() is loop and task is not mine]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, plan: "steps.Plan[None]") -> None:
        _serving.set(asyncio.current_task())
        try:
            await run_plan(plan, run_step)
        except Exception:
            log.exception("a background plan failed", extra=about("background_failed"))


def caller() -> Any:
    """Return the calling task."""
    task = asyncio.current_task()
    if task is None:
        raise errors.InterfaceError("an asyncio service is used inside a task")
    return task


class Tasks:
    """Mixin that runs plans in the caller's task."""

    _io: Literal["tasks"] = "tasks"
    _awaits = True

    _caller = staticmethod(caller)

    async def _run(self, plan: "steps.Plan[Any]") -> Any:
        try:
            return await run_plan(plan, run_step)
        except errors.Error as error:
            errors.cut_own_frames(error)
            raise error
