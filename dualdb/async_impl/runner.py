"""Plans performed by tasks."""

import asyncio
import inspect
import logging
import time
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Generator, List, Literal, Set, TypeVar

from .. import errors
from ..execution import shutdown, steps

log = logging.getLogger("dualdb")

#: The task of the background plan that the caller is called by, as a hook is.
_serving: ContextVar[Any] = ContextVar("dualdb_serving", default=None)

S = TypeVar("S")
T = TypeVar("T")


async def run_plan(plan: Generator[S, Any, T], run_step: Callable[[S], Awaitable[Any]]) -> T:
    """Perform a plan (or hold a talk) step by step and give its result."""
    try:
        step = next(plan)
        while True:
            try:
                response = await run_step(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(response)
    except StopIteration as done:
        result: T = done.value
        return result


async def run_step(step: steps.Step) -> Any:  # noqa: C901 - one branch for each step
    """Perform one step; those of a service's background and of a pool are performed by
    them.
    """
    if isinstance(step, steps.Execute):
        return await step.executor._execute(step.statement, step.until)
    if isinstance(step, steps.AwaitUser):
        return await step.given
    if isinstance(step, steps.FetchRow):
        return await step.stream._read()
    if isinstance(step, steps.Sleep):
        return await asyncio.sleep(step.seconds)
    if isinstance(step, steps.Open):
        return await step.client.pool.open(step.until)
    if isinstance(step, steps.CheckOut):
        step.into.append((step.client, await step.client.pool.checkout(step.until)))
        return step.into[-1][1]
    if isinstance(step, steps.Close):
        for client in step.clients:
            client.pool.close()
        return await asyncio.sleep(0)  # lets the transports close their sockets
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
            await client.pool.wait_for_kills(shutdown.KILL_GRACE)
        return None
    if isinstance(step, steps.WaitUnused):
        for client in step.clients:
            await client.pool.wait_unused(step.until - time.monotonic())
        return None
    if isinstance(step, steps.PruneIdle):
        for client in step.clients:
            client.pool.prune_idle()
        return None
    if isinstance(step, steps.RunBlock):
        result = None
        async with step.transaction as tx:
            result = await step.function(tx)
        return result  # noqa: RET504 - None where Rollback left the block
    if isinstance(step, steps.RunPlan):
        return await run_plan(step.plan, run_step)
    if isinstance(step, steps.Exclusive):
        return await step.run(step.plan, step.wait)
    if isinstance(step, steps.CallHooks):
        for hook in step.calls:
            await _notify(hook)
        return None
    if isinstance(step, steps.Gather):
        return await _gather(step.steps, step.max_concurrency)
    raise TypeError(f"nobody here performs {step!r}")


async def _notify(hook: Callable[[], Any]) -> None:
    try:
        response = hook()
    except (Exception, SystemExit):
        log.exception("the hook %r failed", hook)
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
    if task.cancelled() or task.exception() is not None:
        log.error(
            "the hook %r failed", hook, exc_info=None if task.cancelled() else task.exception()
        )


async def _gather(members: "tuple[steps.Step, ...]", max_concurrency: int) -> List[Any]:
    room = asyncio.Semaphore(max_concurrency)

    async def one(step: steps.Step) -> Any:
        async with room:
            return await _attempt(step)

    return await asyncio.gather(*[one(step) for step in members])


async def _attempt(step: steps.Step) -> Any:
    try:
        return await run_step(step)
    except Exception as error:
        return error


class Background:
    """The plans that a service runs beside its callers, each in a task."""

    def __init__(self) -> None:
        self._tasks: Set[asyncio.Task[None]] = set()

    def spawn(self, plan: "steps.Plan[None]") -> None:
        task = asyncio.get_running_loop().create_task(self._work(plan), name="dualdb-background")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def halt(self) -> None:
        """Ends every plan where it waits."""
        # Those of another loop, which ended without closing the service, ended with it;
        # that of a hook which closes its service ends when the hook has.
        loop, mine = asyncio.get_running_loop(), _serving.get()
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
            log.exception("a background plan failed")


class Tasks:
    """Mixed into whatever runs plans in the caller's task."""

    _colour: Literal["tasks"] = "tasks"
    _awaits = True

    @staticmethod
    def _owner() -> Any:
        task = asyncio.current_task()
        if task is None:
            raise errors.InterfaceError("an asyncio service is used inside a task")
        return task

    async def _run(self, plan: "steps.Plan[Any]") -> Any:
        try:
            return await run_plan(plan, run_step)
        except errors.Error as error:
            errors.cut_own_frames(error)
            raise error
