"""Type variables of what a call returns: a public method is written once, and each
implementation binds them.

In threads ``RowsR`` is ``list[Row]``; in asyncio it is ``Coroutine[Any, Any,
list[Row]]``; and so on. A Coroutine and not an Awaitable, because a type checker then
reports a forgotten ``await``, and ``create_task`` takes it.
"""

from typing import Literal, Protocol, TypeVar

RowsR = TypeVar("RowsR")  # list[Row]
RowR = TypeVar("RowR")  # Optional[Row]
ValueR = TypeVar("ValueR")  # Any
ColumnR = TypeVar("ColumnR")  # list[Any]
CountR = TypeVar("CountR")  # RowCount
CallR = TypeVar("CallR")  # CallResult
IntR = TypeVar("IntR")  # int
IdsR = TypeVar("IdsR")  # list[int]
ReportR = TypeVar("ReportR")  # dict[str, Any]
DrainR = TypeVar("DrainR")  # DrainReport
TotalsR = TypeVar("TotalsR")  # list[Row]
NoneR = TypeVar("NoneR")  # None

MadeT = TypeVar("MadeT")  # what a row is made, by as_
ResultT = TypeVar("ResultT")  # what a function of the user's returns

TransactionT = TypeVar("TransactionT")  # the implementation's Transaction
ConnectionT = TypeVar("ConnectionT")  # the implementation's borrowed raw connection
TargetT = TypeVar("TargetT")  # the implementation's Target
LockT = TypeVar("LockT")  # the implementation's Lock
ScatterT = TypeVar("ScatterT")  # the implementation's Scatter
ReaderT = TypeVar("ReaderT")  # the implementation's ScatterReader
MergeT = TypeVar("MergeT")  # the implementation's Merge
ClientT = TypeVar("ClientT")  # the implementation's MySQLClient


# A result whose type depends on the arguments, too, cannot be a type variable of the
# class. It has an overload for each implementation, chosen by the type of ``self``.


class InThreads(Protocol):
    """A class whose methods return their results: those of ``sync_impl``."""

    _io: Literal["threads"]


class InTasks(Protocol):
    """A class whose methods return coroutines: those of ``async_impl``."""

    _io: Literal["tasks"]
