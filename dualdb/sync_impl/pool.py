"""The threaded pool: DBUtils stores the idle connections, and a fair wait queue with
time limits bounds them. No I/O happens under a lock.

Signal handlers raise between any two instructions of the main thread (a time limit of
Celery's does). So a slot belongs to a ``_Lease`` that goes with its connection: when
both are lost on the way, its weak reference frees the slot, by code in C alone, as are
the locks and what waits on them.
"""

import contextlib
import logging
import sys
import threading
import time
import weakref
from collections import deque
from typing import Deque, List, Optional

from .. import errors, fork_safety
from ..config import DatabaseConfig
from ..execution import connect, steps
from ..execution.permits import RECHECK_INTERVAL
from ..observability.logs import about
from ..pooling.base import BasePool, Disposition
from ..pooling.server_budget import ServerBudget
from ..pooling.session_killer import KillJob
from ..pooling.slots import Slots
from ..protocol import kill
from ..protocol.connection_state import KillState, WireState
from .connection import Connection
from .idle_store import IdleStore
from .runner import run_plan, run_step

log = logging.getLogger("dualdb.pool")

# An enum's member takes longer to look up than a name of the module.
_REUSE = Disposition.REUSE
_RESETTING = WireState.RESETTING


class _Ref(weakref.ref):  # type: ignore[type-arg]
    """A weak reference that is equal to itself only, even after its object is gone."""

    __slots__ = ()
    __hash__ = object.__hash__
    __eq__ = object.__eq__


class _Lease:
    """The right to a slot. In the pool's slots it is represented by ``ref``, so that a
    lost lease frees its slot.
    """

    __slots__ = ("__weakref__", "ref")

    def __init__(self, lost: Deque[_Ref]) -> None:
        self.ref: Optional[_Ref] = _Ref(self, lost.append)


class _Waiter:
    """A caller who waits for a slot, and what was handed over."""

    __slots__ = ("_ready", "connection", "error")

    def __init__(self) -> None:
        self.connection: Optional[Connection] = None
        self.error: Optional[BaseException] = None
        self._ready = threading.Lock()
        self._ready.acquire()

    def wait(self, seconds: float) -> bool:
        """Wait to be woken; return False after a timeout."""
        return self._ready.acquire(timeout=min(seconds, threading.TIMEOUT_MAX))

    def wake(
        self, connection: Optional[Connection] = None, error: Optional[BaseException] = None
    ) -> None:
        """Hand over a connection, the slot alone, or an error."""
        self.connection = connection
        self.error = error
        with contextlib.suppress(RuntimeError):  # woken before
            self._ready.release()


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
        self._lock = threading.Lock()
        self._slots: Slots[_Waiter] = Slots(self.config.pool_size + self.config.max_overflow)
        self._store: IdleStore = IdleStore(self.config)
        self._lost: Deque[_Ref] = deque()
        self._abandoned: Deque[Connection] = deque()
        self._killer: Optional[threading.Thread] = None
        self._unused: Deque[_Waiter] = deque()

    def _forked(self) -> None:
        fork_safety.never_finalize(self._store, self._slots, self._kills, self._abandoned)
        self._reset()

    def _idle_count(self) -> int:
        return self._store.count()

    def take_idle(self) -> Optional[Connection]:
        """See ``BasePool``; may be called in any thread."""
        if not self._store.count():
            return None
        connection = self._store.take()
        return connection if connection.open else None

    def take_oldest_idle(self, budget: ServerBudget) -> Optional[Connection]:
        """See ``BasePool``; may be called in any thread."""
        return self._store.take_oldest(budget)

    def open(self, until: Optional[float] = None) -> None:
        """Open ``warm_up`` connections, if there are none.

        Args:
            until: When that must be over, by time.monotonic().
        """
        made: List[Connection] = []
        try:
            for _ in range(self._first_connections):
                made.append(self.checkout(until))
        finally:
            for connection in made:
                self.release(connection)

    def close(self) -> None:
        """Close idle connections now, and the others when they are returned. Waiting
        callers get ServiceNotOpen.
        """
        with self._lock:
            self.closed = True
            waiters = self._slots.dismiss()
        for waiter in waiters:
            waiter.wake(error=self._closed_error())
        for connection in self._store.prune(float("inf")):
            connection.quit()
        self.budgets.dismiss()

    def resize(self, config: DatabaseConfig) -> None:
        """Change ``pool_size`` and ``max_overflow``. Connections in use stay; those
        above the limit are closed when they are returned.

        Args:
            config: The same configuration with other sizes.
        """
        with self._lock:
            self._set_config(config)
            waiter = self._slots.fill()
            while waiter is not None:
                waiter.wake()
                self._slots.served(waiter)
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
        self._start_killer()
        self.budgets.changed()

    def wait_unused(self, seconds: float) -> None:
        """Wait until no slot is taken.

        Args:
            seconds: How long at most.
        """
        waiter = _Waiter()
        with self._lock:
            self._free_lost()
            if not self._slots.in_use:
                return
            self._unused.append(waiter)
        waiter.wait(max(0.0, seconds))

    def wait_for_kills(self, seconds: float) -> None:
        """Wait until all abandoned sessions have been killed on the server.

        Args:
            seconds: How long at most.
        """
        killer = self._killer
        if killer is not None and killer.is_alive():
            killer.join(seconds)

    def checkout(self, until: Optional[float] = None) -> Connection:
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
        """
        lease = _Lease(self._lost)
        connection = None
        try:
            connection = self._acquire_slot(lease, until) or self._store.take()
            now = time.monotonic()
            while True:
                connection.lease = lease
                if connection.wire is _RESETTING:
                    self._finish_reset(
                        connection, now + self.config.connect_timeout if until is None else until
                    )
                if connection.open:
                    if not connection.is_stale() and not connection.is_too_old(now):
                        break
                    connection.quit()
                connection = self._open_session(connection, until)
            self._record_checkout(connection, now)
            return connection
        except BaseException:
            self._return(lease, connection)
            raise

    def checkout_idle(self) -> Optional[Connection]:
        """Return a connection that is available at once; None if the caller would have
        to wait. See ``checkout``.
        """
        lease = _Lease(self._lost)
        connection = None
        with self._lock:
            self._free_lost()
            admitted = self.admission is None or self.admission.admits(self.load)
            if self.closed or not admitted or not self._slots.take(lease.ref):
                return None
            self.retry_budget.earn()
        try:
            connection = self._store.take()
            connection.lease = lease
            now = time.monotonic()
            ready = (
                connection.open
                and connection.wire is WireState.IDLE
                and not connection.is_too_old(now)
                and not connection.is_stale()
            )
            if ready and connection.uses_own_decoder:
                self._record_checkout(connection, now)
                return connection
        except BaseException:
            self._return(lease, connection)
            raise
        self._return(lease, connection)
        return None

    def release(self, connection: Connection) -> None:
        """Take a connection back. A changed session is reset or closed.

        Args:
            connection: What ``checkout`` gave; returned a second time nothing is done.
        """
        self._check_in(connection)
        self.budgets.changed()

    def discard(self, connection: Connection) -> None:
        """Take a connection back and close it, whatever its state.

        Args:
            connection: What ``checkout`` gave.
        """
        self._discard(connection)
        self.budgets.changed()

    def _discard(self, connection: Connection) -> None:
        if not connection.needs_kill:
            connection.quit()
        self._check_in(connection)

    def abandon(self, connection: Connection) -> None:
        """Take back a connection whose borrower was garbage-collected.

        The garbage collector may run in a thread that holds this pool's lock; then
        whoever holds the lock takes it back afterwards. While the interpreter shuts
        down, the connection is only closed, because no thread can be started to kill
        its session.

        Args:
            connection: What ``checkout`` returned.
        """
        if sys.is_finalizing():
            connection.abort()
            return
        self._abandoned.append(connection)
        if self._lock.acquire(blocking=False):
            self._lock.release()
            self._collect()

    def _collect(self) -> None:
        while self._abandoned:
            with contextlib.suppress(IndexError):
                self._discard(self._abandoned.popleft())

    def _open_session(self, connection: Connection, until: Optional[float]) -> Connection:
        """Connect a connection. Return another one if it was returned to the pool
        during the wait for a server's budget.
        """
        reused: Optional[Connection] = run_plan(
            connect.connecting(self, until), lambda step: self._connect(step, connection)
        )
        if reused is not None:
            return reused
        self.opened += 1
        return connection

    def _connect(self, step: steps.Step, connection: Connection) -> None:
        if isinstance(step, (steps.Sleep, steps.AwaitSignal)):
            run_step(step)
            return
        if isinstance(step, steps.AwaitPermit):
            waiter = _Waiter()
            for permit in step.permits:
                permit.on_decision(waiter.wake)
            waiter.wait(step.seconds)
            return
        assert isinstance(step, steps.Connect)
        if step.permit is not None:
            step.permit.attach(connection)
        began = time.monotonic()
        try:
            if self._tls is None:
                self._tls = self._tls_context()
            connection.open_session(self._tls, step.until, step.endpoint)
        except errors.ConnectionFailed as error:
            self._connect_failed(error, step.endpoint, began, step.until)
            raise
        if not step.any_role:
            self.record_connected(connection, step.endpoint, began, replica=step.replica)

    def _finish_reset(self, connection: Connection, until: float) -> None:
        try:
            connection.finish_reset(until)
        except errors.DRIVER_ERRORS:
            connection.abort()

    def _acquire_slot(self, lease: _Lease, until: Optional[float]) -> Optional[Connection]:
        """Wait for a slot.

        Returns:
            The connection of whoever had it before, if there was no slot free at once.
        """
        with self._lock:
            if self.closed:
                raise self._closed_error()
            if self._lost:
                self._free_lost()
            if self.admission is not None:
                self.admission.check(self.load, self.name, self.shard_id)
            self.retry_budget.earn()
            if self._slots.take(lease.ref):
                return None
            self.check_buffer()
            waiter = _Waiter()
            self._slots.queue(waiter, lease.ref)
        self._collect()
        self._start_killer(waiting=True)
        began = time.monotonic()
        limit = (
            self.config.pool_timeout
            if until is None
            else min(self.config.pool_timeout, max(0.0, until - began))
        )
        try:
            self._wait(waiter, lease, began + limit)
            with self._lock:
                withdrawn = self._slots.withdraw(waiter)
            self.record_wait(time.monotonic() - began, timed_out=withdrawn)
        except BaseException:
            with self._lock:
                self._slots.withdraw(waiter)
            self._return(lease, waiter.connection)
            raise
        if waiter.error is not None:
            raise waiter.error
        if not withdrawn:
            return waiter.connection
        if limit < self.config.pool_timeout:
            raise self._deadline_error("waiting for a connection")
        raise self._timeout(time.monotonic() - began)

    def _wait(self, waiter: _Waiter, lease: _Lease, until: float) -> None:
        """Wait until a waiter is woken, or its lease has a slot, or for so long."""
        left = until - time.monotonic()
        while not waiter.wait(min(max(left, 0.0), RECHECK_INTERVAL)):
            with self._lock:
                # Of a caller who was interrupted before it woke this one.
                self._free_lost()
                left = until - time.monotonic()
                if left <= 0 or self._slots.has(lease.ref):
                    break

    def _return(self, lease: _Lease, connection: Optional[Connection]) -> None:
        """Release a slot whose connection was not handed out after all."""
        if connection is None:
            with self._lock:
                self._give(lease, None)
        else:
            connection.lease = lease
            self._check_in(connection)
        self.budgets.changed()

    def _check_in(self, connection: Connection) -> None:
        """Hand the slot and the connection to the next waiter; without one, store the
        connection and release the slot.
        """
        lease: Optional[_Lease] = connection.lease
        if lease is None:
            return
        self._checked_out.pop(id(connection), None)
        self._note_refusal(connection)
        if self._abandoned:
            self._collect()
        with self._lock:
            disposition = self.disposition(connection)
            if disposition is _REUSE:
                if self._pass_on(lease, connection):
                    return
            elif disposition is Disposition.KILLER_OWNS_IT:
                connection.kill_state = KillState.NONE
        if disposition in (Disposition.DROP, Disposition.KILLER_OWNS_IT):
            return
        if disposition is Disposition.KILL:
            self._kills.add(connection)
            self._start_killer()
            return
        try:
            self._carry_out(disposition, connection)
        except BaseException:
            connection.abort()
            with self._lock:
                self._give(lease, None)
            raise
        with self._lock:
            if self._pass_on(lease, connection):
                return
        connection.quit()
        with self._lock:
            self._pass_on(lease, connection)

    def _carry_out(self, disposition: Disposition, connection: Connection) -> None:
        if disposition in (Disposition.CLOSE, Disposition.REUSE):
            connection.quit()
            return
        try:
            connection.begin_reset(only_diagnostics=disposition is Disposition.CLEAR)
        except errors.DRIVER_ERRORS:
            connection.abort()

    def _pass_on(self, lease: _Lease, connection: Connection) -> bool:
        """Hand a connection to the next waiter, or to the store; return False if it
        must be closed first. The caller holds the lock.
        """
        waiting = self._slots.waiting
        if self._is_surplus(connection, waiting) and connection.open:
            return False
        connection.lease = None
        if not waiting:
            self._store.put(connection)
        self._give(lease, connection)
        return True

    def _give(self, lease: _Lease, connection: Optional[Connection]) -> None:
        """Hand a slot to the next waiter, or release it. The caller holds the lock."""
        waiter = self._slots.give(lease.ref)
        if waiter is not None:
            waiter.wake(connection)
            self._slots.served(waiter)
        elif self._unused:
            self._wake_unused()
        # Not lost, however soon it is gone.
        lease.ref = None

    def _free_lost(self) -> None:
        """Free the slots whose leases are gone. The caller holds the lock."""
        while self._lost:
            # It stays until its slot is free: a signal may come in between.
            waiter = self._slots.forget(self._lost[0])
            if waiter is not None:
                waiter.wake()
                self._slots.served(waiter)
            self._lost.popleft()
        self._wake_unused()

    def _wake_unused(self) -> None:
        """Wake those who wait until no slot is taken, if that is so. The caller holds
        the lock.
        """
        while self._unused and not self._slots.in_use:
            self._unused.popleft().wake()

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

    def _start_killer(self, *, waiting: bool = False) -> None:
        """Start the thread that kills sessions, if there are any to kill.

        If no thread can be started, the next kill, the next caller who waits, or the
        service's maintenance tries again. If it fails for a waiting caller too, the
        connections are closed instead.
        """
        if not self._kills:
            return
        with self._lock:
            if self._killer is not None and self._killer.is_alive():
                return
            self._killer = killer = threading.Thread(
                target=self._kill_sessions, name="dualdb-kill", daemon=True
            )
        try:
            killer.start()
        except (RuntimeError, MemoryError) as error:
            log.warning(
                "%s: sessions cannot be killed for now: %s",
                self.name,
                error,
                extra=about("kill_not_started", self),
            )
            self._give_up_kills(0 if waiting else 1)

    def _give_up_kills(self, kept: int) -> None:
        """Close the connections that wait for a kill, except a given number."""
        while len(self._kills) > kept:
            job = self._kills.next()
            if job is not None:
                self._finish_kill(job)

    def _kill_sessions(self) -> None:
        spare = Connection(self.config)
        try:
            while True:
                with self._lock:
                    job = self._kills.next()
                    if job is None:
                        self._killer = None
                        return
                if not self._kill_one(job, spare):
                    time.sleep(self._kills.retry_interval)
        finally:
            spare.quit()

    def _kill_one(self, job: KillJob, spare: Connection) -> bool:
        """Make one attempt to kill a session.

        Returns:
            Whether nothing more is done about the session.
        """
        connection = job.connection
        over = True
        try:
            silent = self.breaker.is_open or connection.lifetime.endpoint.timeouts
            if not connection.peer_closed() and not silent:
                outcome = self._send_kill(job, spare)
                ended = self.closed or connection.peer_closed()
                over = self._kills.is_over(job, outcome, closed=ended)
        except BaseException as error:  # whatever it is, the next session is to be killed
            self._kills.warn_failed(job, error)
            spare.abort()
        if over:
            self._finish_kill(job)
        return over

    def _send_kill(self, job: KillJob, spare: Connection) -> kill.KillOutcome:
        session = job.connection.facts
        if session.lock is None:
            self._kills.warn_unproven(job)
            return kill.KillOutcome.ENDED
        endpoint = job.connection.lifetime.endpoint
        limit = self._connect_limit(endpoint)
        if spare.open and spare.lifetime.endpoint is not endpoint:
            spare.quit()
        if not spare.open:
            until = time.monotonic() + limit
            self._connect(steps.Connect(until, endpoint, any_role=True), spare)
        outcome: kill.KillOutcome = run_plan(
            kill.end_session(session, spare.facts),
            lambda command: spare.run(command, time.monotonic() + limit),
        )
        if outcome is kill.KillOutcome.NOT_FOUND:
            spare.quit()  # another connection may reach another server
        return outcome

    def _finish_kill(self, job: KillJob) -> None:
        """Finish a kill that has succeeded or was given up. If the borrower has not
        returned the connection yet, the borrower checks it in.
        """
        connection = job.connection
        with self._lock:
            held = connection.kill_state is KillState.PENDING
            if held:
                connection.kill_state = KillState.DONE
                connection.wire = WireState.CLOSED
        if held:
            return
        with contextlib.suppress(Exception):
            connection.abort()
        connection.wire = WireState.CLOSED
        self._check_in(connection)
        self.budgets.changed()
