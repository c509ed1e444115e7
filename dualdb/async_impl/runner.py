"""Plans performed by tasks."""

import asyncio
import inspect
import logging
from contextvars import ContextVar
from typing import Any, Awaitable, Callable, Generator, List, Literal, Set, TypeVar

from .. import errors
from ..execution import shutdown, steps

log = logging.getLogger("dualdb")

#: The task of the background plan that the caller is called by, as a hook is.
_serving: ContextVar[Any] = ContextVar("dualdb_serving", default=None)

S = TypeVar("S")
T = TypeVar("T")


async def drive(plan: Generator[S, Any, T], perform: Callable[[S], Awaitable[Any]]) -> T:
    """Perform a plan (or hold a talk) step by step and give its result."""
    try:
        step = next(plan)
        while True:
            try:
                answer = await perform(step)
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(answer)
    except StopIteration as done:
        result: T = done.value
        return result


async def perform(step: steps.Step) -> Any:
    """Perform one step; those of a service's background and of a pool are performed by
    them.
    """
    if isinstance(step, steps.Execute):
        return await step.place._say(step.statement, step.until)
    if isinstance(step, steps.Await):
        return await step.given
    if isinstance(step, steps.Next):
        return await step.stream._read()
    if isinstance(step, steps.Sleep):
        return await asyncio.sleep(step.seconds)
    if isinstance(step, steps.Open):
        return await step.client.pool.open(step.until)
    if isinstance(step, steps.CheckOut):
        return await step.client.pool.checkout(step.until)
    if isinstance(step, steps.Close):
        for client in step.clients:
            client.pool.close()
        return await asyncio.sleep(0)  # lets the transports close their sockets
    if isinstance(step, steps.Cut):
        for client in step.clients:
            cut = client.pool.cut()
            if cut:
                log.warning(
                    "%s: %d connections were still in use and have been cut", client.name, cut
                )
        return None
    if isinstance(step, steps.WaitEnded):
        for client in step.clients:
            await client.pool.wait_ended(shutdown.PATIENCE)
        return None
    if isinstance(step, steps.Tidy):
        for client in step.clients:
            client.pool.tidy()
        return None
    if isinstance(step, steps.Perform):
        return await drive(step.plan, perform)
    if isinstance(step, steps.Alone):
        return await step.run(step.plan, step.wait)
    if isinstance(step, steps.Notify):
        for hook in step.calls:
            await _notify(hook)
        return None
    if isinstance(step, steps.Gather):
        return await _gather(step.steps, step.at_once)
    raise TypeError(f"nobody here performs {step!r}")


async def _notify(hook: Callable[[], Any]) -> None:
    try:
        answer = hook()
    except (Exception, SystemExit):
        log.exception("the hook %r failed", hook)
        return
    if not inspect.isawaitable(answer):
        return
    # In a task of its own, so that a cancellation inside it is not one of ours.
    task = asyncio.ensure_future(answer)
    try:
        await asyncio.wait({task})
    except BaseException:
        task.cancel()
        raise
    if task.cancelled() or task.exception() is not None:
        log.error(
            "the hook %r failed", hook, exc_info=None if task.cancelled() else task.exception()
        )


async def _gather(members: "tuple[steps.Step, ...]", at_once: int) -> List[Any]:
    room = asyncio.Semaphore(at_once)

    async def one(step: steps.Step) -> Any:
        async with room:
            return await _attempt(step)

    return await asyncio.gather(*[one(step) for step in members])


async def _attempt(step: steps.Step) -> Any:
    try:
        return await perform(step)
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
            await drive(plan, perform)
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
        return await drive(plan, perform)
