"""What a transaction decides, in both colours: what to say when, what an error means for it, and when it is over."""

import logging
from abc import abstractmethod
from typing import Any, Callable, Generic, List, Optional, Sequence, Tuple

from . import errors, plans, statements
from .client import AnyClient
from .shapes import CallR, ConnectionT, CountR, IntR, RowR, RowsR, TransactionT, ValueR
from .sql import Params
from .target import Target

log = logging.getLogger("dualdb")

#: A savepoint that an implicit commit has swept away.
_NO_SUCH_SAVEPOINT = 1305


class BaseTransaction(
    Target[RowsR, RowR, ValueR, CountR, CallR, TransactionT, ConnectionT],
    Generic[RowsR, RowR, ValueR, CountR, CallR, TransactionT, ConnectionT, IntR],
):
    """A transaction on one database, or a savepoint inside one. Used once, as a context manager.

    A subclass holds the I/O: check out, say what ``_begin`` and ``_ending`` decide, give back.
    """

    def __init__(self, find_client: Callable[[], AnyClient], outer: "Optional[AnyTransaction]" = None) -> None:
        self._find_client = find_client
        self._outer = outer
        self._client: Optional[AnyClient] = None
        self._raw: Any = None
        self._depth = 0
        self._over = False
        self._failure: Optional[errors.Error] = None

    def __repr__(self) -> str:
        state = "over" if self._over else "open" if self._raw is not None else "not begun"
        return f"<{type(self).__name__} on {self._client.name if self._client else '?'}, {state}>"

    # A place for statements.

    @property
    def name(self) -> str:
        """The database it is on: "global", "shard 7", or the client's address."""
        assert self._client is not None
        return self._client.name

    @property
    def shard_id(self) -> Optional[int]:
        """The shard it is on; None for the global database."""
        assert self._client is not None
        return self._client.shard_id

    def _inserted(self, lastrowid: int) -> None:
        assert self._client is not None
        self._client._inserted(lastrowid)

    @abstractmethod
    def _say(self, statement: Any) -> Any:
        """Say a statement on the transaction's connection: what its talk returns."""

    def _route(self) -> plans.Place:
        self._check()
        return self

    def _check(self) -> None:
        if self._raw is None or self._over:
            raise errors.InterfaceError(f"this transaction {'is over' if self._over else 'has not begun: use it in a with block'}")
        if self._failure is not None:
            raise errors.TransactionAborted(
                "the server has rolled this transaction back, so nothing more is sent in it: leave the block and begin again"
            ).about(self.name, self.shard_id, sent=False) from self._failure

    # The original yields a connection or a client; code written for either finds what it used.

    def execute_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure; the rows of all its result sets in one list."""
        return self._run(plans.call_rows(self._route, procedure_name, params))

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query."""
        return self._run(plans.query(self._route, query, params))

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """The number of affected rows."""
        return self._run(plans.execute(self._route, query, params))

    def get_last_insert_id(self) -> IntR:
        """The id of the last insert that this thread or task made on this database; 0 where there was none."""
        self._check()
        assert self._client is not None
        return self._client.get_last_insert_id()

    def cursor(self, *args: Any) -> Any:
        """A cursor of the driver on this transaction's connection, for code that wants the driver's own ways."""
        self._check()
        return self._raw.cursor(*args)

    def _new_connection(self) -> ConnectionT:
        raise errors.InterfaceError("a transaction's connection is not lent: use cursor(), or connection() of the database itself")

    # What the colour's __enter__ and __exit__ ask.

    def _begin(self) -> "Tuple[AnyClient, Optional[AnyTransaction]]":
        """The client to begin on, and the transaction to begin inside of, if any."""
        if self._raw is not None or self._over:
            raise errors.InterfaceError("a transaction is used once: ask for a new one")
        client = self._find_client()
        outer = self._outer or client._joined()
        if outer is not None:
            outer._check()
            self._depth = outer._depth + 1
        self._client, self._outer = client, outer
        return client, outer

    def _begun(self, raw: Any) -> None:
        assert self._client is not None
        self._raw = raw
        self._client._transactions[self._client._owner()] = self

    def _ending(self, error: Optional[BaseException]) -> List[bytes]:
        """The commands that end it; none where the connection cannot or must not be spoken to any more."""
        assert self._client is not None
        self._over = True
        owner = self._client._owner()
        if self._client._transactions.get(owner) is self:
            if self._outer is not None and not self._outer._over:
                self._client._transactions[owner] = self._outer
            else:
                del self._client._transactions[owner]
        interrupted = error is not None and not isinstance(error, Exception)
        if interrupted and self._outer is not None:
            self._outer._fail(errors.OperationalError("a savepoint inside this transaction was interrupted"))
        if interrupted or not self._raw.at_rest:
            self._raw.at_rest = False
            return []
        if self._failure is not None and self._depth:
            return []
        return list(statements.transaction_end(self._depth, commit=error is None and self._failure is None))

    def _ended_by(self, failure: BaseException, error: Optional[BaseException]) -> None:
        """An ending command failed with ``failure`` while ``error`` was on its way out of the block."""
        assert self._client is not None
        committing = error is None and self._failure is None
        if self._depth and errors.code_of(failure) == _NO_SUCH_SAVEPOINT and committing:
            return
        told = errors.told(failure, self.name, self.shard_id)
        if self._outer is not None:
            self._outer._fail(told)
        if not committing:
            log.warning("%s: rollback failed, the connection is closed instead: %s", self.name, told)
            return
        if isinstance(told, errors.ConnectionLost) and not self._depth:
            raise plans.outcome_unknown(told, "COMMIT") from failure
        raise told from failure

    def _aborted(self, error: Optional[BaseException]) -> None:
        """Called last: a block that ended well although its transaction is gone must not look as if it had been committed."""
        if error is None and self._failure is not None:
            raise errors.TransactionAborted("the transaction was not committed: the server had rolled it back").about(
                self.name, self.shard_id, sent=True
            ) from self._failure

    def _fail(self, error: errors.Error) -> None:
        """The server has rolled the whole transaction back: this and all around it."""
        self._failure = error
        if self._outer is not None:
            self._outer._fail(error)

    def _refused(self, error: BaseException) -> errors.Error:
        """What a statement's error is, and what it means for the transaction."""
        told = errors.told(error, self.name, self.shard_id)
        if isinstance(told, errors.ConnectionLost):
            told.in_transaction = True
        if isinstance(told, errors.ConnectionLost) or told.errno in errors.ROLLED_BACK:
            self._fail(told)
        return told

    def _implicitly_committed(self) -> bool:
        """True if a statement (DDL, or a COMMIT inside a procedure) has ended the transaction behind its back.

        What was done is committed. A new transaction is begun for the rest, as it would be with autocommit off.
        """
        if self._raw.in_transaction:
            return False
        log.warning("%s: a statement inside a transaction committed it; what follows is a transaction of its own", self.name)
        return True


AnyTransaction = BaseTransaction[Any, Any, Any, Any, Any, Any, Any, Any]
