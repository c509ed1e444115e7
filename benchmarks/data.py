"""The tables, the statements and the rows that every contestant works on."""

import datetime
import random
from typing import Any, Callable, Dict, Iterable, List, NamedTuple, Tuple
from urllib.parse import urlsplit

from dualdb.sandbox import Sandbox

ACCOUNTS = 1_000
TRADES = 100_000

#: How many rows executemany inserts at a time; it updates as many as there are
#: accounts.
INSERTED = 10_000

TABLES = [
    """CREATE TABLE accounts (
        id BIGINT PRIMARY KEY, email VARCHAR(100) NOT NULL, name VARCHAR(100) NOT NULL,
        balance DECIMAL(12, 2) NOT NULL, created_at DATETIME NOT NULL
    )""",
    """CREATE TABLE trades (
        id BIGINT PRIMARY KEY, user_id BIGINT NOT NULL, symbol VARCHAR(10) NOT NULL,
        quantity INT NOT NULL, price DECIMAL(12, 4) NOT NULL,
        note VARCHAR(100), created_at DATETIME NOT NULL
    )""",
    """CREATE TABLE inserted (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,
        symbol VARCHAR(10) NOT NULL, quantity INT NOT NULL,
        price DECIMAL(12, 4) NOT NULL, note VARCHAR(100), created_at DATETIME NOT NULL
    )""",
    """CREATE TABLE updated (
        id BIGINT PRIMARY KEY, quantity INT NOT NULL, price DECIMAL(12, 4) NOT NULL,
        note VARCHAR(100)
    )""",
    """CREATE PROCEDURE find_account(IN p_id BIGINT)
        SELECT id, email, name, balance, created_at FROM accounts WHERE id = p_id""",
]

#: Of ``accounts`` and of ``trades``; of ``updated``, as a change names them.
ACCOUNT = ("id", "email", "name", "balance", "created_at")
TRADE = ("id", "user_id", "symbol", "quantity", "price", "note", "created_at")
CHANGE = ("quantity", "price", "note", "id")

POINT = f"SELECT {', '.join(ACCOUNT)} FROM accounts WHERE id = %s"
ROWS = f"SELECT {', '.join(TRADE)} FROM trades WHERE id <= %s"
INSERT = f"INSERT INTO inserted ({', '.join(TRADE[1:])}) VALUES (%s, %s, %s, %s, %s, %s)"
# A sum, so that each time every row is changed, and written.
UPDATE = "UPDATE updated SET quantity = quantity + %s, price = %s, note = %s WHERE id = %s"
CALL = "CALL find_account(%s)"


def named(sql: str, *names: str) -> str:
    """The statement with ``:name`` in place of ``%s``, as SQLAlchemy and databases have
    it.
    """
    for name in names:
        sql = sql.replace("%s", f":{name}", 1)
    return sql


def accounts() -> List[Tuple[Any, ...]]:
    return [
        (
            number,
            f"user{number}@example.com",
            f"User Number {number}",
            f"{number * 7}.25",
            _moment(number),
        )
        for number in ids()
    ]


def ids() -> List[int]:
    return list(range(1, ACCOUNTS + 1))


def trades(count: int) -> List[Tuple[Any, ...]]:
    """Without ids.

    Numbers, text, decimals, dates and NULLs, as business tables have them.
    """
    chance = random.Random(7)
    return [
        (
            chance.randrange(1, ACCOUNTS),
            chance.choice(("ABC", "XYZ", "LONGER")),
            chance.randrange(1, 500),
            f"{chance.randrange(1, 10**7) / 10**4:.4f}",
            None if number % 3 else f"note {number}, räksmörgås",
            _moment(number),
        )
        for number in range(1, count + 1)
    ]


def inserted() -> List[Tuple[Any, ...]]:
    return trades(INSERTED)


def updated() -> List[Tuple[Any, ...]]:
    """Changes of all rows of ``updated``, not in their order."""
    return [
        (quantity, price, note, number * 37 % ACCOUNTS + 1)
        for number, (_, _, quantity, price, note, _) in enumerate(trades(ACCOUNTS))
    ]


class Write(NamedTuple):
    """What executemany is given.

    Attributes:
        rows: makes the parameters.
        columns: what each of a row's parameters is called.
        reset: makes the table as it was before.
        content: selects a digest of what was written.
    """

    rows: Callable[[], List[Tuple[Any, ...]]]
    columns: Tuple[str, ...]
    reset: str
    content: str


def _content(table: str, columns: Iterable[str]) -> str:
    row = f"CONCAT_WS('|', {', '.join(columns)})"
    return f"SELECT COUNT(*) AS found, SUM(CRC32({row})) AS digest FROM {table}"


#: By operation.
WRITES = {
    "insert": Write(inserted, TRADE[1:], "TRUNCATE inserted", _content("inserted", TRADE[1:])),
    "update": Write(
        updated,
        CHANGE,
        "UPDATE updated SET quantity = 0, price = 0, note = NULL",
        _content("updated", CHANGE),
    ),
}


def _moment(number: int) -> datetime.datetime:
    return datetime.datetime(2024, 1, 1) + datetime.timedelta(seconds=number * 61)


class Server(NamedTuple):
    """Where the data is."""

    host: str
    port: int
    user: str
    password: str
    database: str

    def arguments(self, **more: Any) -> Dict[str, Any]:
        """What every driver's connect() takes, under the names that all of them
        have.
        """
        account = {
            "host": self.host,
            "port": self.port,
            "user": self.user,
            "password": self.password,
        }
        return {**account, "charset": "utf8mb4", "autocommit": True, **more}

    @property
    def url(self) -> str:
        """With ``mysql`` for the driver's name."""
        return f"mysql://{self.user}:{self.password}@{self.host}:{self.port}/{self.database}"


def server_of(sandbox: Sandbox) -> Server:
    """The global database, with its password."""
    parts = urlsplit(sandbox.url)
    return Server(
        str(parts.hostname),
        int(parts.port or 0),
        str(parts.username),
        str(parts.password),
        parts.path[1:],
    )


def create(sandbox: Sandbox) -> None:
    """Everything in the global database, which is shard 1 as well: a lookup by session
    goes to the very same server.
    """
    sandbox.run("global", *TABLES)
    server = server_of(sandbox)
    with (
        sandbox.servers["global"].admin(server.database) as connection,
        connection.cursor() as cursor,
    ):
        cursor.executemany("INSERT INTO accounts VALUES (%s, %s, %s, %s, %s)", accounts())
        rows = [(number, *row) for number, row in enumerate(trades(TRADES), 1)]
        cursor.executemany("INSERT INTO trades VALUES (%s, %s, %s, %s, %s, %s, %s)", rows)
        cursor.execute("INSERT INTO updated SELECT id, 0, 0, NULL FROM accounts")
        cursor.execute("ANALYZE TABLE accounts, trades")
        cursor.fetchall()
        cursor.execute(
            "INSERT INTO table_shard_config (shard_id, host, port, database_name, username, "
            "password, status) "
            "VALUES (1, %s, %s, %s, %s, %s, 'active')",
            (server.host, server.port, server.database, server.user, server.password),
        )
