"""The internals of the objects that users hold, for the rest of the package.

A target, a client, a transaction and a service show users their methods. What other
modules need of one is an object with public names of its own, which the functions here
return.
"""

from typing import TYPE_CHECKING, Any

from ..execution import steps

if TYPE_CHECKING:
    from .client import AnyClient
    from .database_client import BaseDatabaseClient
    from .target import BaseTarget
    from .transaction import AnyTransaction
    from .transaction_block import BaseTransactionBlock


def route_of(target: "BaseTarget") -> steps.Route:
    """Return the route of a target's calls."""
    return target._route


def run_in(target: "BaseTarget", plan: "steps.Plan[Any]") -> Any:
    """Run a plan the target's way: its result, or in asyncio a coroutine of it."""
    return target._run(plan)


def database_client_of(client: "AnyClient") -> "BaseDatabaseClient":
    """Return the client of the database behind a MySQLClient."""
    return client._client


def block_of(transaction: "AnyTransaction") -> "BaseTransactionBlock":
    """Return the block of a transaction."""
    return transaction._block
