"""The databases of the conformance tests without servers: a FakeRouter whose script is
sqlite, as far as those tests go.
"""

import contextlib
import re
import sqlite3
import threading
from typing import Any, Dict, List, Optional, Tuple, Union

import pymysql.err

from dualdb import DatabaseConfig
from dualdb.testing import Answer, Done, FakeCall, FakeRouter, Rows, Sets

Name = Union[str, int]

SHARD_TABLE = (
    "CREATE TABLE IF NOT EXISTS {} (shard_id INTEGER PRIMARY KEY, host TEXT, port INTEGER, "
    "database_name TEXT, username TEXT, password TEXT, status TEXT)"
)
SCHEMA = {
    "global": "CREATE TABLE accounts (id INTEGER PRIMARY KEY, email TEXT UNIQUE, shard_id INTEGER)",
    "shard": "CREATE TABLE trades (id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL, "
    "symbol TEXT NOT NULL, qty INTEGER NOT NULL)",
}
#: Statements of MySQL in sqlite's words.
WORDS = [
    (re.compile(r"TRUNCATE (TABLE )?"), "DELETE FROM "),
    (re.compile(r"RENAME TABLE (\w+) TO (\w+)"), r"ALTER TABLE \1 RENAME TO \2"),
    (re.compile(r"ALTER TABLE \w+ MODIFY .*"), "SELECT 1"),
    (re.compile(r"(?s)CREATE TABLE IF NOT EXISTS (\w+) \(\s*shard_id INT.*"), None),
    (re.compile(r"START TRANSACTION.*"), "BEGIN"),
]
CALL = re.compile(r"CALL `?(\w+)`?\((.*)\)$", re.DOTALL)


class SqliteDatabases:
    """As ``Databases`` of the tests' servers."""

    ids = (1, 2)

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._connections: Dict[Name, sqlite3.Connection] = {}
        self.fake = FakeRouter(self.ids, answer=self._answer)

    def __enter__(self) -> "SqliteDatabases":
        self.fake.__enter__()
        self.reset()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.fake.__exit__()
        self._close()

    def _close(self) -> None:
        for each in self._connections.values():
            each.close()

    def reset(self) -> None:
        """As on the first day."""
        with self._lock:
            self._close()
            names: List[Name] = ["global", *self.ids]
            for name in names:
                self._connections[name] = connection = sqlite3.connect(
                    ":memory:", check_same_thread=False, isolation_level=None
                )
                database = self.config_of(name).database
                connection.create_function("DATABASE", 0, lambda database=database: database)
                connection.create_function("SLEEP", 1, lambda seconds: 0)
                connection.create_function("CONNECTION_ID", 0, lambda: 7)
                connection.execute(SCHEMA["global" if name == "global" else "shard"])
            self._connections["global"].execute(SHARD_TABLE.format("table_shard_config"))
            for shard_id in self.ids:
                self._insert(shard_id, shard_id)

    def _insert(self, shard_id: int, like: int, **changes: Any) -> None:
        config = self.config_of(like)
        row: Dict[str, Any] = {
            "shard_id": shard_id,
            "host": config.host,
            "port": config.port,
            "database_name": config.database,
            "username": config.user,
            "password": config.reveal_password(),
            "status": "active",
            **changes,
        }
        marks = ", ".join("?" * len(row))
        self._connections["global"].execute(
            f"INSERT INTO table_shard_config ({', '.join(row)}) VALUES ({marks})",
            list(row.values()),
        )

    @property
    def config(self) -> DatabaseConfig:
        return self.config_of("global")

    def config_of(self, name: Name, **changes: Any) -> DatabaseConfig:
        return self.fake.config_of(name).model_copy(update=changes)

    def run(self, name: Name, *statements: str) -> List[Any]:
        """Run statements past the service; the rows of the last one."""
        rows: List[Any] = []
        for statement in statements:
            found = self._execute(FakeCall(name, statement))
            rows = [dict(zip(found.columns, row)) for row in getattr(found, "rows", ())]
        return rows

    def value(self, name: Name, statement: str) -> Any:
        return next(iter(self.run(name, statement)[0].values()))

    def set_row(self, shard_id: int, **columns: Any) -> None:
        with self._lock:
            connection = self._connections["global"]
            known = connection.execute(
                "SELECT 1 FROM table_shard_config WHERE shard_id = ?", (shard_id,)
            ).fetchone()
            if known is None:
                self._insert(shard_id, 1, **columns)
                return
            for name, value in columns.items():
                connection.execute(
                    f"UPDATE table_shard_config SET {name} = ? WHERE shard_id = ?",
                    (value, shard_id),
                )

    def _answer(self, call: FakeCall) -> Optional[Answer]:
        if re.match(r"(SET|DO|KILL)\b|SELECT @@|SELECT (GET|RELEASE)_LOCK", call.sql):
            return None
        procedure = CALL.match(call.sql)
        try:
            if procedure:
                return self._call(call.database, procedure[1], _values(procedure[2]))
            answer: Answer = self._execute(call)
            return answer
        except sqlite3.Error as error:
            return _as_mysql(error, self.config_of(call.database).database)

    def _execute(self, call: FakeCall) -> Any:
        sql = re.sub(r"`?app_(global|shard_\d)`?\.", "", call.sql)
        for pattern, words in WORDS:
            found = pattern.match(sql)
            if found:
                sql = SHARD_TABLE.format(found[1]) if words is None else pattern.sub(words, sql)
        with self._lock:
            connection = self._connections[call.database]
            if connection.in_transaction and sql.startswith("BEGIN"):
                return Done(0)
            if not connection.in_transaction and re.match("COMMIT|ROLLBACK", sql):
                return Done(0)
            cursor = connection.execute(sql.replace("\\'", "''"))
            if cursor.description is None:
                affected = max(cursor.rowcount, 0)
                first = (cursor.lastrowid or 0) - affected + 1  # MySQL's, of several rows
                return Done(affected, first if sql.startswith("INSERT") else 0)
            return Rows([each[0] for each in cursor.description], cursor.fetchall())

    def _call(self, database: Name, name: str, arguments: Tuple[Any, ...]) -> Answer:
        with self._lock:
            query = self._connections[database].execute
            if name == "find_account":
                columns = ["id", "email", "shard_id"]
                sql = "SELECT id, email, shard_id FROM accounts WHERE email = ?"
                return Sets([Rows(columns, query(sql, arguments).fetchall())])
            if name == "sign_up":
                query("INSERT INTO accounts (email, shard_id) VALUES (?, ?)", arguments)
                sql = "SELECT id, email, shard_id FROM accounts WHERE email = ?"
                rows = Rows(["id", "email", "shard_id"], query(sql, arguments[:1]).fetchall())
                return Sets([[{"ErrorCode": 0}], rows])
            if name == "portfolio":
                count = query("SELECT COUNT(*) FROM trades WHERE user_id = ?", arguments)
                head = [{"ErrorCode": 0, "trades": count.fetchone()[0]}]
                sql = (
                    "SELECT symbol, SUM(qty) FROM trades WHERE user_id = ? "
                    "GROUP BY symbol ORDER BY symbol"
                )
                found = Rows(["symbol", "qty"], query(sql, arguments).fetchall())
                return Sets([head, found, Rows(["id"])])
        return pymysql.err.OperationalError(1305, f"PROCEDURE {name} does not exist")


def _values(text: str) -> Tuple[Any, ...]:
    with contextlib.closing(sqlite3.connect(":memory:")) as connection:
        found: Tuple[Any, ...] = connection.execute(f"SELECT {text}").fetchone()
    return found


def _as_mysql(error: sqlite3.Error, database: str) -> Exception:
    text = str(error)
    if text.startswith("no such table: "):
        name = text.partition(": ")[2]
        return pymysql.err.ProgrammingError(1146, f"Table '{database}.{name}' doesn't exist")
    if text.startswith(("no such column", "table ")):
        return pymysql.err.OperationalError(1054, f"Unknown column: {text}")
    if isinstance(error, sqlite3.IntegrityError):
        return pymysql.err.IntegrityError(1062, text)
    return pymysql.err.ProgrammingError(1064, text)
