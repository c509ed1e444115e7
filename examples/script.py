"""Legacy-style blocking code: the original service's methods, called from threads."""

from types import SimpleNamespace
from typing import Any, Dict

from dualdb.sync_impl import DatabaseService


def sign_up(db: DatabaseService, email: str) -> Dict[str, Any]:
    """Make an account; its trades will live on the shard with the fewest accounts."""
    counts = {
        row["shard_id"]: row["n"]
        for row in db.execute_query(
            "SELECT shard_id, COUNT(*) AS n FROM accounts GROUP BY shard_id"
        )
    }
    shard_id = min(
        db.get_active_shard_ids(), key=lambda candidate: (counts.get(candidate, 0), candidate)
    )
    return db.call_global_procedure("sign_up", (email, shard_id))[0]


def log_in(db: DatabaseService, email: str) -> Any:
    """The client session that later calls are routed by."""
    (account,) = db.call_global_procedure("log_in", (email,))
    return SimpleNamespace(
        session=SimpleNamespace(user_id=account["id"], shard_id=account["shard_id"])
    )


def buy(db: DatabaseService, client_session: Any, symbol: str, quantity: int) -> int:
    """Record a trade on the user's shard; its id."""
    client = db.get_client_by_session(client_session)
    params = (client_session.session.user_id, symbol, quantity)
    client.execute_non_query(
        "INSERT INTO trades (user_id, symbol, quantity) VALUES (%s, %s, %s)", params
    )
    return db.get_last_insert_id()


def portfolio(db: DatabaseService, client_session: Any) -> Dict[str, int]:
    """What the user holds: symbol to quantity."""
    rows = db.call_procedure_by_session(
        client_session, "get_portfolio", (client_session.session.user_id,)
    )
    return {row["symbol"]: row["quantity"] for row in rows}
