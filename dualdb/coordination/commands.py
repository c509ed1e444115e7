"""The commands that are sent to end transactions, and who sends them."""

from typing import Any, Optional, Union

from ..api.client import AnyClient
from ..execution.detached import DetachedExecutor
from ..protocol.connection_state import ConnectionState
from ..protocol.exchange import LONG_STATEMENT
from ..protocol.statements import Call, Statement


class Command(Statement):
    """A statement that this package has written: it needs no parameters and no check,
    and its effects on the session are known.
    """

    __slots__ = ()

    def __init__(self, text: str) -> None:
        super().__init__("DO 0")  # whose effects on the session are those of this one
        self.sql = self.text = text
        self.is_long = len(text) >= LONG_STATEMENT

    def leaves_doubt(self, error: BaseException, *, in_transaction: bool) -> bool:
        """Return False: what follows an error does not depend on the session's
        flags.
        """
        return False


class PinnedExecutor(DetachedExecutor):
    """Executes statements on one connection, which somebody holds.

    Args:
        client: The database's client.
        connection: The connection.
    """

    def __init__(self, client: AnyClient, connection: ConnectionState) -> None:
        super().__init__(client)
        self.connection = connection

    def _execute(self, statement: Union[Statement, Call], until: Optional[float] = None) -> Any:
        return self._client._execute_on(self.connection, statement, until)

    def _begin(self) -> Any:
        return self.connection

    def _end(self, connection: object) -> None:
        """Keep it: who holds the connection gives it back."""
