"""The two interfaces of the service: one test body asks through the verbs, and a second
time through the original's methods.
"""

from types import SimpleNamespace
from typing import Any, Sequence


def session(shard_id: Any) -> Any:
    """A client session as web handlers hold it."""
    return SimpleNamespace(session=SimpleNamespace(shard_id=shard_id))


class Verbs:
    """Where is None for the global database, an int for a shard, else a session."""

    def __init__(self, db: Any, call: Any) -> None:
        self.db, self._call = db, call

    def _target(self, where: Any) -> Any:
        if where is None:
            return self.db
        return self.db.shard(where) if isinstance(where, int) else self.db.session(where)

    def rows(self, where: Any, sql: str, params: Any = ()) -> Any:
        return self._call(self._target(where).query(sql, params))

    def count(self, where: Any, sql: str, params: Any = ()) -> Any:
        return self._call(self._target(where).execute(sql, params))

    def procedure(self, where: Any, name: str, params: Sequence[Any] = ()) -> Any:
        return self._call(self._target(where).call(name, params)).rows


class Legacy(Verbs):
    """The same through the original service's methods."""

    def rows(self, where: Any, sql: str, params: Any = ()) -> Any:
        if where is None:
            return self._call(self.db.execute_global_query(sql, params))
        if isinstance(where, int):
            return self._call(self.db.execute_shard_query(where, sql, params))
        return self._call(self.db.execute_query_by_session(where, sql, params))

    def count(self, where: Any, sql: str, params: Any = ()) -> Any:
        if where is None:
            return self._call(self.db.call_global_procedure_update(sql, params))
        if isinstance(where, int):
            return self._call(self.db.call_shard_procedure_update(where, sql, params))
        return self._call(self.db.get_client_by_session(where).execute_non_query(sql, params))

    def procedure(self, where: Any, name: str, params: Sequence[Any] = ()) -> Any:
        if where is None:
            return self._call(self.db.call_global_procedure(name, params))
        if isinstance(where, int):
            return self._call(self.db.call_shard_procedure(where, name, params))
        return self._call(self.db.call_procedure_by_session(where, name, params))


APIS = {"verbs": Verbs, "legacy": Legacy}
