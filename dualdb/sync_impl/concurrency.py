"""Steps at the same time, in threads.

Calls to databases with an idle connection need no threads: the calling one sends their
commands, one after the other, and takes the answers as they come, because handing a
call to another thread takes as long as a short call does. What has to wait for
something else, such as a connect, goes to threads of its own.
"""

import contextlib
import queue
import select
import threading
import time
from typing import Any, Callable, Dict, List, Optional, Sequence, Set, Tuple

from .. import errors, fork_safety
from ..execution import steps
from ..execution.detached import DetachedExecutor
from ..protocol.exchange import with_session_tracking
from .connection import Connection


def gather(
    members: Sequence[steps.Step], max_concurrency: int, attempt: Callable[[steps.Step], Any]
) -> List[Any]:
    """What each step gave, or the Exception it ended with.

    ``attempt`` performs one alone and gives either.
    """
    if len(members) < 2 or max_concurrency < 2:
        return [attempt(step) for step in members]
    answers: List[Any] = [None] * len(members)
    calls: List[_Call] = []
    others: List[Tuple[int, steps.Step]] = []
    try:
        for number, step in enumerate(members):
            if isinstance(step, steps.RunPlan) and len(members) <= max_concurrency:
                calls.append(_Call(number, step.plan, answers))
                calls[-1].start()
            else:
                others.append((number, step))
        wait = _by_threads([*others, *_left(calls)], answers, max_concurrency, attempt)
        _listen(calls)
    finally:
        for call in calls:
            call.leave()
    _by_threads(_left(calls), answers, max_concurrency, attempt)()
    wait()
    return answers


def _by_threads(
    members: Sequence[Tuple[int, steps.Step]],
    answers: List[Any],
    max_concurrency: int,
    attempt: Callable[[steps.Step], Any],
) -> Callable[[], None]:
    """Have threads perform these. Gives what waits until they have."""
    left = iter(members)

    def work() -> None:
        # of a list's iterator, which gives each to one thread
        for number, step in left:
            try:
                answers[number] = attempt(step)
            except BaseException as error:
                answers[number] = error

    return workers.begin(work, min(len(members), max_concurrency))


class _Call:
    """A plan that says its statements on idle connections, as long as there are
    such.
    """

    #: In the middle of a statement: the connection, and when it must have gone on.
    connection: Optional[Connection] = None
    expires = 0.0
    #: What it cannot do without waiting.
    step: Optional[steps.Step] = None

    def __init__(self, number: int, plan: "steps.Plan[Any]", answers: List[Any]) -> None:
        self.number, self.plan = number, plan
        self._answers = answers
        self._place: Any = None
        self._exchange: Any = None
        self._until: Optional[float] = None

    def start(self) -> None:
        self._go_on(next, self.plan)

    def receive_response(self, *, in_time: bool) -> None:
        """Something has come, or nothing in time."""
        connection = self.connection
        assert connection is not None
        try:
            results = connection.receive_response(in_time=in_time)
            while results is None and connection.has_more:
                results = connection.receive_response()
        except BaseException as error:
            self._execute(self._exchange.throw, error)
        else:
            if results is None:
                self.receive_deadline = connection.receive_deadline()
            else:
                self._execute(self._exchange.send, results)

    def leave(self) -> None:
        """Nobody waits for it any more, if it is not over."""
        if self.connection is not None:
            self.connection.drop_command()
            self._close_descriptor()
            self.plan.close()

    def _go_on(self, resume: Callable[[Any], steps.Step], value: Any) -> None:
        """Go on with the plan, until it has a statement on its way or needs somebody
        else.
        """
        try:
            step = resume(value)
        except StopIteration as done:
            self._answers[self.number] = done.value
            return
        except Exception as error:
            self._answers[self.number] = error
            return
        connection = (
            step.executor._begin()
            if isinstance(step, steps.Execute) and isinstance(step.executor, DetachedExecutor)
            else None
        )
        if connection is None:
            self.step = step
            return
        assert isinstance(step, steps.Execute)
        self.connection, self._place, self._until = connection, step.executor, step.until
        self._exchange = with_session_tracking(step.statement, connection)
        self._execute(next, self._exchange)

    def _execute(self, resume: Callable[[Any], bytes], value: Any) -> None:
        """Go on with the talk, until its next command is sent or it is over."""
        connection = self.connection
        assert connection is not None
        while True:
            try:
                command = resume(value)
            except StopIteration as done:
                self._close_descriptor()
                self._go_on(self.plan.send, done.value)
                return
            except BaseException as error:
                translated = errors.translate_error(
                    error, self._place.name, self._place.shard_id, sent=connection.sent
                )
                self._close_descriptor()
                # somebody's interrupt, or a fault of ours
                if not isinstance(translated, errors.Error):
                    raise
                self._go_on(self.plan.throw, translated)
                return
            try:
                connection.send(command, self._until)
                self.receive_deadline = connection.receive_deadline()
                return
            except BaseException as error:
                resume, value = self._exchange.throw, error

    def _close_descriptor(self) -> None:
        connection, self.connection = self.connection, None
        self._place._end(connection)


def _left(calls: Sequence[_Call]) -> List[Tuple[int, steps.Step]]:
    """What the calls cannot do without waiting, taken from them."""
    left: List[Tuple[int, steps.Step]] = []
    for call in calls:
        step, call.step = call.step, None
        if step is not None:
            left.append((call.number, steps.RunPlan(_resumed(call.plan, step))))
    return left


def _resumed(plan: "steps.Plan[Any]", step: steps.Step) -> "steps.Plan[Any]":
    """The rest of a plan that has come to this step."""
    try:
        while True:
            try:
                response = yield step
            except BaseException as error:
                step = plan.throw(error)
            else:
                step = plan.send(response)
    except StopIteration as done:
        return done.value


def _listen(calls: Sequence[_Call]) -> None:
    """Hear every call until it is over or needs somebody else."""
    poll = select.poll()
    waiting: Dict[int, _Call] = {}

    def watch(call: _Call) -> None:
        if call.connection is not None:
            number = call.connection.fileno()
            poll.register(number, select.POLLIN)
            waiting[number] = call

    def receive_response(number: int, *, in_time: bool) -> None:
        poll.unregister(number)
        call = waiting.pop(number)
        call.receive_response(in_time=in_time)
        watch(call)

    for call in calls:
        watch(call)
    while waiting:
        first = min([call.receive_deadline for call in waiting.values()])
        # poll() counts milliseconds: rather a little late than again and again a little
        # early.
        for number, _ in poll.poll(
            None if first == float("inf") else max(0.0, first - time.monotonic()) * 1000 + 1
        ):
            receive_response(number, in_time=True)
        now = time.monotonic()
        for number in [number for number, call in waiting.items() if call.receive_deadline <= now]:
            receive_response(number, in_time=False)


class Workers:
    """Daemon threads that stay for a while when they have done their work, because
    starting one takes longer than asking a server.

    Not an executor: its threads keep the process from ending while one of them waits
        for a host that does not answer.
    """

    STAY = 10.0

    def __init__(self) -> None:
        self._forked()
        fork_safety.register(self)

    def _forked(self) -> None:
        self._idle: List[queue.SimpleQueue[Any]] = []
        self._threads: Set[threading.Thread] = set()

    def begin(self, work: Callable[[], None], times: int) -> Callable[[], None]:
        """Have so many threads do the work, or as many as can be started.

        Returns:
            What waits until they have; where there is none, it does the work itself.
        """
        done: queue.SimpleQueue[None] = queue.SimpleQueue()
        begun = 0
        for _ in range(times):
            try:
                self._idle.pop().put((work, done))
            except IndexError:
                if not self._start(work, done):
                    break
            begun += 1

        def wait() -> None:
            if times and not begun:
                work()
            for _ in range(begun):
                done.get()

        return wait

    def _start(self, work: Callable[[], None], done: "queue.SimpleQueue[None]") -> bool:
        thread = threading.Thread(
            target=self._serve, args=(work, done), name="dualdb-gather", daemon=True
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
        """End those that have nothing to do."""
        threads = list(self._threads)
        with contextlib.suppress(IndexError):
            while True:
                self._idle.pop().put(None)
        for thread in threads:
            if thread.is_alive():
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
