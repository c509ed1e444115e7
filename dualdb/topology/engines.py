"""Databases beside the shards that are queried by name, such as a Spider head."""

from typing import Any, Callable, Dict, Mapping, Optional, Tuple

from ..config import DatabaseConfig
from ..errors import ParameterError


class Engines:
    """The named databases of a service; each is connected to when it is first used.

    Args:
        configs: How each is reached, by its name.
        new_client: Makes a client from a configuration, a name and a shard id.

    Raises:
        TypeError: One is not a name with a DatabaseConfig.
    """

    def __init__(
        self,
        configs: Mapping[str, DatabaseConfig],
        new_client: Callable[[DatabaseConfig, str, Optional[int]], Any],
    ) -> None:
        for name, config in configs.items():
            if not isinstance(name, str) or not isinstance(config, DatabaseConfig):
                raise TypeError("engines must be DatabaseConfigs by name")
        self._configs = dict(configs)
        self._new_client = new_client
        self._clients: Dict[str, Any] = {}

    def require(self, name: str) -> None:
        """Check that there is a database of this name.

        Raises:
            ParameterError: There is none.
        """
        if name not in self._configs:
            known = ", ".join(sorted(self._configs)) or "none"
            raise ParameterError(f"there is no engine {name!r}; engines= has {known}")

    def client(self, name: str) -> Any:
        """Return the client of a database."""
        found = self._clients.get(name)
        if found is None:
            made = self._new_client(self._configs[name], f"engine {name}", None)
            made.shard_read_only = True
            # of several threads that come first, one is taken
            found = self._clients.setdefault(name, made)
        return found

    @property
    def clients(self) -> Tuple[Any, ...]:
        """The clients of those that have been used."""
        return tuple(self._clients.values())

    def close(self) -> Tuple[Any, ...]:
        """Forget the clients, and return them to be closed."""
        clients = self.clients
        self._clients = {}
        return clients
