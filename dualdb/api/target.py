"""A target: a database named without I/O, and the verbs that every target has."""

from abc import ABC, abstractmethod
from typing import (
    Any,
    AsyncIterable,
    Callable,
    Coroutine,
    Generic,
    Iterable,
    List,
    Optional,
    Sequence,
    Type,
    overload,
)

from ..execution import bulk, steps, verbs
from ..protocol.transaction_commands import TransactionOptions
from ..results import RowCount
from ..sql.parameters import Params
from .typevars import (
    CallR,
    ColumnR,
    ConnectionT,
    CountR,
    InTasks,
    InThreads,
    MadeT,
    RowR,
    RowsR,
    TransactionT,
    ValueR,
)


class Target(ABC, Generic[RowsR, RowR, ValueR, ColumnR, CountR, CallR, TransactionT, ConnectionT]):
    """One database: the global one, a shard, a session's, or the one a transaction is
    open on.

    The verbs are the same on all of them and in both colours; in asyncio their results
    are awaited. ``params`` is a tuple or list for ``%s``, a mapping for ``%(name)s``,
    or None for a statement that is sent as it stands.

    Every verb may raise ParameterError (bad input; nothing was sent), RoutingError (no
    database to send it to), PoolTimeout, ConnectionFailed, ConnectionLost,
    OutcomeUnknown (a write whose connection broke before its answer), and what the
    server says, as the ``pymysql.err`` class it has always had.
    """

    #: The colour can await what it is given.
    _awaits: bool

    @abstractmethod
    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """Where a call goes now; see ``steps.Route``."""

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Perform a plan the colour's way: its result, or a coroutine of it."""

    @abstractmethod
    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        """The colour's transaction on this target."""

    @abstractmethod
    def _new_connection(self) -> ConnectionT:
        """The colour's borrowed connection to this target."""

    def transaction(
        self,
        *,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        read_only: bool = False,
        snapshot: bool = False,
        other_shards: bool = False,
        timeout: Optional[float] = None,
    ) -> TransactionT:
        """A transaction on this database: committed where its block ends well, rolled
        back where it does not.

        ``with db.shard(2).transaction() as tx:``, in asyncio ``async with``. It has the
        verbs, and calls that the same thread or task makes to the same database inside
        the block take part in it. Inside another transaction on that database it is a
        savepoint.

        Args:
            commit_marker: where the connection is lost at COMMIT, find out what became
                of it, with a row that the transaction leaves in the table
                ``dualdb_commit`` of its database (made if it is missing, swept after a
                week). The block then ends well, or raises TransactionAborted where
                nothing was applied; OutcomeUnknown only where the database cannot be
                asked any more.
            isolation: "READ COMMITTED" and its like, for this transaction alone.
            read_only: the server refuses writes (ReadOnlyServer).
            other_shards: let the same thread or task use other shards inside the block,
                although what it does there is not part of the transaction;
                CrossShardError otherwise. The global database may be used in any case.
            snapshot: everything is read as it was when the transaction began, and not
                when it first read.
            timeout: seconds for the whole block, from the wait for a connection on.
                When they are over, what runs is ended, and so is the transaction on the
                server, whatever the block does; the next call in it raises
                DeadlineExceeded, and so does its end. A COMMIT that has begun by then
                is not cut short.

        Raises:
            ParameterError: no such isolation level, no such time, or ``commit_marker``
                of one that is ``read_only``.
            InterfaceError: (when it begins) one of these for a transaction inside
                another: they are the outermost's.
        """
        return self._new_transaction(
            TransactionOptions(
                commit_marker, isolation, read_only, snapshot, other_shards, timeout
            ).checked()
        )

    def connection(self) -> ConnectionT:
        """The raw driver connection, borrowed: ``with db.connection() as conn:``, in
        asyncio ``async with``.

        It is a ``pymysql`` or ``aiomysql`` connection, in autocommit. It is closed
        after use and not pooled again, because nobody can say what state it was left
        in.
        """
        return self._new_connection()

    @overload
    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> RowsR: ...

    @overload
    def query(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> List[MadeT]: ...

    @overload
    def query(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Coroutine[Any, Any, List[MadeT]]: ...

    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """The rows of the (first) result set, a list of dicts; empty for a statement
        without rows.

        Args:
            as_: what each row is made: a pydantic model, a dataclass, a NamedTuple or a
                TypedDict, by the names of the columns, or ``tuple``, with the columns
                in their order. The values of a model, a TypedDict or a pydantic
                dataclass are validated.
            idempotent: the statement may be sent twice if its connection is lost.
            read_only: the statement only reads, so that the same holds, and a read-only
                shard takes it. A plain SELECT need not say so; one that calls a stored
                function or locks rows is not plain.
            max_rows: more are an error; None for the ``max_rows`` of the configuration.
                What only reads (see ``read_only``) is not waited for then; what may
                write is performed to its end, and its rows come all.
            timeout: seconds for all of it, from the wait for a connection on.

        Raises:
            ParameterError: ``as_`` is none of these.
            TooManyRows: there are more than ``max_rows``.
            RowError: the columns, or the values of a row, do not fit what ``as_`` says.
        """
        return self._run(
            verbs.query(
                self._route,
                sql,
                params,
                timeout,
                as_=as_,
                idempotent=idempotent,
                read_only=read_only,
                max_rows=max_rows,
            )
        )

    @overload
    def query_one(
        self,
        sql: str,
        params: Params = None,
        *,
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> RowR: ...

    @overload
    def query_one(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Optional[MadeT]: ...

    @overload
    def query_one(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Coroutine[Any, Any, Optional[MadeT]]: ...

    def query_one(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        strict: bool = False,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """The first row as a dict, or None where there is none. Otherwise as ``query``.

        Args:
            as_: what the row is made; see ``query``.
            strict: there must be one row at most.

        Raises:
            TooManyRows: it is ``strict``, and there are more.
        """
        return self._run(
            verbs.query_one(
                self._route,
                sql,
                params,
                timeout,
                as_=as_,
                strict=strict,
                idempotent=idempotent,
                read_only=read_only,
            )
        )

    def query_value(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> ValueR:
        """The first column of the first row, or None where there is no row.

        Otherwise as ``query``.
        """
        return self._run(
            verbs.query_value(
                self._route, sql, params, timeout, idempotent=idempotent, read_only=read_only
            )
        )

    def query_column(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> ColumnR:
        """The values of the first column, a list. Otherwise as ``query``."""
        return self._run(
            verbs.query_column(
                self._route,
                sql,
                params,
                timeout,
                idempotent=idempotent,
                read_only=read_only,
                max_rows=max_rows,
            )
        )

    def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> CountR:
        """The number of affected rows: an int, with this statement's ``lastrowid``
        (AUTO_INCREMENT id) and number of ``warnings``.
        """
        return self._run(verbs.execute(self._route, sql, params, timeout, idempotent=idempotent))

    @overload
    def executemany(
        self,
        sql: str,
        rows: Iterable[Any],
        *,
        chunk_rows: int = 1000,
        progress: Optional[Callable[[int], Any]] = None,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> CountR: ...

    @overload
    def executemany(
        self: InTasks,
        sql: str,
        rows: AsyncIterable[Any],
        *,
        chunk_rows: int = 1000,
        progress: Optional[Callable[[int], Any]] = None,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> Coroutine[Any, Any, RowCount]: ...

    def executemany(
        self,
        sql: str,
        rows: Any,
        *,
        chunk_rows: int = 1000,
        progress: Optional[Callable[[int], Any]] = None,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Write many rows; gives the number of affected rows.

        ``INSERT ... VALUES (%s, ...)``, also with ``ON DUPLICATE KEY UPDATE``, is sent
        in chunks, each one statement and shorter than the server's max_allowed_packet;
        any other statement once for each row. Each chunk is committed by itself: in a
        transaction, all of them together. An error has the numbers of its chunk's first
        and last row in ``rows``, and what came before it has been written.

        Args:
            rows: any iterable of parameters, taken as it is needed; in asyncio an async
                iterable too.
            chunk_rows: the most rows of one statement.
            progress: called with the number of rows that have been written, after each
                chunk; in asyncio also a coroutine function.
        """
        return self._run(
            bulk.executemany(
                self._route,
                sql,
                rows,
                chunk_rows=chunk_rows,
                progress=progress,
                timeout=timeout,
                idempotent=idempotent,
                awaits=self._awaits,
            )
        )

    def call(
        self,
        procedure: str,
        params: Sequence[Any] = (),
        *,
        idempotent: bool = False,
        read_only: bool = False,
        timeout: Optional[float] = None,
    ) -> CallR:
        """Call a stored procedure: a CallResult with every result set and the OUT
        values.

        ``procedure`` is ``name`` or ``schema.name``. OUT and INOUT parameters are
        marked and named:
        ``call("transfer", (1, 2, InOut("amount", 5), Out("status"))).out["status"]``. A
        procedure counts as a write, whatever its name says, unless the call declares it
        ``read_only``; see ``query``.
        """
        return self._run(
            verbs.call(
                self._route, procedure, params, timeout, idempotent=idempotent, read_only=read_only
            )
        )
