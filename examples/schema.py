"""A small trading application's schema: accounts in the global database, each user's
own trades on a shard.
"""

from dualdb.sandbox import Sandbox

GLOBAL = [
    """CREATE TABLE accounts (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(100) NOT NULL UNIQUE,
        shard_id INT NOT NULL
    )""",
    """CREATE PROCEDURE sign_up(IN p_email VARCHAR(100), IN p_shard INT) BEGIN
        INSERT INTO accounts (email, shard_id) VALUES (p_email, p_shard);
        SELECT id, email, shard_id FROM accounts WHERE id = LAST_INSERT_ID();
    END""",
    """CREATE PROCEDURE log_in(IN p_email VARCHAR(100))
        SELECT id, email, shard_id FROM accounts WHERE email = p_email""",
]

SHARD = [
    """CREATE TABLE trades (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,
        symbol VARCHAR(10) NOT NULL, quantity INT NOT NULL, KEY (user_id)
    )""",
    """CREATE PROCEDURE get_portfolio(IN p_user BIGINT)
        SELECT symbol, CAST(SUM(quantity) AS SIGNED) AS quantity
        FROM trades WHERE user_id = p_user GROUP BY symbol ORDER BY symbol""",
]


def create(sandbox: Sandbox) -> None:
    """Create the schema on every server of a sandbox."""
    for name in sandbox.servers:
        sandbox.run(name, *(GLOBAL if name == "global" else SHARD))
