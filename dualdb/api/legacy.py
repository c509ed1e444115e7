"""The original service's methods, as it had them.

Procedures return the rows of all result sets in one list; queries their rows; updates
the number of affected rows. ``params`` is never None by default, so as in the drivers
``%%`` stands for a percent sign.
"""

from abc import abstractmethod
from typing import Any, Generic, Sequence

from ..execution import steps, verbs
from ..protocol.transaction_commands import DEFAULT_OPTIONS, TransactionOptions
from ..sql.parameters import Params
from .client import last_insert
from .service_base import ServicePart
from .typevars import CountR, IntR, RowsR, TransactionT


class Legacy(ServicePart, Generic[RowsR, CountR, IntR, TransactionT]):
    """The methods of the original service, for the application that has them."""

    _inserts: Any

    @staticmethod
    @abstractmethod
    def _owner() -> Any:
        """The Thread or Task that is calling."""

    @abstractmethod
    def _shard_route(self, shard_id: int) -> steps.Route:
        """The route to a shard that is named outright."""

    @abstractmethod
    def _session_route(self, client_session: object) -> steps.Route:
        """The route to a session's database."""

    @abstractmethod
    def _new_transaction(self, options: TransactionOptions) -> TransactionT:
        """A transaction on the global database."""

    def call_global_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        result: RowsR = self._run(verbs.call_rows(self._route, procedure_name, params))
        return result

    def execute_global_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def call_global_procedure_update(self, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on the global database.

        Takes a statement, whatever its name says.
        """
        result: CountR = self._run(verbs.execute(self._route, query, params))
        return result

    def call_global_read_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def call_shard_procedure(
        self, shard_id: int, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a shard."""
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
        """Call a procedure on a shard."""
        return self.call_shard_procedure(shard_id, procedure_name, params)

    def execute_shard_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on a shard."""
        result: RowsR = self._run(verbs.query(self._shard_route(shard_id), query, params))
        return result

    def call_shard_procedure_update(self, shard_id: int, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on a shard.

        Takes a statement, whatever its name says.
        """
        result: CountR = self._run(verbs.execute(self._shard_route(shard_id), query, params))
        return result

    def call_shard_read_query(self, shard_id: int, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on a shard."""
        return self.execute_shard_query(shard_id, query, params)

    def call_procedure_by_session(
        self, client_session: object, procedure_name: str, params: Sequence[Any] = ()
    ) -> RowsR:
        """Call a procedure on a session's database."""
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
        """The rows of a query on a session's database."""
        result: RowsR = self._run(
            verbs.query(
                self._session_route(client_session),
                query,
                params,
            )
        )
        return result

    # Older names still, for the global database.

    def call_stored_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        return self.call_global_procedure(procedure_name, params)

    def call_procedure(self, procedure_name: str, params: Sequence[Any] = ()) -> RowsR:
        """Call a procedure on the global database."""
        return self.call_global_procedure(procedure_name, params)

    def execute_query(self, query: str, params: Params = ()) -> RowsR:
        """The rows of a query on the global database."""
        result: RowsR = self._run(verbs.query(self._route, query, params))
        return result

    def execute_non_query(self, query: str, params: Params = ()) -> CountR:
        """The affected rows of an update on the global database."""
        result: CountR = self._run(verbs.execute(self._route, query, params))
        return result

    def get_last_insert_id(self) -> IntR:
        """The id of the last insert that this thread or task made through this service,
        on whichever database; 0 where there was none.
        """
        result: IntR = self._run(last_insert(self._inserts, self._owner))
        return result

    def get_transaction(self) -> TransactionT:
        """A transaction on the global database; see ``transaction``.

        In asyncio ``async with await service.get_transaction()`` and ``async with
        service.get_transaction()`` both work.
        """
        return self._new_transaction(DEFAULT_OPTIONS)
