"""The asyncio pool: aiomysql connections behind a fair and timed bound.

aiomysql's own pool loses wake-ups (a waiter stays asleep when a connection is dropped),
connects while it holds its lock, and has no limit on a wait, so it is not used.
"""

import asyncio
import contextlib
import sys
import time
from collections import deque
from typing import Deque, List, Optional

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..execution import connect, steps
from ..pooling.base import BasePool, Disposition
from ..pooling.server_budget import ServerBudget
from ..pooling.session_killer import KillJob
from ..pooling.slots import Slots
from ..protocol import kill
from ..protocol.connection_state import KillState, WireState
from .connection import Connection
from .idle_store import IdleStore
from .runner import background_task, run_plan, run_step

# An enum's member takes longer to look up than a name of the module.
_REUSE = Disposition.REUSE
_CLOSE = Disposition.CLOSE
_RESETTING = WireState.RESETTING


class _Waiter:
    """A caller who waits for a slot, and what was handed over.

    Attributes:
        future: Its result is True with a slot, False after a timeout, None if the pool
            was closed.
        expires_at: When the wait times out, by time.monotonic().
        connection: The connection of the previous holder of the slot.
    """

    __slots__ = ("connection", "expires_at", "future")

    def __init__(self, loop: asyncio.AbstractEventLoop, expires_at: float) -> None:
        self.future: asyncio.Future[Optional[bool]] = loop.create_future()
        self.expires_at = expires_at
        self.connection: Optional[Connection] = None

    def wake(self, reason: Optional[bool]) -> None:
        """Wake the caller, unless it was cancelled."""
        if not self.future.done():
            self.future.set_result(reason)


class Pool(BasePool):
    """At most ``pool_size + max_overflow`` connections to one database, of which
    ``pool_size`` are kept when idle.
    """

    _connection_type = Connection

    def __init__(self, config: DatabaseConfig, name: str, shard_id: Optional[int]) -> None:
        super().__init__(config, name, shard_id)
        fork_safety.register(self)

    def _reset(self) -> None:
        super()._reset()
        self._loop: Optional[asyncio.AbstractEventLoop] = None
        self._slots: Slots[_Waiter] = Slots(self.config.pool_size + self.config.max_overflow)
        #: Fires when the time of one who waits is over.
        self._timer: Optional[asyncio.TimerHandle] = None
        self._timer_at = float("inf")
        self._store: IdleStore = IdleStore(self.config)
        self._killer: Optional[asyncio.Task[None]] = None
        self._unused: Deque[asyncio.Future[None]] = deque()

    def _forked(self) -> None:
        fork_safety.never_finalize(self._slots, self._kills, self._killer, self._unused)
        self._reset()

    def _idle_count(self) -> int:
        return self._store.count()

    def take_idle(self) -> Optional[Connection]:
        """See ``BasePool``; returns None elsewhere than in the pool's loop."""
        return self._store.take() if asyncio._get_running_loop() is self._loop else None

    def take_oldest_idle(self, budget: ServerBudget) -> Optional[Connection]:
        """See ``BasePool``; elsewhere than in the loop, it has the budget ask there."""
        loop = self._loop
        if loop is None or loop.is_closed() or asyncio._get_running_loop() is loop:
            return self._store.take_oldest(budget)
        with contextlib.suppress(RuntimeError):  # closed meanwhile
            loop.call_soon_threadsafe(budget.changed)
        return None

    async def open(self, until: Optional[float] = None) -> None:
        """Open ``warm_up`` connections, if there are none.

        Args:
            until: When that must be over, by time.monotonic().
        """
        made: List[Connection] = []
        try:
            for _ in range(self._first_connections):
                made.append(await self.checkout(until))
        finally:
            for connection in made:
                self.release(connection)

    def close(self) -> None:
        """Close idle connections now, and the others when they are returned. Waiting
        callers get ServiceNotOpen.
        """
        self.closed = True
        waiters = self._slots.dismiss()
        if self._loop is not None and not self._loop.is_closed():
            for waiter in waiters:
                waiter.wake(None)
            self._set_timer()
        for connection in self._store.prune(float("inf")):
            connection.quit()
        self.budgets.dismiss()

    def resize(self, config: DatabaseConfig) -> None:
        """Change ``pool_size`` and ``max_overflow``. Connections in use stay; those
        above the limit are closed when they are returned.

        Args:
            config: The same configuration with other sizes.
        """
        self._set_config(config)
        waiter = self._slots.fill()
        while waiter is not None:
            self._slots.served(waiter)
            waiter.wake(True)
            waiter = self._slots.fill()
        for connection in self._store.resize(config):
            connection.quit()
        self.budgets.changed()

    def prune_idle(self) -> None:
        """Close connections that were idle for too long or are retired, and log those
        that seem to be leaked.
        """
        if self.config.max_idle is not None:
            for connection in self._store.prune(time.monotonic() - self.config.max_idle):
                connection.quit()
        for connection in self._store.prune_retired():
            connection.quit()
        self._warn_of_leaks()
        self.budgets.changed()

    async def wait_unused(self, seconds: float) -> None:
        """Wait until no slot is taken.

        Args:
            seconds: How long at most.
        """
        loop = asyncio.get_running_loop()
        if not self._slots.in_use or self._loop is not loop:
            return
        unused: asyncio.Future[None] = loop.create_future()
        self._unused.append(unused)
        await asyncio.wait({unused}, timeout=max(0.0, seconds))

    async def wait_for_kills(self, seconds: float) -> None:
        """Wait until all abandoned sessions have been killed on the server, and give up
        on the others after the time limit.

        Args:
            seconds: How long at most.
        """
        killer = self._killer
        if killer is not None and killer.get_loop() is asyncio.get_running_loop():
            await asyncio.wait({killer}, timeout=seconds)
            killer.cancel()
            # it still closes what it has open, which needs no answer
            await asyncio.wait({killer}, timeout=seconds)

    async def checkout(self, until: Optional[float] = None) -> Connection:
        """Return a connection that is open and responsive, for this caller until
        ``release``.

        Args:
            until: When it must be there, by time.monotonic(); None for no limit but
                ``pool_timeout`` and ``connect_timeout``.

        Raises:
            PoolTimeout: None became free within ``pool_timeout``.
            DeadlineExceeded: None before ``until``.
            ShardUnavailable: It could not be connected, and is a shard's.
            ConnectionFailed: It could not be connected.
            ServiceNotOpen: The pool is closed.
            InterfaceError: The pool belongs to another event loop.
        """
        if self.closed:
            raise self._closed_error()
        if self._loop is not asyncio.get_running_loop():
            self._adopt(asyncio.get_running_loop())
        if self.admission is not None:
            self.admission.check(self.load, self.name, self.shard_id)
        self.retry_budget.earn()
        lease = object()
        connection: Optional[Connection] = None
        if not self._slots.take(lease):
            connection = await self._wait_for_slot(lease, until)
        try:
            now = time.monotonic()
            connection = connection or self._store.take()
            while True:
                if connection is None:
                    connection = await self._open_session(until)
                if connection.wire is _RESETTING:
                    await self._finish_reset(
                        connection, now + self.config.connect_timeout if until is None else until
                    )
                if not connection.is_stale() and not connection.is_too_old(now):
                    break
                connection.quit()
                connection = self._store.take()
            connection.lease = lease
            self._record_checkout(connection, now)
            return connection
        except BaseException:
            self._return(lease, connection)
            raise

    def release(self, connection: Connection) -> None:
        """Take a connection back. A changed session is reset or closed.

        It never waits, so a cancelled task can call it.

        Args:
            connection: What ``checkout`` returned; a second call does nothing.
        """
        self._check_in(connection)
        self.budgets.changed()

    def discard(self, connection: Connection) -> None:
        """Take a connection back and close it, whatever its state.

        Args:
            connection: What ``checkout`` gave.
        """
        if not connection.needs_kill:
            connection.quit()
        self._check_in(connection)
        self.budgets.changed()

    def abandon(self, connection: Connection) -> None:
        """Take back a connection whose borrower was garbage-collected.

        May be called in any thread.

        Args:
            connection: What ``checkout`` returned.
        """
        if self._loop is None or self._loop.is_closed() or sys.is_finalizing():
            connection.abort()
        else:
            self._loop.call_soon_threadsafe(self.discard, connection)

    async def _open_session(self, until: Optional[float]) -> Connection:
        """Open a new connection, or return one that was returned to the pool during the
        wait for a server's budget.
        """
        made: List[Connection] = []
        reused: Optional[Connection] = await run_plan(
            connect.connecting(self, until), lambda step: self._connect(step, made)
        )
        if reused is not None:
            return reused
        self.opened += 1
        return made[0]

    async def _connect(self, step: steps.Step, made: List[Connection]) -> None:
        if isinstance(step, (steps.Sleep, steps.AwaitSignal)):
            await run_step(step)
            return
        if isinstance(step, steps.AwaitPermit):
            await self._await_permit(step)
            return
        assert isinstance(step, steps.Connect)
        began = time.monotonic()
        try:
            if self._tls is None:
                self._tls = self._tls_context()
            connection = Connection(self.config, self._tls)
            if step.permit is not None:
                step.permit.attach(connection)
            await connection.open_session(step.until, step.endpoint)
        except errors.ConnectionFailed as error:
            self._connect_failed(error, step.endpoint, began, step.until)
            raise
        if not step.any_role:
            self.record_connected(connection, step.endpoint, began, replica=step.replica)
        made.append(connection)

    async def _await_permit(self, step: steps.AwaitPermit) -> None:
        loop = asyncio.get_running_loop()
        decided: asyncio.Future[None] = loop.create_future()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                loop.call_soon_threadsafe(_set_done, decided)

        for permit in step.permits:
            permit.on_decision(wake)
        await asyncio.wait({decided}, timeout=step.seconds)

    async def _finish_reset(self, connection: Connection, until: float) -> None:
        try:
            await connection.finish_reset(until)
        except errors.DRIVER_ERRORS:
            connection.abort()

    async def _wait_for_slot(self, lease: object, until: Optional[float]) -> Optional[Connection]:
        """Wait for a slot.

        Returns:
            The connection of whoever had it before.
        """
        assert self._loop is not None
        self.check_buffer()
        began = time.monotonic()
        expires_at = began + self.config.pool_timeout
        waiter = _Waiter(self._loop, expires_at if until is None else min(expires_at, until))
        self._slots.queue(waiter, lease)
        if waiter.expires_at < self._timer_at:
            self._set_timer()
        self._start_killer()
        try:
            has_slot = await waiter.future
        except BaseException:
            if not self._slots.withdraw(waiter):
                self._return(lease, waiter.connection)
            raise
        self.record_wait(time.monotonic() - began, timed_out=has_slot is False)
        if has_slot:
            return waiter.connection
        if has_slot is None:
            raise self._closed_error()
        if waiter.expires_at < expires_at:
            raise self._deadline_error("waiting for a connection")
        raise self._timeout(time.monotonic() - began)

    def _set_timer(self) -> None:
        """Set the timer to the earliest timeout of a waiter.

        There is one timer for all waiters, because setting one takes longer than most
        waits.
        """
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None
        self._timer_at = min(
            [waiter.expires_at for waiter in self._slots.waiters()], default=float("inf")
        )
        if self._loop is not None and self._slots.waiting:
            left = max(0.0, self._timer_at - time.monotonic())
            self._timer = self._loop.call_later(left, self._expire)

    def _expire(self) -> None:
        now = time.monotonic()
        for waiter in self._slots.waiters():
            if waiter.expires_at <= now and self._slots.withdraw(waiter):
                waiter.wake(False)
        self._set_timer()

    def _return(self, lease: object, connection: Optional[Connection]) -> None:
        """Release a slot whose connection was not handed out after all."""
        if connection is None:
            self._give(lease, None)
        else:
            connection.lease = lease
            self._check_in(connection)
        self.budgets.changed()

    def _check_in(self, connection: Connection) -> None:
        """Hand the slot and the connection to the next waiter; without one, store the
        connection and release the slot.
        """
        lease = connection.lease
        if lease is None:
            return
        self._checked_out.pop(id(connection), None)
        self._note_refusal(connection)
        disposition = self.disposition(connection)
        if disposition is not _REUSE and not self._make_reusable(disposition, connection):
            return
        connection.lease = None
        kept: Optional[Connection] = connection
        waiting = self._slots.waiting
        if disposition is _CLOSE:
            kept = None
        elif self._is_surplus(connection, waiting):
            connection.quit()
            kept = None
        elif not waiting:
            self._store.put(connection)
        self._give(lease, kept)

    def _make_reusable(self, disposition: Disposition, connection: Connection) -> bool:
        """Carry out the disposition of a returned connection.

        Returns:
            False if its slot stays taken.
        """
        if disposition is Disposition.KILL:
            self._kills.add(connection)
            self._start_killer()
        elif disposition is Disposition.KILLER_OWNS_IT:
            connection.kill_state = KillState.NONE
        elif disposition is _CLOSE:
            connection.quit()
            return True
        elif disposition is not Disposition.DROP:
            connection.begin_reset(only_diagnostics=disposition is Disposition.CLEAR)
            return True
        return False

    def _give(self, lease: object, connection: Optional[Connection]) -> None:
        """Hand a slot to the next waiter, or release it."""
        waiter = self._slots.give(lease)
        if waiter is not None:
            self._slots.served(waiter)
            waiter.connection = connection
            waiter.wake(True)
        while self._unused and not self._slots.in_use:
            unused = self._unused.popleft()
            if not unused.done():
                unused.set_result(None)

    # Sessions that are killed on the server; see SessionKiller.

    def kill_checked_out(self, connection: Connection) -> None:
        """Kill the session of a connection that its borrower may still hold or wait on.
        The connection is checked in when the borrower has returned it.

        Args:
            connection: What ``checkout`` gave.
        """
        connection.kill_state = KillState.PENDING
        self._kills.add(connection)
        self._start_killer()

    def _start_killer(self) -> None:
        """Start the task that kills sessions, if there are any to kill."""
        if self._kills and (self._killer is None or self._killer.done()):
            assert self._loop is not None
            self._killer = background_task(self._kill_sessions(), "dualdb-kill", self._loop)

    async def _kill_sessions(self) -> None:
        spare: List[Connection] = []
        job: Optional[KillJob] = None
        try:
            while self._kills:
                job = self._kills.next()
                assert job is not None
                over = await self._kill_one(job, spare)
                job = None
                if not over:
                    await asyncio.sleep(self._kills.retry_interval)
        finally:
            # cancelled: the pool is closed, and whoever waits for these has gone
            if job is not None:
                self._kills.put_back(job)
            for connection in spare:
                connection.quit()
            if self.closed:
                while self._kills:
                    left = self._kills.next()
                    if left is not None:
                        left.connection.quit()

    async def _kill_one(self, job: KillJob, spare: List[Connection]) -> bool:
        """Make one attempt to kill a session.

        Returns:
            Whether nothing more is done about the session.
        """
        connection = job.connection
        over = True
        try:
            silent = self.breaker.is_open or connection.lifetime.endpoint.timeouts
            if not connection.peer_closed() and not silent:
                outcome = await self._send_kill(job, spare)
                ended = self.closed or connection.peer_closed()
                over = self._kills.is_over(job, outcome, closed=ended)
        except Exception as error:  # whatever it is, the next session is to be killed
            self._kills.warn_failed(job, error)
            while spare:
                spare.pop().abort()
        if over:
            self._finish_kill(job)
        return over

    async def _send_kill(self, job: KillJob, spare: List[Connection]) -> kill.KillOutcome:
        session = job.connection.facts
        if session.lock is None:
            self._kills.warn_unproven(job)
            return kill.KillOutcome.ENDED
        endpoint = job.connection.lifetime.endpoint
        limit = self._connect_limit(endpoint)
        if spare and spare[0].lifetime.endpoint is not endpoint:
            spare.pop().quit()
        if not spare:
            until = time.monotonic() + limit
            await self._connect(steps.Connect(until, endpoint, any_role=True), spare)
        outcome: kill.KillOutcome = await run_plan(
            kill.end_session(session, spare[0].facts),
            lambda command: spare[0].run(command, time.monotonic() + limit),
        )
        if outcome is kill.KillOutcome.NOT_FOUND:
            spare.pop().quit()  # another connection may reach another server
        return outcome

    def _finish_kill(self, job: KillJob) -> None:
        """Finish a kill that has succeeded or was given up. If the borrower has not
        returned the connection yet, the borrower checks it in.
        """
        connection = job.connection
        if connection.kill_state is KillState.PENDING:
            connection.kill_state = KillState.DONE
            connection.wire = WireState.CLOSED
            return
        connection.abort()
        connection.wire = WireState.CLOSED
        self._check_in(connection)
        self.budgets.changed()

    def _adopt(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is not None and not self._loop.is_closed():
            raise errors.InterfaceError(
                f"the connections of {self.name} belong to another event loop: "
                "close the service in the loop that opened it, and open it again in this one"
            )
        if self._loop is not None:
            # Its loop is gone, and with it whoever had or awaited one of these.
            left = [*self._store.prune(float("inf")), *self._connections_out()]
            while self._kills:
                job = self._kills.next()
                if job is not None:
                    left.append(job.connection)
            for connection in left:
                connection.inherited = True
                connection.abort()
            self._reset()
        self._loop = loop


def _set_done(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)
