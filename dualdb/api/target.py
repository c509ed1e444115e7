"""A target: a database named without I/O, and the verbs that every target has."""

from abc import ABC, abstractmethod
from typing import (
    TYPE_CHECKING,
    Any,
    AsyncIterable,
    Awaitable,
    Callable,
    Coroutine,
    Generic,
    Iterable,
    List,
    Literal,
    Optional,
    Sequence,
    Type,
    Union,
    overload,
)

from .. import errors
from ..execution import bulk, retry, steps, verbs
from ..protocol.statements import Statement
from ..protocol.transaction_commands import TransactionOptions
from ..results import Row, RowCount
from ..sql.parameters import Params
from .frames import Frames
from .interfaces import block_of
from .typevars import (
    CallR,
    ColumnR,
    ConnectionT,
    CountR,
    InTasks,
    InThreads,
    MadeT,
    ResultT,
    RowR,
    RowsR,
    TransactionT,
    ValueR,
)

if TYPE_CHECKING:
    # Names for checkers alone: no type variable can stand for the generic Stream.
    from ..async_impl.stream import Stream as AsyncStream
    from ..sync_impl.stream import Stream as SyncStream

#: Seconds that the result of a call with an idempotency key is kept: a week.
RETENTION = 604_800.0

#: Which servers of a database serve one call, where it is not the primary.
Role = Literal["replica"]


class BaseTarget(Frames, ABC):
    """One database: the global one, a shard, a session's, or the one a transaction is
    open on.

    The verbs are the same on all of them and in both implementations; in asyncio their
    results are awaited. ``params`` is a tuple or list for ``%s``, a mapping for
    ``%(name)s``, or None for a statement that is sent unchanged.

    Every verb may raise ParameterError (bad input; nothing was sent), RoutingError (no
    database to send it to), PoolTimeout, ConnectionFailed, ConnectionLost,
    OutcomeUnknown (a write whose connection broke before its answer), and the server's
    own error, as the ``pymysql.err`` class it has always had.

    The verbs are in mixins, ``Reads``, ``Writes`` and ``Blocks``, whose parameters are
    the types of the results. Each implementation puts them together in ``Verbs``.
    """

    #: The implementation can await what the user passes.
    _awaits: bool

    #: Finds where a call goes now.
    _route: steps.Route

    @abstractmethod
    def _run(self, plan: steps.Plan[Any]) -> Any:
        """Run a plan the implementation's way: its result, or a coroutine of it."""

    def _route_of(self, role: Optional[Role]) -> steps.Route:
        """Return the route of a call.

        Raises:
            ParameterError: There is no such role, or no replica here can have it.
        """
        if role is None:
            return self._route
        if role != "replica":
            raise errors.ParameterError(f"role must be 'replica' or None, not {role!r}")
        return self._read_route()

    def _read_route(self) -> steps.Route:
        """Return the route of reads that replicas may serve."""
        raise errors.ParameterError(
            "role='replica' is for what has replicas, such as db.shard(1): a transaction reads "
            "on its own connection, and a client from its own server"
        )


class Reads(BaseTarget, Generic[RowsR, RowR, ValueR, ColumnR]):
    """The verbs that return rows."""

    #: The implementation's stream, made of a route, a statement, a timeout and ``as_``.
    _stream_class: Callable[..., Any]

    @overload
    def query(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """Run a statement and return the rows of its first result set.

        Args:
            sql: The statement, with ``%s`` or ``%(name)s`` placeholders.
            params: A tuple or list for ``%s``, a mapping for ``%(name)s``; None sends
                ``sql`` unchanged.
            as_: Row type: a pydantic model, dataclass, NamedTuple or TypedDict (by
                column name), or ``tuple`` (by position). The values of a model, a
                TypedDict or a pydantic dataclass are validated. Default: dict.
            idempotent: The statement may be sent twice if its connection is lost.
            read_only: The statement only reads, so that the same holds, and a read-only
                shard accepts it. A plain SELECT need not say so; one that calls a
                stored function or locks rows is not plain.
            role: "replica" is this call through ``read``: a replica serves it, and what
                is not known to be a read is refused (ReadOnlyTargetError).
            max_rows: Raise TooManyRows above this number; None for the ``max_rows`` of
                the configuration. A read (see ``read_only``) is aborted on the server;
                a statement that may write runs to its end.
            timeout: Seconds for the whole call, including the wait for a connection.

        Returns:
            A list, empty if there are no rows or the statement returns none.

        Raises:
            ParameterError: Bad arguments; nothing was sent.
            TooManyRows: There are more than ``max_rows``.
            RowError: The columns, or the values of a row, do not fit ``as_``.
            OutcomeUnknown: The connection was lost after a write was sent.
            DeadlineExceeded: The time was over; WriteTimedOut if a write had been sent.

        Example:
            >>> db.shard(2).query("SELECT symbol FROM trades WHERE user_id = %s", (7,))
            [{'symbol': 'ABC'}]
        """
        return self._run(
            verbs.query(
                self._route_of(role),
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
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
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
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """Run a statement and return its first row.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            as_: As for ``query``.
            strict: Raise TooManyRows if there are more rows.
            idempotent: As for ``query``.
            read_only: As for ``query``.
            role: As for ``query``.
            timeout: As for ``query``, in seconds.

        Returns:
            A dict, or what ``as_`` makes of it; None if there is no row.

        Raises:
            TooManyRows: It is ``strict``, and there are more.
            RowError: The row does not fit ``as_``.

        Example:
            >>> db.shard(2).query_one("SELECT symbol FROM trades LIMIT 1")
            {'symbol': 'ABC'}
        """
        return self._run(
            verbs.query_one(
                self._route_of(role),
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
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> ValueR:
        """Run a statement and return the first column of its first row.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            idempotent: As for ``query``.
            read_only: As for ``query``.
            role: As for ``query``.
            timeout: As for ``query``, in seconds.

        Returns:
            The value; None if there is no row.

        Example:
            >>> db.shard(2).query_value("SELECT COUNT(*) FROM trades")
            1
        """
        return self._run(
            verbs.query_value(
                self._route_of(role),
                sql,
                params,
                timeout,
                idempotent=idempotent,
                read_only=read_only,
            )
        )

    def query_column(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        read_only: bool = False,
        role: Optional[Role] = None,
        max_rows: Optional[int] = None,
        timeout: Optional[float] = None,
    ) -> ColumnR:
        """Run a statement and return the values of its first column.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            idempotent: As for ``query``.
            read_only: As for ``query``.
            role: As for ``query``.
            max_rows: As for ``query``.
            timeout: As for ``query``, in seconds.

        Returns:
            A list.

        Raises:
            TooManyRows: There are more than ``max_rows``.

        Example:
            >>> db.shard(2).query_column("SELECT symbol FROM trades")
            ['ABC']
        """
        return self._run(
            verbs.query_column(
                self._route_of(role),
                sql,
                params,
                timeout,
                idempotent=idempotent,
                read_only=read_only,
                max_rows=max_rows,
            )
        )

    @overload
    def stream(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> "SyncStream[Row]": ...

    @overload
    def stream(
        self: InThreads,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        read_only: bool = False,
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> "SyncStream[MadeT]": ...

    @overload
    def stream(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        read_only: bool = False,
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> "AsyncStream[Row]": ...

    @overload
    def stream(
        self: InTasks,
        sql: str,
        params: Params = None,
        *,
        as_: Type[MadeT],
        read_only: bool = False,
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> "AsyncStream[MadeT]": ...

    def stream(
        self,
        sql: str,
        params: Params = None,
        *,
        as_: Optional[Type[Any]] = None,
        read_only: bool = False,
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> Any:
        """Iterate over the rows of a query as they arrive, in constant memory.

        ``for row in db.stream(...)``, in asyncio ``async for``. The connection belongs
        to the loop until its end. Leaving the loop early frees it at once and ends the
        query on the server. Nothing is sent before the first row is asked for, and
        nothing twice.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            as_: As for ``query``.
            read_only: As for ``query``.
            role: As for ``query``.
            timeout: Seconds for the whole loop.

        Returns:
            An iterator of rows, which is also a context manager.

        Raises:
            ParameterError: Rows cannot be made as ``as_``, or the statement is wrong.

        Example:
            >>> for row in db.shard(2).stream("SELECT symbol FROM trades"):
            ...     print(row["symbol"])
        """
        statement = Statement(sql, params, read_only=read_only)
        return self._stream_class(self._route_of(role), statement, timeout, as_)


class Writes(BaseTarget, Generic[CountR, CallR]):
    """The verbs that return numbers of rows, and procedure calls."""

    def execute(
        self,
        sql: str,
        params: Params = None,
        *,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> CountR:
        """Run a statement and return the number of affected rows.

        Args:
            sql: As for ``query``.
            params: As for ``query``.
            idempotent: As for ``query``.
            timeout: As for ``query``, in seconds.

        Returns:
            An int, with this statement's ``lastrowid`` (AUTO_INCREMENT id) and number
            of ``warnings``.

        Raises:
            OutcomeUnknown: The connection was lost after the statement was sent.

        Example:
            >>> db.shard(2).execute("UPDATE trades SET quantity = 0")
            1
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
        rows: Union[Iterable[Any], AsyncIterable[Any]],
        *,
        chunk_rows: int = 1000,
        progress: Optional[Callable[[int], Any]] = None,
        idempotent: bool = False,
        timeout: Optional[float] = None,
    ) -> Any:
        """Write many rows and return the number of affected rows.

        ``INSERT ... VALUES (%s, ...)``, also with ``ON DUPLICATE KEY UPDATE``, is sent
        in chunks, each one statement and shorter than the server's max_allowed_packet;
        any other statement once for each row. Each chunk is committed by itself: in a
        transaction, all of them together.

        Args:
            sql: The statement, with placeholders for one row.
            rows: Any iterable of parameters, consumed as it is needed; in asyncio an
                async iterable, too.
            chunk_rows: The largest number of rows of one statement.
            progress: Called with the number of rows written so far, after each chunk;
                in asyncio also a coroutine function.
            idempotent: As for ``query``, for each statement.
            timeout: Seconds for all chunks together.

        Returns:
            An int, as for ``execute``.

        Raises:
            ParameterError: A row does not fit the statement.
            Error: What the server says of a chunk, whose first and last row numbers are
                in ``rows``. What came before it has been written.

        Example:
            >>> db.shard(2).executemany(
            ...     "INSERT INTO trades (symbol) VALUES (%s)", [("A",), ("B",)]
            ... )
            2
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
        role: Optional[Role] = None,
        timeout: Optional[float] = None,
    ) -> CallR:
        """Call a stored procedure.

        Args:
            procedure: ``name`` or ``schema.name``.
            params: Its parameters in order; OUT and INOUT ones are marked and named, by
                ``Out("status")`` and ``InOut("amount", 5)``.
            idempotent: As for ``query``.
            read_only: The procedure only reads. It counts as a write otherwise,
                whatever its name says.
            role: As for ``query``.
            timeout: As for ``query``, in seconds.

        Returns:
            A CallResult, with every result set and the OUT values.

        Raises:
            ParameterError: The name is no identifier, or a parameter is wrong.
            OutcomeUnknown: The connection was lost after the call was sent.

        Example:
            >>> db.call("transfer", (1, 2, Out("status"))).out["status"]
            'done'
        """
        return self._run(
            verbs.call(
                self._route_of(role),
                procedure,
                params,
                timeout,
                idempotent=idempotent,
                read_only=read_only,
            )
        )


class Blocks(BaseTarget, Generic[TransactionT, ConnectionT]):
    """The verbs that are used in a ``with`` block, and ``run``."""

    #: The implementation's transaction and borrowed connection, made of a route.
    _transaction_class: Callable[..., TransactionT]
    _connection_class: Callable[..., ConnectionT]
    #: ``run`` with an idempotency key; its last argument is that key, the seconds that
    #: its result is kept, and the key of the target, or None.
    _run_once: Callable[..., "steps.Plan[Any]"]
    #: Of a target that is found by a key.
    _key: object = None

    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        return self._transaction_class(self._route, options=options)

    def _new_connection(self) -> ConnectionT:
        return self._connection_class(self._route)

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
        """Open a transaction: committed if its block ends normally, rolled back if it
        raises.

        ``with db.shard(2).transaction() as tx:``, in asyncio ``async with``. ``tx`` has
        the verbs, and calls that the same thread or task makes to the same database
        inside the block take part. Inside another transaction on that database it is a
        savepoint.

        Args:
            commit_marker: If the connection is lost at COMMIT, find out whether it was
                applied, by a row that the transaction inserts into the table
                ``dualdb_commit`` of its database (created if it is missing; rows are
                removed after a week). The block then ends normally, or raises
                TransactionAborted if nothing was applied; OutcomeUnknown only if the
                database cannot be asked any more.
            isolation: "READ COMMITTED" and its like, for this transaction alone.
            read_only: The server refuses writes (ReadOnlyServer).
            snapshot: Everything is read as it was when the transaction began, not when
                it first read.
            other_shards: Let the same thread or task use other shards inside the block,
                outside the transaction; CrossShardError otherwise. The global database
                may be used in any case.
            timeout: Seconds for the whole block, including the wait for a connection.
                After that the running statement is ended, and so is the transaction on
                the server, whatever the block does; the next call in it raises
                DeadlineExceeded, and so does its end. A COMMIT that has begun by then
                has 3 seconds more.

        Returns:
            A context manager, to be used once.

        Raises:
            ParameterError: No such isolation level, no such time, or ``commit_marker``
                with ``read_only``.
            InterfaceError: (when the block begins) Options for a transaction inside
                another: they belong to the outermost.

        Example:
            >>> with db.shard(2).transaction() as tx:
            ...     tx.execute("UPDATE trades SET quantity = 0 WHERE user_id = 7")
        """
        return self._new_transaction(
            TransactionOptions(
                commit_marker, isolation, read_only, snapshot, other_shards, timeout
            ).checked()
        )

    @overload
    def run(
        self: InThreads,
        function: Callable[[TransactionT], ResultT],
        *,
        attempts: int = retry.RUN_ATTEMPTS,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
        idempotency_key: Optional[str] = None,
        idempotency_retention: float = RETENTION,
    ) -> ResultT: ...

    @overload
    def run(
        self: InTasks,
        function: Callable[[TransactionT], Awaitable[ResultT]],
        *,
        attempts: int = retry.RUN_ATTEMPTS,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
        idempotency_key: Optional[str] = None,
        idempotency_retention: float = RETENTION,
    ) -> Coroutine[Any, Any, ResultT]: ...

    def run(
        self,
        function: Callable[[TransactionT], Any],
        *,
        attempts: int = retry.RUN_ATTEMPTS,
        commit_marker: bool = False,
        isolation: Optional[str] = None,
        timeout: Optional[float] = None,
        idempotency_key: Optional[str] = None,
        idempotency_retention: float = RETENTION,
    ) -> Any:
        """Call a function in a transaction, and again in a new one if the server rolled
        it back because of a conflict.

        It is repeated after a deadlock, a lock that was not available in time, a
        conflict between nodes at COMMIT, or a connection lost before COMMIT: in all of
        these nothing was applied. There is a random pause in between. The function may
        run several times: keep side effects in ``tx.on_commit``. Inside another
        transaction it is called once, in a savepoint: only the whole can be repeated.

        Args:
            function: Takes the transaction; in asyncio a coroutine function.
            attempts: The largest number of calls.
            commit_marker: As for ``transaction``.
            isolation: As for ``transaction``.
            timeout: Seconds for all attempts and pauses together; see ``transaction``.
            idempotency_key: Call the function once for this key: whoever comes later,
                or at the same time from another process, gets the result of the first
                without a call. The result is what JSON can hold, and the key at most
                255 bytes. Both are a row of ``dualdb_idempotency`` in the target's
                database, of the same transaction. If that is rolled back, the key is
                free. A COMMIT whose answer is lost is settled by that row.
            idempotency_retention: Seconds that the result is kept.

        Returns:
            What the function returns; None if it left the block by ``Rollback``.

        Raises:
            ParameterError: As for ``transaction``; or the result is not what JSON can
                hold, and everything was rolled back.
            Error: What COMMIT raises, or after the last attempt its conflict.
            Exception: Whatever the function raises, unchanged. (Python turns a
                StopIteration that leaves a coroutine function into a RuntimeError.)

        Example:
            >>> db.shard(2).run(lambda tx: tx.execute("DELETE FROM trades"))
        """
        options = TransactionOptions(commit_marker, isolation, timeout=timeout)
        if idempotency_key is None:
            return self._run(
                retry.run(self._new_transaction, block_of, function, options, attempts)
            )
        return self._run(
            self._run_once(
                self._new_transaction,
                function,
                options,
                attempts,
                (idempotency_key, idempotency_retention, self._key),
            )
        )

    def connection(self) -> ConnectionT:
        """Borrow the raw driver connection: ``with db.connection() as conn:``, in
        asyncio ``async with``.

        It is a ``pymysql`` or ``aiomysql`` connection, in autocommit. It is closed
        after use and not pooled again, because its state is not known.

        Returns:
            A context manager of the connection.
        """
        return self._new_connection()
