"""The servers that the suite runs on: private ones, or those given by address."""

import re
import secrets
from typing import Any, Dict, List, Optional, Union

import pymysql
import pymysql.cursors
import pytest

from dualdb import DatabaseConfig, MySQLClient
from dualdb.endpoints.profiles import EngineProfile
from dualdb.sandbox import Sandbox
from dualdb.topology.shard_map import DDL

Name = Union[str, int]

GLOBAL_SCHEMA = [
    """CREATE TABLE accounts (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, email VARCHAR(100) NOT NULL UNIQUE, shard_id INT
    )""",
    """CREATE PROCEDURE sign_up(IN p_email VARCHAR(100), IN p_shard INT) BEGIN
        INSERT INTO accounts (email, shard_id) VALUES (p_email, p_shard);
        SELECT 0 AS ErrorCode;
        SELECT id, email, shard_id FROM accounts WHERE email = p_email;
    END""",
    """CREATE PROCEDURE find_account(IN p_email VARCHAR(100))
        SELECT id, email, shard_id FROM accounts WHERE email = p_email""",
]
SHARD_SCHEMA = [
    """CREATE TABLE trades (
        id BIGINT AUTO_INCREMENT PRIMARY KEY, user_id BIGINT NOT NULL,
        symbol VARCHAR(20) NOT NULL, qty INT NOT NULL
    )""",
    """CREATE PROCEDURE portfolio(IN p_user BIGINT) BEGIN
        SELECT 0 AS ErrorCode, COUNT(*) AS trades FROM trades WHERE user_id = p_user;
        SELECT symbol, SUM(qty) AS qty FROM trades WHERE user_id = p_user
            GROUP BY symbol ORDER BY symbol;
        SELECT id FROM trades WHERE FALSE;
    END""",
    """CREATE PROCEDURE totals(IN p_user BIGINT, OUT p_count INT, INOUT p_sum INT) BEGIN
        SELECT COUNT(*), p_sum + COALESCE(SUM(qty), 0) INTO p_count, p_sum
            FROM trades WHERE user_id = p_user;
        SELECT p_user AS user_id;
    END""",
    """CREATE PROCEDURE insert_and_fail(IN p_user BIGINT) BEGIN
        INSERT INTO trades (user_id, symbol, qty) VALUES (p_user, 'FAIL', 1);
        SELECT 1 AS one;
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more';
    END""",
    """CREATE PROCEDURE end_and_fail(IN p_commit BOOLEAN, IN p_fail BOOLEAN) BEGIN
        IF p_commit THEN COMMIT; ELSE ROLLBACK; END IF;
        IF p_fail THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more'; END IF;
    END""",
    """CREATE PROCEDURE begin_and_fail(IN p_user BIGINT) BEGIN
        START TRANSACTION;
        INSERT INTO trades (user_id, symbol, qty) VALUES (p_user, 'FAIL', 1);
        SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'no more';
    END""",
    """CREATE PROCEDURE insert_and_call_wrongly(IN p_user BIGINT) BEGIN
        INSERT INTO trades (user_id, symbol, qty) VALUES (p_user, 'WRONG', 1);
        CALL totals(p_user, 1, 1);
    END""",
    "CREATE PROCEDURE buy(IN p_user BIGINT, IN p_symbol VARCHAR(20), IN p_qty INT) "
    "INSERT INTO trades (user_id, symbol, qty) VALUES (p_user, p_symbol, p_qty)",
]


def profile_at(config: DatabaseConfig) -> EngineProfile:
    """What the engine of a server can do."""
    client = MySQLClient(config)
    client.init_pool()
    client.close_pool()
    (endpoint,) = client.pool.endpoints.all
    assert endpoint.node is not None
    return endpoint.node.profile


class GivenServers:
    """Servers given by ``--server NAME=[USER[:PASSWORD]@]HOST:PORT``; a name that was
    not given shares the first one's server.
    """

    def __init__(self, given: List[str], ids: List[int]) -> None:
        self._addresses: Dict[str, Dict[str, Any]] = {}
        for text in given:
            name, _, rest = text.partition("=")
            account, _, address = rest.rpartition("@")
            host, _, port = address.rpartition(":")
            user, _, password = account.partition(":")
            if name not in ("global", *map(str, ids)) or not port.isdigit():
                raise pytest.UsageError(
                    f"--server {text}: it must be NAME=[USER[:PASSWORD]@]HOST:PORT, and NAME "
                    f"global, {' or '.join(map(str, ids))}"
                )
            self._addresses[name] = {
                "host": host,
                "port": int(port),
                "user": user or "root",
                "password": password,
            }
        self._mark = secrets.token_hex(3)
        self._account, self._password = f"dualdb_{self._mark}", secrets.token_hex(12)
        self._ids = ids
        self._names: List[Name] = ["global", *ids]

    @property
    def profile(self) -> EngineProfile:
        """What the engine of the first server can do."""
        address = next(iter(self._addresses.values()))
        return profile_at(
            DatabaseConfig(database="information_schema", ssl_mode="disabled", **address)
        )

    def start(self) -> None:
        for name in self._names:
            self._sql(
                name,
                f"CREATE DATABASE `{self.database(name)}` CHARACTER SET utf8mb4",
                f"CREATE USER IF NOT EXISTS '{self._account}'@'%' IDENTIFIED BY '{self._password}'",
                f"GRANT ALL ON `{self.database(name)}`.* TO '{self._account}'@'%'",
            )
        self.run("global", DDL.format(table="table_shard_config"))
        for shard_id in self._ids:
            config = self.config_of(shard_id)
            values = (
                f"{shard_id}, '{config.host}', {config.port}, '{config.database}', "
                f"'{config.user}', '{self._password}', 'active'"
            )
            self.run(
                "global", f"INSERT INTO table_shard_config VALUES ({values}, DEFAULT, DEFAULT)"
            )

    def stop(self) -> None:
        for name in self._names:
            self._sql(
                name,
                f"DROP DATABASE IF EXISTS `{self.database(name)}`",
                f"DROP USER IF EXISTS '{self._account}'@'%'",
            )

    @property
    def config(self) -> DatabaseConfig:
        return self.config_of("global")

    def config_of(self, name: Name) -> DatabaseConfig:
        address = self._address(name)
        return DatabaseConfig(
            host=address["host"],
            port=address["port"],
            database=self.database(name),
            user=self._account,
            password=self._password,
        )

    def run(self, name: Name, *statements: str) -> List[Any]:
        return self._sql(name, *statements, database=self.database(name))

    def database(self, name: Name) -> str:
        return f"dualdb_{self._mark}_{name}"

    def _address(self, name: Name) -> Dict[str, Any]:
        return self._addresses.get(str(name)) or next(iter(self._addresses.values()))

    def _sql(self, name: Name, *statements: str, **options: Any) -> List[Any]:
        options = {
            **self._address(name),
            "autocommit": True,
            "cursorclass": pymysql.cursors.DictCursor,
            "ssl_disabled": True,
            **options,
        }
        with pymysql.connect(**options) as connection:
            with connection.cursor() as cursor:
                for statement in statements:
                    cursor.execute(statement)
                return list(cursor.fetchall())


class Databases:
    """A global database and shards 1 and 2 with the tests' schema, on servers of their
    own.
    """

    ids = (1, 2)

    def __init__(self, given: List[str]) -> None:
        self.servers: Any = GivenServers(given, list(self.ids)) if given else Sandbox(self.ids)
        self._given = bool(given)
        self._rows: List[Dict[str, Any]] = []
        self._made: Any = None
        self._profile: Optional[EngineProfile] = None

    def __enter__(self) -> "Databases":
        self.servers.start()
        try:
            self.run("global", *GLOBAL_SCHEMA)
            for shard_id in self.ids:
                self.run(shard_id, *SHARD_SCHEMA)
            self._made = self._shard_table()
            self._rows = self._made[1]
        except BaseException:
            self.servers.stop()
            raise
        return self

    def __exit__(self, *exc_info: Any) -> None:
        self.servers.stop()

    @property
    def config(self) -> DatabaseConfig:
        config: DatabaseConfig = self.servers.config
        return config

    @property
    def profile(self) -> EngineProfile:
        """What the engine of shard 1 can do."""
        if self._profile is None:
            self._profile = profile_at(self.config_of(1))
        return self._profile

    @property
    def share_one_server(self) -> bool:
        """The databases are on one server, so that its settings are those of all."""
        configs = [self.config, *map(self.config_of, self.ids)]
        return len({(each.host, each.port) for each in configs}) == 1

    def config_of(self, name: Name, **changes: Any) -> DatabaseConfig:
        config: DatabaseConfig = self.servers.config_of(name)
        return config.model_copy(update=changes)

    def run(self, name: Name, *statements: str) -> List[Any]:
        """Run statements as root, past dualdb; the rows of the last one."""
        rows: List[Any] = self.servers.run(name, *statements)
        return rows

    def value(self, name: Name, statement: str) -> Any:
        return next(iter(self.run(name, statement)[0].values()))

    def set_row(self, shard_id: int, **columns: Any) -> None:
        """Change a shard's row, or insert a copy of shard 1's row with these
        changes.
        """
        text = {
            column: "NULL" if value is None else f"'{value}'" for column, value in columns.items()
        }
        known = self.run("global", f"SELECT 1 FROM table_shard_config WHERE shard_id = {shard_id}")
        if known:
            changes = ", ".join(f"{column} = {value}" for column, value in text.items())
            self.run(
                "global", f"UPDATE table_shard_config SET {changes} WHERE shard_id = {shard_id}"
            )
        else:
            row = {
                column: f"'{value}'"
                for column, value in self._rows[0].items()
                if column not in ("created_at", "updated_at")
            }
            row.update(text, shard_id=str(shard_id))
            self.run(
                "global",
                (
                    f"INSERT INTO table_shard_config ({', '.join(row)}) VALUES "
                    f"({', '.join(row.values())})"
                ),
            )

    def drop_leftovers(self) -> None:
        """Drop what other tests have made and left behind."""
        schemas = " ".join(SHARD_SCHEMA + GLOBAL_SCHEMA)
        ours = {"table_shard_config", *re.findall(r"CREATE (?:TABLE|PROCEDURE) (\w+)", schemas)}
        kinds = (
            "SELECT TABLE_TYPE AS kind, TABLE_NAME AS name FROM information_schema.TABLES "
            "WHERE TABLE_SCHEMA = DATABASE()",
            "SELECT ROUTINE_TYPE AS kind, ROUTINE_NAME AS name FROM information_schema.ROUTINES "
            "WHERE ROUTINE_SCHEMA = DATABASE()",
        )
        names: List[Name] = ["global", *self.ids]
        for name in names:
            for query in kinds:
                for found in self.run(name, query):
                    if found["name"] not in ours:
                        kind = found["kind"].replace("BASE ", "")
                        self.run(name, f"DROP {kind} `{found['name']}`")

    def reset(self) -> None:
        """As on the first day: no rows, and the shard table as it was made.

        What no test has touched is left, which is faster.
        """
        if self._shard_table() != self._made:
            inserts = []
            for row in self._rows:
                values = ", ".join(f"'{value}'" for value in row.values())
                inserts.append(f"INSERT INTO table_shard_config VALUES ({values})")
            self.run(
                "global",
                "DROP TABLE IF EXISTS table_shard_config",
                DDL.format(table="table_shard_config"),
                *inserts,
            )
        self._empty("global", "accounts")
        for shard_id in self.ids:
            self._empty(shard_id, "trades")

    def _shard_table(self) -> Any:
        """Its definition and its rows; None where a test has changed its columns."""
        try:
            return (
                self.run("global", "SHOW CREATE TABLE table_shard_config"),
                self.run("global", "SELECT * FROM table_shard_config ORDER BY shard_id"),
            )
        except pymysql.err.MySQLError:
            return None

    def _empty(self, name: Name, table: str) -> None:
        # MySQL's figures about AUTO_INCREMENT are a day old
        if self._given or self.value(
            name,
            f"SELECT EXISTS (SELECT 1 FROM {table}) OR 1 <> (SELECT AUTO_INCREMENT "
            f"FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() "
            f"AND TABLE_NAME = '{table}')",
        ):
            self.run(name, f"TRUNCATE {table}")
