"""The internals of the objects that users hold, for the rest of the package.

A target, a client, a transaction and a service show users their methods. What other
modules need of one is an object with public names of its own, which the functions here
return.
"""

from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from ..config import DatabaseConfig
from ..execution import steps
from ..observability.observers import Observers
from ..topology.lifecycle import ServiceLifecycle

if TYPE_CHECKING:
    from .client import AnyClient
    from .database_client import BaseDatabaseClient, Shared
    from .service_base import ServicePart
    from .target import BaseTarget
    from .transaction import AnyTransaction
    from .transaction_block import BaseTransactionBlock


class ServiceInternals(NamedTuple):
    """What a service consists of.

    Attributes:
        lifecycle: The topology in use, the shard table and the background.
        directory: The KeyDirectory; None for a service that knows no keys.
        observers: The hooks and interceptors.
        shared: What its clients have in common.
        coordinator: The Coordinator of XA transactions.
        worker_table: The table of the processes that make ids.
        new_client: Makes a client of a database, not yet connected.
        shard_of_session: Returns the shard id of a session.
    """

    lifecycle: ServiceLifecycle
    directory: Any
    observers: Observers
    shared: "Shared"
    coordinator: Any
    worker_table: str
    new_client: Callable[[DatabaseConfig, str, Optional[int]], Any]
    shard_of_session: Callable[[Any], Optional[int]]


def internals_of(service: "ServicePart") -> ServiceInternals:
    """Return what a service consists of."""
    return service._internals


def route_of(target: "BaseTarget") -> steps.Route:
    """Return the route of a target's calls."""
    return target._route


def awaits(target: Any) -> bool:
    """Return whether the results of a target's calls are awaited."""
    awaited: bool = target._awaits
    return awaited


def run_in(target: "BaseTarget", plan: "steps.Plan[Any]") -> Any:
    """Run a plan the target's way: its result, or in asyncio a coroutine of it."""
    return target._run(plan)


def database_client_of(client: "AnyClient") -> "BaseDatabaseClient":
    """Return the client of the database behind a MySQLClient."""
    return client._database


def block_of(transaction: "AnyTransaction") -> "BaseTransactionBlock":
    """Return the block of a transaction."""
    return transaction._block
