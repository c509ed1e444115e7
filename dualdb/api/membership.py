"""Which open transaction a call takes part in, and whose last insert it asks for.

A thread is not a flow of control: a web framework enters a block in one worker thread
and lends that thread to other requests. So a call takes part in an open transaction
only if two things are those that entered its block: the context (``contextvars``), and
the thread, task or greenlet, here the *caller*.
"""

import weakref
from contextvars import ContextVar
from typing import Any, List, Literal, Optional, Tuple
from weakref import WeakKeyDictionary

from .. import blocks

#: What becomes of a call by somebody else in a context that has an open transaction on
#: the database that is called: outside with a warning, an error, or inside.
ChildTasks = Literal["warn", "error", "join"]


def checked(child_tasks: ChildTasks) -> ChildTasks:
    """The argument.

    Raises:
        ValueError: It is another word.
    """
    if child_tasks not in ("warn", "error", "join"):
        raise ValueError(f"child_tasks is 'warn', 'error' or 'join', not {child_tasks!r}")
    return child_tasks


_open: ContextVar[Tuple["weakref.ref[Any]", ...]] = blocks.variable("dualdb_transactions", ())


class Entry:
    """Who entered a block, and where.

    A generator shares the context and the thread of the caller that resumes it. While
    it is suspended inside its block the block is not that caller's, unless the
    generator is a ``contextlib.contextmanager``, which is a block of its caller.
    """

    __slots__ = ("__weakref__", "_caller", "_code", "_generator", "_line")

    def __init__(self, caller: object) -> None:
        self._caller = weakref.ref(caller)
        frame = blocks.user_frame(blocks.BLOCK_MAKERS)
        self._code = None if frame is None else frame.f_code
        self._line = 0 if frame is None else frame.f_lineno
        self._generator = blocks.suspendable(blocks.user_frame())

    @property
    def place(self) -> str:
        """File and line of the block."""
        return "?" if self._code is None else f"{self._code.co_filename}:{self._line}"

    def is_by(self, caller: object) -> bool:
        """True if this caller entered the block and is running inside it."""
        return self._caller() is caller and (
            self._generator is None or blocks.runs(self._generator)
        )

    def covers(self, caller: object) -> bool:
        """True if this caller runs inside the block: it entered it, or was started
        there and so has inherited its context.
        """
        if self._caller() is caller:
            return self.is_by(caller)
        return any(reference() is self for reference in _savepoints.get())

    def left(self) -> None:
        """Forget the generator: its frame refers to the block."""
        self._generator = None


#: The entries of the savepoints that were entered in this context.
_savepoints: ContextVar[Tuple["weakref.ref[Entry]", ...]] = blocks.variable("dualdb_savepoints", ())


def enter_savepoint(entry: Entry) -> None:
    """Make a savepoint one of this context's, and of those that inherit it."""
    kept = [reference for reference in _savepoints.get() if reference() is not None]
    _savepoints.set((*kept, weakref.ref(entry)))


# The transactions are held weakly: the finaliser of one that is not referenced any more
# closes its connection, and no call takes part in it.


def enter(transaction: Any) -> None:
    """Make an outermost transaction one of this context's."""
    _open.set((*_others(transaction), weakref.ref(transaction)))


def leave(transaction: Any) -> None:
    """Forget a transaction that is over, if this context has it.

    It may be left in another context than it was entered in, where it is found and
    ignored: it is not open.
    """
    if _open.get():
        _open.set(_others(transaction))


def _others(transaction: Any) -> Tuple["weakref.ref[Any]", ...]:
    kept = []
    for reference in _open.get():
        found = reference()
        if found is not None and found is not transaction and found.is_open:
            kept.append(reference)
    return tuple(kept)


#: Falsy where no transaction is open in this context.
references = _open.get


def open_transactions() -> List[Any]:
    """The outermost transactions that are open in this context, for any caller."""
    references = _open.get()
    if not references:
        return []
    found = [reference() for reference in references]
    return [each for each in found if each is not None and each.is_open]


class LastInserts:
    """The last AUTO_INCREMENT id of each caller, which its own context alone has."""

    def __init__(self) -> None:
        self._ids: WeakKeyDictionary[Any, Tuple[object, int]] = WeakKeyDictionary()

    def record(self, caller: object, lastrowid: int) -> None:
        """Keep the id that an INSERT of this caller made."""
        self._ids[caller] = (_context_of(caller), lastrowid)

    def last(self, caller: object) -> int:
        """The last id; 0 where this caller made none in this context."""
        context, lastrowid = self._ids.get(caller, (None, 0))
        return lastrowid if context is _context_of(caller) else 0


_contexts: ContextVar[Optional[Tuple["weakref.ref[Any]", object]]] = ContextVar(
    "dualdb_context", default=None
)


def _context_of(caller: object) -> object:
    """Stands for the context of this caller.

    What is inherited from another caller's context is no longer that context: the next
    request of a worker thread must not be given the last one's id.
    """
    known = _contexts.get()
    if known is None or known[0]() is not caller:
        known = (weakref.ref(caller), object())
        _contexts.set(known)
    return known[1]
