"""A call while it runs: what interceptors see of it, and its times."""

from typing import Any, Dict, List, Optional, Protocol, Tuple, Union

from .digests import Digest, digest_of
from .events import QueryEvent, QueryEventName
from .tags import comment_of


class Sent(Protocol):
    """The part of a statement or procedure call that is observed."""

    @property
    def sql(self) -> str:
        """The statement without its parameters."""
        ...

    @property
    def params(self) -> Any:
        """The parameters as the caller passed them."""
        ...


class QueryCall:
    """A call that is about to be made, or has been made.

    Attributes:
        name: "query", or "scatter" for a call to several shards.
        target: "global", "shard 7", or "shards" for a scatter.
        shard_id: The shard's id; None for the global database and for a scatter.
        parent: The scatter that it is part of.
        sql: The statement as the caller wrote it, without its parameters; ``CALL name``
            for a procedure.
        began: When it began, by time.monotonic().
        tags: What is appended to the statement as a comment, by key.
        context: For the interceptor's own use.
    """

    __slots__ = (
        "_statement",
        "began",
        "context",
        "name",
        "parent",
        "shard_id",
        "sql",
        "tags",
        "target",
    )

    def __init__(
        self,
        name: QueryEventName,
        target: str,
        shard_id: Optional[int],
        statement: Sent,
        *,
        began: float,
        parent: "Optional[ObservedCall]" = None,
    ) -> None:
        self.name: QueryEventName = name
        self.target = target
        self.shard_id = shard_id
        self.parent = parent
        self.sql: str = statement.sql
        self.began = began
        self.tags: Dict[str, Union[str, int, None]] = {}
        self.context: Dict[str, Any] = {}
        self._statement = statement

    def __repr__(self) -> str:
        return f"<QueryCall {self.target}: {self.digest.statement}>"

    @property
    def params(self) -> Any:
        """The parameters as the caller passed them. They may be secret."""
        return self._statement.params

    @property
    def digest(self) -> Digest:
        """The statement without its values, and the id of that."""
        return digest_of(self.sql)


class ObservedCall(QueryCall):
    """A call whose attempts and times are recorded.

    Args:
        name: "query" or "scatter".
        target: The database's name.
        shard_id: The shard's id, or None.
        statement: The statement, or procedure call.
        began: When it began, by time.monotonic().
        parent: The call to several shards that it is part of.

    Attributes:
        place: The file and line of the caller, if they cannot be found at its end.
        rows: The number of rows that a stream has read.
    """

    __slots__ = ("_attempts", "_children", "_in_transaction", "_mark", "_waited", "place", "rows")

    def __init__(
        self,
        name: QueryEventName,
        target: str,
        shard_id: Optional[int],
        statement: Sent,
        *,
        began: float,
        parent: "Optional[ObservedCall]" = None,
    ) -> None:
        super().__init__(name, target, shard_id, statement, began=began, parent=parent)
        self.place: Optional[str] = None
        self.rows = 0
        self._attempts = 0
        #: Rows and attempts of each call that a scatter consists of.
        self._children: List[Tuple[int, int]] = []
        self._in_transaction = False
        self._waited = 0.0
        #: Since when it has been waiting, if it is sent again.
        self._mark = began

    @property
    def comment(self) -> bytes:
        """The tags as a comment; empty without any."""
        return comment_of(self.tags) if self.tags else b""

    def sending(self, now: float, *, in_transaction: bool) -> None:
        """Record that it has a connection, on which it is sent now."""
        self._attempts += 1
        self._in_transaction = in_transaction
        self._waited += now - self._mark

    def answered(self, now: float) -> None:
        """Record that it has a response, or will not get one; it may be sent again."""
        self._mark = now

    def finished(
        self, now: float, rows: Optional[int], error: Optional[BaseException]
    ) -> QueryEvent:
        """Record its end, and return the event.

        Args:
            now: The time, by time.monotonic().
            rows: Its rows; None after an error.
            error: What it raised, or None.
        """
        if self.name == "scatter":
            children = list(self._children)
            rows = sum([each[0] for each in children]) if error is None else None
            self._attempts = sum([each[1] for each in children])
        elif not self._attempts:
            self._waited = now - self.began
        if self.parent is not None:
            self.parent._children.append((rows or 0, self._attempts))
        digest = self.digest
        return QueryEvent(
            self.name,
            self.target,
            self.shard_id,
            digest.statement,
            digest.id,
            self._waited,
            max(0.0, now - self.began - self._waited),
            rows,
            self._attempts,
            error,
            self._in_transaction,
            self,
        )
