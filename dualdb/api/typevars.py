"""What a call gives back, as type variables: a public method stands once, and each
colour binds them.

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
NoneR = TypeVar("NoneR")  # None

MadeT = TypeVar("MadeT")  # what a row is made, by as_

TransactionT = TypeVar("TransactionT")  # the colour's Transaction
ConnectionT = TypeVar("ConnectionT")  # the colour's borrowed raw connection
TargetT = TypeVar("TargetT")  # the colour's Target
ScatterT = TypeVar("ScatterT")  # the colour's Scatter
MergeT = TypeVar("MergeT")  # the colour's Merge
ClientT = TypeVar("ClientT")  # the colour's MySQLClient


# What a call gives back that depends on its arguments, too, cannot be a type variable
# of the class: overloads say it for each colour, of a ``self`` that only the one
# colour's classes are.


class InThreads(Protocol):
    """Whatever has its answer at once."""

    _colour: Literal["threads"]


class InTasks(Protocol):
    """Whatever has its answer awaited."""

    _colour: Literal["tasks"]
