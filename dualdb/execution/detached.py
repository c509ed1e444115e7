"""A statement on a connection of its own, whatever transaction the caller is in."""

from typing import Any, Optional


class DetachedExecutor:
    """A client's database, outside of whatever transaction the caller is in: for what
    concerns the whole service, or several shards.
    """

    def __init__(
        self, client: Any, *, read_only: bool = False, refresh_on_miss: Any = None
    ) -> None:
        self._client = client
        self.name = client.name
        self.shard_id = client.shard_id
        self._read_only = read_only
        self._refresh_on_miss = refresh_on_miss
        #: What a write is refused with, where the client says so itself.
        self.write_refusal = getattr(client, "write_refusal", None)

    def _record_insert_id(self, lastrowid: int) -> None:
        """It is nobody's insert."""

    def _execute(self, statement: Any, until: Optional[float] = None) -> Any:
        return self._client._execute_on_own_connection(statement, until)

    def _begin(self) -> Any:
        """In threads: a connection that is there at once, or None; ``_end`` takes it
        back.
        """
        return self._client.pool.checkout_idle()

    def _end(self, connection: Any) -> None:
        self._client.pool.release(connection)

    def _take_retry_token(self) -> bool:
        return bool(self._client._take_retry_token())
