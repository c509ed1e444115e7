"""Commands that end transactions, and their executor."""

from typing import Any, Optional, Union

from ..api.database_client import BaseDatabaseClient
from ..execution.detached import DetachedExecutor
from ..protocol.connection_state import ConnectionState
from ..protocol.exchange import LONG_STATEMENT
from ..protocol.statements import Call, Statement


class Command(Statement):
    """A statement written by this package: it has no parameters, needs no check, and
    its effects on the session are known.
    """

    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__("DO 0")  # whose effects on the session are those of this one
        self.sql = self.text = text
        self.is_long = len(text) >= LONG_STATEMENT

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """Return False: nothing depends on the session's flags after an error."""
        return False


class PinnedExecutor(DetachedExecutor):
    """Executes statements on one connection, which its caller holds.

    Args:
        client: The database's client.
        connection: The connection.
    """

    def __init__(self, client: BaseDatabaseClient, connection: ConnectionState) -> None:
        super().__init__(client)
        self.connection = connection

    def run_statement(
        self, statement: Union[Statement, Call], until: Optional[float] = None
    ) -> Any:
        return self.client.run_on(self.connection, statement, until)

    def begin(self) -> Any:
        return self.connection

    def end(self, connection: object) -> None:
        """Do nothing: the holder of the connection releases it."""
