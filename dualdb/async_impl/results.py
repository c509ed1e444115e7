"""What a call gives back in asyncio: a coroutine of each result."""

from typing import Any, Coroutine, Dict, List, Optional

from ..results import CallResult, Row, RowCount
from ..topology.admin import DrainReport

Rows = Coroutine[Any, Any, List[Row]]


OneRow = Coroutine[Any, Any, Optional[Row]]


Value = Coroutine[Any, Any, Any]


Column = Coroutine[Any, Any, List[Any]]


Count = Coroutine[Any, Any, RowCount]


Called = Coroutine[Any, Any, CallResult]


Int = Coroutine[Any, Any, int]


Ids = Coroutine[Any, Any, List[int]]


Report = Coroutine[Any, Any, Dict[str, Any]]


Drained = Coroutine[Any, Any, DrainReport]


Done = Coroutine[Any, Any, None]


Str = Coroutine[Any, Any, str]
