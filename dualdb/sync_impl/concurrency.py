"""Running steps concurrently, in threads.

Calls to databases with an idle connection need no threads: the calling thread sends
their commands one after the other, and receives the responses as they arrive. Handing a
call to another thread would take as long as a short call. Steps that block on something
else, such as a connect, are left to worker threads.
"""

import contextlib
import contextvars
import queue
import threading
import time
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from .. import errors, fork_safety, sockets
from ..execution import steps
from ..execution.detached import DetachedExecutor
from ..execution.resumable import Resumable
from ..protocol.exchange import with_session_tracking
from .connection import Connection


def gather(
    members: Sequence[steps.Step], max_concurrency: int, attempt: Callable[[steps.Step], Any]
) -> List[Any]:
    """Run steps concurrently.

    Args:
        members: The steps.
        max_concurrency: How many at once.
        attempt: Runs one step; returns its value, or the Exception it raised.

    Returns:
        For each step its value, or the Exception it raised.
    """
    if len(members) < 2 or max_concurrency < 2:
        return [attempt(step) for step in members]
    outcomes: List[Any] = [None] * len(members)
    calls: List[_Call] = []
    others: List[Tuple[int, steps.Step]] = []
    try:
        for number, step in enumerate(members):
            if isinstance(step, steps.RunPlan) and len(members) <= max_concurrency:
                calls.append(_Call(number, step.plan, outcomes))
                calls[-1].start()
            else:
                others.append((number, step))
        wait = _by_threads([*others, *_remaining(calls)], outcomes, max_concurrency, attempt)
        _poll(calls)
    finally:
        for call in calls:
            call.abandon()
    _by_threads(_remaining(calls), outcomes, max_concurrency, attempt)()
    wait()
    return outcomes


def _by_threads(
    members: Sequence[Tuple[int, steps.Step]],
    outcomes: List[Any],
    max_concurrency: int,
    attempt: Callable[[steps.Step], Any],
) -> Callable[[], None]:
    """Run the steps in worker threads.

    Returns:
        A function that waits for them.
    """
    remaining = iter(members)

    def work() -> None:
        # of a list's iterator, which gives each to one thread
        for number, step in remaining:
            outcomes[number] = outcome_of(partial(attempt, step))

    return workers.begin(work, min(len(members), max_concurrency))


class _Call:
    """A plan whose statements are sent on idle connections by the calling thread.

    Args:
        number: The index of the plan in ``outcomes``.
        plan: The plan.
        outcomes: The list that receives its result, or the Exception it raised.

    Attributes:
        connection: The connection on which a statement is being executed; None if none
            is.
        expires_at: When the wait for a response ends, by time.monotonic().
        step: The step that would block, for a worker thread; None if there is none.
    """

    connection: Optional[Connection] = None
    expires_at = 0.0
    step: Optional[steps.Step] = None
    _statement: steps.Execute
    _exchange: "Resumable[bytes, Any]"

    def __init__(self, number: int, plan: "steps.Plan[Any]", outcomes: List[Any]) -> None:
        self.number = number
        self.plan: Resumable[steps.Step, Any] = Resumable(plan)
        self._outcomes = outcomes

    def start(self) -> None:
        """Begin the plan, and send its first statement."""
        self._resume_plan(self.plan.advance, None)

    def receive_response(self, *, in_time: bool) -> None:
        """Process what has been received of the response.

        Args:
            in_time: Data was received; otherwise ``expires_at`` has passed.
        """
        connection = self.connection
        assert connection is not None
        try:
            results = connection.receive_response(in_time=in_time)
            while results is None and connection.has_more:
                results = connection.receive_response()
        except BaseException as error:
            self._resume_exchange(self._exchange.fail, error)
            return
        if results is None:
            self.expires_at = connection.receive_deadline()
        else:
            self._resume_exchange(self._exchange.advance, results)

    def abandon(self) -> None:
        """Stop waiting for the statement that is being executed, if there is one."""
        if self.connection is not None:
            self.connection.drop_command()
            self._release()
            self.plan.close()

    def _resume_plan(self, resume: Callable[[Any], Optional[steps.Step]], value: object) -> None:
        """Resume the plan until a statement has been sent, a step would block, or it
        ends.
        """
        try:
            step = resume(value)
        except Exception as error:
            self._outcomes[self.number] = error
            return
        if step is None:
            self._outcomes[self.number] = self.plan.result
        elif isinstance(step, steps.Execute) and isinstance(step.executor, DetachedExecutor):
            self._begin(step, step.executor.begin())
        else:
            self.step = step

    def _begin(self, step: steps.Execute, connection: Optional[Connection]) -> None:
        if connection is None:
            self.step = step
            return
        self.connection = connection
        self._statement = step
        self._exchange = Resumable(with_session_tracking(step.statement, connection))
        self._resume_exchange(self._exchange.advance, None)

    def _resume_exchange(self, resume: Callable[[Any], Optional[bytes]], value: object) -> None:
        """Resume the exchange until its next command has been sent, or it ends."""
        connection = self.connection
        place = self._statement.executor
        assert connection is not None
        while True:
            try:
                command = resume(value)
            except BaseException as error:
                value = errors.translate_error(
                    error, place.name, place.shard_id, sent=connection.sent
                )
                self._release()
                # somebody's interrupt, or a fault of ours
                if not isinstance(value, errors.Error):
                    value = None  # see errors.raise_translated
                    raise
                self._resume_plan(self.plan.fail, value)
                return
            if command is None:
                self._release()
                self._resume_plan(self.plan.advance, self._exchange.result)
                return
            try:
                connection.send(command, self._statement.until)
                self.expires_at = connection.receive_deadline()
                return
            except BaseException as error:
                resume = self._exchange.fail
                value = error

    def _release(self) -> None:
        connection = self.connection
        self.connection = None
        executor: Any = self._statement.executor
        executor.end(connection)


def _remaining(calls: Sequence[_Call]) -> List[Tuple[int, steps.Step]]:
    """Remove and return the steps of the calls that would block."""
    remaining: List[Tuple[int, steps.Step]] = []
    for call in calls:
        step = call.step
        call.step = None
        if step is not None:
            remaining.append((call.number, steps.RunPlan(call.plan.remaining(step))))
    return remaining


def _poll(calls: Sequence[_Call]) -> None:
    """Receive responses as they arrive, until each call has ended or would block."""
    poll = sockets.new_poll()
    waiting: Dict[int, _Call] = {}

    def register(call: _Call) -> None:
        if call.connection is not None:
            number = call.connection.fileno()
            poll.register(number, sockets.READABLE)
            waiting[number] = call

    def receive_response(number: int, *, in_time: bool) -> None:
        poll.unregister(number)
        call = waiting.pop(number)
        call.receive_response(in_time=in_time)
        register(call)

    for call in calls:
        register(call)
    while waiting:
        first = min([call.expires_at for call in waiting.values()])
        # poll() counts milliseconds: rather a little late than again and again a little
        # early.
        for number, _ in poll.poll(
            None if first == float("inf") else max(0.0, first - time.monotonic()) * 1000 + 1
        ):
            receive_response(number, in_time=True)
        now = time.monotonic()
        for number in [number for number, call in waiting.items() if call.expires_at <= now]:
            receive_response(number, in_time=False)


#: Receives the end of a worker's work: None, or what it raised.
_Done = queue.SimpleQueue[Optional[BaseException]]


def outcome_of(call: Callable[[], Any]) -> Any:
    """Call a function for another thread; return its value, or what it raised."""
    try:
        return call()
    except BaseException as error:
        return error


class Workers:
    """Daemon threads that stay alive for a while after their work, because starting one
    takes longer than a short call.

    The work runs in a copy of the caller's context, so that the blocks that the caller
    is in hold for it, as they hold for a task in asyncio.

    concurrent.futures is not used: its threads would keep the process from exiting
    while one waits for a host that does not respond.
    """

    STAY = 10.0

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        self._idle: List[queue.SimpleQueue[Any]] = []
        self._threads: Set[threading.Thread] = set()

    def submit(self, work: Callable[[], None]) -> bool:
        """Run a function in a thread; return False if none can be started."""
        return self._give(work, queue.SimpleQueue())

    def begin(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        """Run a function in a number of threads, or in as many as can be started.

        Returns:
            A function that waits for them, and raises what one of them has raised; if
            there is no thread, it runs the function.
        """
        done: queue.SimpleQueue[Optional[BaseException]] = queue.SimpleQueue()
        begun = 0
        while begun < times and self._give(work, done):
            begun += 1

        def wait() -> None:
            if times and not begun:
                work()
            failures = [done.get() for _ in range(begun)]
            for failure in failures:
                if failure is not None:
                    raise failure

        return wait

    def _give(self, work: Callable[[], None], done: _Done) -> bool:
        # a copy for each, because two threads cannot run in one context
        in_context = partial(contextvars.copy_context().run, work)
        try:
            self._idle.pop().put((in_context, done))
        except IndexError:
            return self._start(in_context, done)
        return True

    def _start(self, work: Callable[[], None], done: _Done) -> bool:
        # by the queue: a thread keeps its arguments until it ends
        inbox: queue.SimpleQueue[Any] = queue.SimpleQueue()
        inbox.put((work, done))
        thread = threading.Thread(
            target=self._serve, args=(inbox,), name="dualdb-gather", daemon=True
        )
        self._threads.add(thread)
        try:
            thread.start()
        except BaseException as error:
            self._threads.discard(thread)
            if isinstance(error, RuntimeError):
                return False
            raise
        return True

    def dismiss(self) -> None:
        """Stop the idle threads."""
        threads = list(self._threads)
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)
        for thread in threads:
            if thread.is_alive():
                thread.join(0.1)

    def _serve(self, inbox: "queue.SimpleQueue[Any]") -> None:
        given = inbox.get()
        while given is not None:
            work, done = given
            failure = outcome_of(work)
            del given, work  # an idle thread keeps nothing of its last caller
            self._idle.append(inbox)
            done.put(failure)
            del done, failure
            given = self._next_work(inbox)
        self._threads.discard(threading.current_thread())

    def _next_work(self, inbox: "queue.SimpleQueue[Any]") -> Any:
        """Return work and where its end is reported; None if the thread is to end."""
        try:
            return inbox.get(timeout=self.STAY)
        except queue.Empty:
            try:
                self._idle.remove(inbox)
            except ValueError:  # something is given at the last moment
                return inbox.get()
            return None


#: Of all services of the process.
workers = Workers()
