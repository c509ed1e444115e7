"""The methods of the original service and its clients, kept for compatibility.

Procedures return the rows of all result sets in one list, queries their rows, updates
the number of affected rows. The default of ``params`` is not None, so ``%%`` stands for
a percent sign, as in the drivers.
"""

from abc import abstractmethod
from typing import Any, Callable, Generic, Sequence

from ..execution import steps, verbs
from ..protocol.transaction_commands import DEFAULT_OPTIONS, TransactionOptions
from ..sql.parameters import Params
from .membership import LastInserts
from .service_base import ServicePart
from .target import BaseTarget
from .typevars import CountR, IntR, RowsR, TransactionT


def last_insert(inserts: LastInserts, caller: Callable[[], Any]) -> steps.Plan[int]:
    """The id of the caller's last insert.

    Who the caller is shows when the plan runs, in the thread or task that runs it.
    """
    yield from ()
    return inserts.last(caller())


class ClientMethods(BaseTarget, Generic[RowsR, CountR, IntR]):
    """The statements of the original client.

    A transaction has them, too: code written for a client works inside it.
    """

    @staticmethod
    @abstractmethod
    def _caller() -> Any:
        """Return the calling thread or task."""

    @abstractmethod
    def _last_inserts(self) -> LastInserts:
        """Return the last insert of each caller on this database."""

    def execute_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure.

        Args:
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        return self._run(verbs.call_rows(self._route, procedure_name, params))

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """Run a statement.

        Args:
            query: The statement.
            params: As for ``query()``. Because it is never None by default, ``%%`` is a
                percent sign, as in the drivers.

        Returns:
            The rows of its first result set.
        """
        return self._run(verbs.query(self._route, query, params))

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """Run a statement.

        Args:
            query: The statement.
            params: As for ``execute_query``.

        Returns:
            The number of affected rows.
        """
        return self._run(verbs.execute(self._route, query, params))

    def get_last_insert_id(self) -> IntR:
        """Return the AUTO_INCREMENT id of the last insert of this thread or task on
        this database.

        Returns:
            The id; 0 if there was none.
        """
        return self._run(last_insert(self._last_inserts(), self._caller))


class Legacy(ServicePart, Generic[RowsR, CountR, IntR, TransactionT]):
    """The methods of the original service, kept for compatibility."""

    _inserts: Any

    @staticmethod
    @abstractmethod
    def _caller() -> Any:
        """Return the calling thread or task."""

    @abstractmethod
    def _shard_route(self, shard_id: int) -> steps.Route:
        """Return the route to an explicitly named shard."""

    @abstractmethod
    def _session_route(self, client_session: object) -> steps.Route:
        """Return the route to a session's database."""

    @abstractmethod
    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        """Make a transaction on the global database."""

    def call_global_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database.

        Args:
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        result: RowsR = self._run(verbs.call_rows(self._route, procedure_name, params))
        return result

    def execute_global_query(self, query: str, params: Params = ()) -> RowsR:
        """Run a query on the global database.

        Args:
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def call_global_procedure_update(self, query: str, params: Params = ()) -> CountR:
        """Run an update on the global database.

        Despite its name it takes a statement.

        Args:
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The number of affected rows.
        """
        result: CountR = self._run(verbs.execute(self._route, query, params))
        return result

    def call_global_read_query(self, query: str, params: Params = ()) -> RowsR:
        """Run a query on the global database.

        Args:
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def call_shard_procedure(
        self, shard_id: int, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a shard.

        Args:
            shard_id: The shard's id.
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        result: RowsR = self._run(
            verbs.call_rows(
                self._shard_route(shard_id),
                procedure_name,
                params,
            )
        )
        return result

    def execute_shard_procedure(
        self, shard_id: int, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a shard.

        Args:
            shard_id: The shard's id.
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        return self.call_shard_procedure(shard_id, procedure_name, params)

    def execute_shard_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """Run a query on a shard.

        Args:
            shard_id: The shard's id.
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        result: RowsR = self._run(verbs.query(self._shard_route(shard_id), query, params))
        return result

    def call_shard_procedure_update(self, shard_id: int, query: str, params: Params = ()) -> CountR:
        """Run an update on a shard.

        Despite its name it takes a statement.

        Args:
            shard_id: The shard's id.
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The number of affected rows.
        """
        result: CountR = self._run(verbs.execute(self._shard_route(shard_id), query, params))
        return result

    def call_shard_read_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """Run a query on a shard.

        Args:
            shard_id: The shard's id.
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        return self.execute_shard_query(shard_id, query, params)

    def call_procedure_by_session(
        self, client_session: object, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a session's database.

        Args:
            client_session: As for ``session``.
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        result: RowsR = self._run(
            verbs.call_rows(
                self._session_route(client_session),
                procedure_name,
                params,
            )
        )
        return result

    def execute_query_by_session(
        self, client_session: object, query: str, params: Params = ()
    ) -> RowsR:
        """Run a query on a session's database.

        Args:
            client_session: As for ``session``.
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        result: RowsR = self._run(
            verbs.query(
                self._session_route(client_session),
                query,
                params,
            )
        )
        return result

    # Older aliases, for the global database.

    def call_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database.

        Args:
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        return self.call_global_procedure(procedure_name, params)

    def call_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database.

        Args:
            procedure_name: ``name`` or ``schema.name``.
            params: Its parameters in order.

        Returns:
            The rows of all its result sets in one list.
        """
        return self.call_global_procedure(procedure_name, params)

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """Run a query on the global database.

        Args:
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The rows of its first result set.
        """
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """Run an update on the global database.

        Args:
            query: The statement.
            params: As for ``query``, but not None by default.

        Returns:
            The number of affected rows.
        """
        result: CountR = self._run(verbs.execute(self._route, query, params))
        return result

    def get_last_insert_id(self) -> IntR:
        """Return the AUTO_INCREMENT id of the last insert by this thread or task.

        Inserts through this service count, on any of its databases; 0 if there was
        none.
        """
        result: IntR = self._run(last_insert(self._inserts, self._caller))
        return result

    def get_transaction(self) -> TransactionT:
        """Return a transaction on the global database; see ``transaction``.

        In asyncio ``async with await service.get_transaction()`` and ``async with
        service.get_transaction()`` both work.
        """
        return self._new_transaction(DEFAULT_OPTIONS)
