"""The contestants of threads.

Every one is in autocommit, gives dicts where it can, and gives back what it borrowed
after each call.
"""

import socket
from types import SimpleNamespace
from typing import Any, ClassVar, Dict, List, Sequence, Tuple, Type

import pymysql
import pymysql.connections
import pymysql.cursors
from pymysql.constants import CLIENT

import dualdb

from . import data, row_types
from .data import Server
from .peers import THREADS, Peer, Unsupported, dicts


def connect_pymysql(server: Server, **options: Any) -> Any:
    return pymysql.connect(
        **server.arguments(
            database=server.database, cursorclass=pymysql.cursors.DictCursor, **options
        )
    )


#: Of the raw socket: how many statements are in a command.
UPDATES_AT_ONCE = 250


class Counting(pymysql.connections.Connection):  # type: ignore[type-arg, unused-ignore]
    """Counts what it reads: how long an answer is."""

    count = 0

    def _read_bytes(self, num_bytes: int) -> bytes:
        self.count += num_bytes
        read: bytes = super()._read_bytes(num_bytes)  # type: ignore[misc, unused-ignore]
        return read


class Floor(Peer):
    """Writes a finished command and reads as many bytes as its answer is known to have:
    nobody can do with less.
    """

    key, title, implementation = "floor", "raw socket", THREADS
    per_call = (
        "Nothing is composed and nothing decoded: a finished command, and the bytes of its answer"
    )
    floor = True

    def open(self) -> Any:
        # Two sessions, both signed in by PyMySQL: one learns how long each answer is,
        # the other is the bare socket.
        self._scout = Counting(
            **self.server.arguments(
                database=self.server.database,
                cursorclass=pymysql.cursors.DictCursor,
                client_flag=CLIENT.MULTI_STATEMENTS,
            )
        )
        self._session = connect_pymysql(self.server, client_flag=CLIENT.MULTI_STATEMENTS)
        self._socket: socket.socket = self._session._sock
        self._known: Dict[Any, Tuple[bytes, int, Any]] = {}

    def close(self) -> Any:
        self._scout.close()
        self._session.close()

    def learnt(self, sql: str, parameter: Any) -> Tuple[bytes, int, Any]:
        """The command, the length of its answer, and the rows in it."""
        known = self._known.get((sql, parameter))
        if known is None:
            with self._scout.cursor() as cursor:
                statement = cursor.mogrify(sql, (parameter,))
                self._scout.count = 0
                cursor.execute(statement)
                rows = cursor.fetchall()
            # Closing the cursor has read what comes after the rows.
            known = self._known[sql, parameter] = (
                self._command(statement),
                self._scout.count,
                rows,
            )
        return known

    @staticmethod
    def _command(statement: str) -> bytes:
        payload = b"\x03" + statement.encode()
        return len(payload).to_bytes(3, "little") + b"\0" + payload

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        with self._scout.cursor() as cursor:
            if columns == data.CHANGE:
                changes = [cursor.mogrify(data.UPDATE, row) for row in rows]
                statements = [
                    "; ".join(changes[start : start + UPDATES_AT_ONCE])
                    for start in range(0, len(changes), UPDATES_AT_ONCE)
                ]
            else:
                head, _, one = data.INSERT.partition(" VALUES ")
                statements = [
                    f"{head} VALUES {', '.join([cursor.mogrify(one, row) for row in rows])}"
                ]
            self._scout.count = 0
            for statement in statements:
                cursor.execute(statement)
                while cursor.nextset():
                    pass
        return b"".join(map(self._command, statements)), self._scout.count

    def ask(self, command: bytes, length: int) -> bytearray:
        self._socket.sendall(command)
        answer = bytearray(length)
        view, read = memoryview(answer), 0
        while read < length:
            read += self._socket.recv_into(view[read:])
        return answer

    def point(self, id_: int) -> Any:
        command, length, _ = self.learnt(data.POINT, id_)
        return self.ask(command, length)

    def rows(self, count: int) -> Any:
        command, length, _ = self.learnt(data.ROWS, count)
        return self.ask(command, length)

    def insert(self, rows: Any) -> Any:
        return self.ask(*rows)

    def update(self, rows: Any) -> Any:
        return self.ask(*rows)

    def call(self, id_: int) -> Any:
        command, length, _ = self.learnt(data.CALL, id_)
        return self.ask(command, length)


class BareDriver(Peer):
    """One connection and a cursor for each call.

    Nothing is sent beside the statement; nobody looks whether the connection lives.
    """

    implementation = THREADS
    per_call = "One connection, a cursor for each call; nothing is sent beside the statement"

    def close(self) -> Any:
        self.connection.close()

    connection: Any

    def point(self, id_: int) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(data.POINT, (id_,))
            return cursor.fetchone()

    def rows(self, count: int) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(data.ROWS, (count,))
            return cursor.fetchall()

    def insert(self, rows: Any) -> Any:
        with self.connection.cursor() as cursor:
            return cursor.executemany(data.INSERT, rows)

    def update(self, rows: Any) -> Any:
        with self.connection.cursor() as cursor:
            return cursor.executemany(data.UPDATE, rows)

    def call(self, id_: int) -> Any:
        # Not callproc(), which sends one more statement (SET @_find_account_0 = ...)
        # before it. close() reads the rest of the answer.
        with self.connection.cursor() as cursor:
            cursor.execute(data.CALL, (id_,))
            return cursor.fetchall()


class PyMySQL(BareDriver):
    key, title, distributions = "pymysql", "PyMySQL", ("PyMySQL",)

    def open(self) -> Any:
        self.connection = connect_pymysql(self.server)

    def stream(self, count: int) -> Any:
        with self.connection.cursor(pymysql.cursors.SSDictCursor) as cursor:
            cursor.execute(data.ROWS, (count,))
            return sum(row["id"] for row in cursor)


class MySQLClient(BareDriver):
    key, title, distributions = "mysqlclient", "mysqlclient", ("mysqlclient",)

    def open(self) -> Any:
        import MySQLdb
        import MySQLdb.cursors

        self._streaming = MySQLdb.cursors.SSDictCursor
        self.connection = MySQLdb.connect(
            **self.server.arguments(
                database=self.server.database, cursorclass=MySQLdb.cursors.DictCursor
            )
        )

    def stream(self, count: int) -> Any:
        with self.connection.cursor(self._streaming) as cursor:
            cursor.execute(data.ROWS, (count,))
            return sum(row["id"] for row in cursor)


class Connector(BareDriver):
    """Oracle's, with its C extension where that loads.

    Its pool takes no part: it refuses who comes when all is in use.
    """

    key, title, distributions = (
        "mysql-connector",
        "mysql-connector-python",
        ("mysql-connector-python",),
    )

    def open(self) -> Any:
        import mysql.connector

        self.connection = mysql.connector.connect(
            # Its own default is a collation that only MySQL has.
            **self.server.arguments(database=self.server.database, collation="utf8mb4_general_ci")
        )

    def note(self) -> str:
        return (
            "with its C extension"
            if type(self.connection).__name__ == "CMySQLConnection"
            else "in pure Python: its C extension does not load"
        )

    def point(self, id_: int) -> Any:
        with self.connection.cursor(dictionary=True) as cursor:
            cursor.execute(data.POINT, (id_,))
            # with fetchone() alone it would complain of a result that was not read to
            # its end
            (row,) = cursor.fetchall()
            return row

    def rows(self, count: int) -> Any:
        with self.connection.cursor(dictionary=True) as cursor:
            cursor.execute(data.ROWS, (count,))
            return cursor.fetchall()

    def stream(self, count: int) -> Any:
        with self.connection.cursor(dictionary=True) as cursor:
            cursor.execute(data.ROWS, (count,))
            return sum(row["id"] for row in cursor)

    def insert(self, rows: Any) -> Any:
        with self.connection.cursor() as cursor:
            cursor.executemany(data.INSERT, rows)
            return cursor.rowcount

    def update(self, rows: Any) -> Any:
        with self.connection.cursor() as cursor:
            cursor.executemany(data.UPDATE, rows)
            return cursor.rowcount

    def call(self, id_: int) -> Any:
        with self.connection.cursor(dictionary=True) as cursor:
            cursor.execute(data.CALL, (id_,))
            rows = cursor.fetchall()
            while cursor.nextset():
                pass
            return rows


class DBUtils(Peer):
    key, title, implementation, distributions = (
        "dbutils",
        "DBUtils, defaults",
        THREADS,
        ("DBUtils", "PyMySQL"),
    )
    per_call = "PooledDB over PyMySQL as it comes: a ping at check-out, a rollback at check-in"
    pooled = True

    def open(self) -> Any:
        from dbutils.pooled_db import PooledDB

        # blocking: callers wait where all ten are in use, as everybody's do here.
        self.pool = PooledDB(lambda: connect_pymysql(self.server), maxconnections=10, blocking=True)

    def close(self) -> Any:
        self.pool.close()

    def point(self, id_: int) -> Any:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(data.POINT, (id_,))
            return cursor.fetchone()

    def rows(self, count: int) -> Any:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(data.ROWS, (count,))
            return cursor.fetchall()

    def stream(self, count: int) -> Any:
        with (
            self.pool.connection() as connection,
            connection.cursor(pymysql.cursors.SSDictCursor) as cursor,
        ):
            cursor.execute(data.ROWS, (count,))
            return sum(row["id"] for row in cursor)

    def insert(self, rows: Any) -> Any:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            return cursor.executemany(data.INSERT, rows)

    def update(self, rows: Any) -> Any:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            return cursor.executemany(data.UPDATE, rows)

    def call(self, id_: int) -> Any:
        with self.pool.connection() as connection, connection.cursor() as cursor:
            cursor.execute(data.CALL, (id_,))
            return cursor.fetchall()


#: It has ? for parameters.
PYRO_POINT, PYRO_ROWS, PYRO_INSERT, PYRO_UPDATE, PYRO_CALL = (
    sql.replace("%s", "?") for sql in (data.POINT, data.ROWS, data.INSERT, data.UPDATE, data.CALL)
)


def pyro_options(server: Server) -> Any:
    """TCP as for everybody: by itself it changes to the unix socket."""
    from pyro_mysql import Opts

    return (
        Opts()
        .host(server.host)
        .port(server.port)
        .user(server.user)
        .password(server.password)
        .db(server.database)
        .upgrade_to_unix_socket(False)
    )


class PyroMySQL(Peer):
    """One connection: written in Rust."""

    key, title, implementation, distributions = "pyro", "pyro-mysql", THREADS, ("pyro-mysql",)
    per_call = (
        "One connection, over TCP; statements are prepared once and executed by the binary "
        "protocol, executemany row by row: what the server need not parse again makes it faster "
        "than the raw socket may be. Written in Rust"
    )
    no_streams = "it has no way to read rows as they come"

    def open(self) -> Any:
        from pyro_mysql.sync import Conn

        self.connection = Conn(pyro_options(self.server))
        self.connection.query_drop("SET NAMES utf8mb4")

    def close(self) -> Any:
        self.connection.close()

    def point(self, id_: int) -> Any:
        return self.connection.exec_first(PYRO_POINT, (id_,), as_dict=True)

    def rows(self, count: int) -> Any:
        return self.connection.exec(PYRO_ROWS, (count,), as_dict=True)

    def stream(self, count: int) -> Any:
        raise Unsupported(self.no_streams)

    def insert(self, rows: Any) -> Any:
        self.connection.exec_batch(PYRO_INSERT, rows)
        return len(rows)

    def update(self, rows: Any) -> Any:
        self.connection.exec_batch(PYRO_UPDATE, rows)
        return len(rows)

    def call(self, id_: int) -> Any:
        return self.connection.exec(PYRO_CALL, (id_,), as_dict=True)


class Rustmy(Peer):
    """Claims to be the fastest; named here so that the report says why it is absent."""

    key, title, implementation, distributions = "rustmy", "rustmy", THREADS, ("rustmy",)

    def open(self) -> Any:
        raise Unsupported("pip finds no distribution of it")


class SQLAlchemy(Peer):
    """Core with text(), which is the quickest way to use it.

    The statements are made once, so that its cache of them is warm.
    """

    implementation = THREADS
    per_call = (
        "Core, text(), AUTOCOMMIT, .mappings(): a rollback at check-in (its default), no "
        "ping (its default)"
    )
    pooled = True
    driver = ""
    options: ClassVar[Dict[str, Any]] = {}

    def open(self) -> Any:
        from sqlalchemy import create_engine, text

        self.engine = create_engine(
            self.server.url.replace("mysql://", f"mysql+{self.driver}://") + "?charset=utf8mb4",
            pool_size=10,
            max_overflow=0,
            isolation_level="AUTOCOMMIT",
            **self.options,
        )
        self._point, self._call = (
            text(data.named(data.POINT, "id")),
            text(data.named(data.CALL, "id")),
        )
        self._rows, self._insert = (
            text(data.named(data.ROWS, "count")),
            text(data.named(data.INSERT, *data.TRADE[1:])),
        )
        self._update = text(data.named(data.UPDATE, *data.CHANGE))

    def close(self) -> Any:
        self.engine.dispose()

    def form(self, rows: List[Tuple[Any, ...]], columns: Sequence[str]) -> Any:
        return dicts(rows, columns)

    def point(self, id_: int) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(self._point, {"id": id_}).mappings().one()

    def rows(self, count: int) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(self._rows, {"count": count}).mappings().all()

    def stream(self, count: int) -> Any:
        with self.engine.connect() as connection:
            found = connection.execution_options(yield_per=1000).execute(
                self._rows, {"count": count}
            )
            return sum(row["id"] for row in found.mappings())

    def insert(self, rows: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(self._insert, rows).rowcount

    def update(self, rows: Any) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(self._update, rows).rowcount

    def call(self, id_: int) -> Any:
        with self.engine.connect() as connection:
            return connection.execute(self._call, {"id": id_}).mappings().all()


class SQLAlchemyPyMySQL(SQLAlchemy):
    key, title, driver, distributions = (
        "sqlalchemy-pymysql",
        "SQLAlchemy (PyMySQL)",
        "pymysql",
        ("SQLAlchemy", "PyMySQL"),
    )


class SQLAlchemyMySQLClient(SQLAlchemy):
    key, title, driver, distributions = (
        "sqlalchemy-mysqlclient",
        "SQLAlchemy (mysqlclient)",
        "mysqldb",
        ("SQLAlchemy", "mysqlclient"),
    )


class SQLAlchemyTuned(SQLAlchemyPyMySQL):
    """The same without its rollback: what a user who knows that option gets."""

    key, title = "sqlalchemy-tuned", "SQLAlchemy (PyMySQL), no rollback"
    per_call = "The same with skip_autocommit_rollback=True: nothing is sent beside the statement"
    options: ClassVar[Dict[str, Any]] = {"skip_autocommit_rollback": True}


class DualDB(Peer):
    key, title, implementation = "dualdb", "dualdb", THREADS
    distributions = ("dualdb", "PyMySQL", "DBUtils")
    per_call = (
        "Through the service, to the global database: nothing is sent beside the statement, "
        "a poll() of the socket at check-out"
    )
    pooled = True

    options: ClassVar[Dict[str, Any]] = {}

    def open(self) -> Any:
        self.service = dualdb.DatabaseService(service_config(self.server, **self.options))
        self.service.init_service()
        self.target: Any = self.service

    def close(self) -> Any:
        self.service.close_service()

    def point(self, id_: int) -> Any:
        return self.target.query_one(data.POINT, (id_,))

    def rows(self, count: int) -> Any:
        return self.target.query(data.ROWS, (count,))

    def stream(self, count: int) -> Any:
        return sum(row["id"] for row in self.target.stream(data.ROWS, (count,)))

    def typed(self, count: int) -> Any:
        return self.rows(count)

    def insert(self, rows: Any) -> Any:
        return int(self.target.executemany(data.INSERT, rows))

    def update(self, rows: Any) -> Any:
        return int(self.target.executemany(data.UPDATE, rows))

    def call(self, id_: int) -> Any:
        return self.target.call("find_account", (id_,)).rows


class DualDBSession(DualDB):
    """The way of a web handler: a session's shard, found for each call."""

    key, title, only = "dualdb-session", "dualdb, by session", ("point",)
    per_call = "The same through db.session(...): the shard of a user, found for each call"

    def open(self) -> Any:
        super().open()
        self._session = SimpleNamespace(session=SimpleNamespace(user_id=7, shard_id=1))

    def point(self, id_: int) -> Any:
        return self.service.session(self._session).query_one(data.POINT, (id_,))


class DualDBPython(DualDB):
    """What there is where the extension module was not built."""

    key, title = "dualdb-python", "dualdb, rows decoded in Python"
    only = ("point", "rows1000")
    per_call = 'The same with row_decoder="python"'
    options: ClassVar[Dict[str, Any]] = {"row_decoder": "python"}


class DualDBDataclass(DualDB):
    """Rows of a type of the caller's."""

    key, title, only = "dualdb-dataclass", "dualdb, rows as dataclasses", ("typed",)
    per_call = "The same with as_= a dataclass"
    row_type: ClassVar[Type[Any]] = row_types.Trade

    def typed(self, count: int) -> Any:
        return self.target.query(data.ROWS, (count,), as_=self.row_type)

    def plain(self, row: Any) -> Dict[str, Any]:
        return vars(row) if isinstance(row, self.row_type) else super().plain(row)


class DualDBPydantic(DualDBDataclass):
    key, title = "dualdb-pydantic", "dualdb, rows as pydantic models"
    per_call = "The same with as_= a pydantic model, which validates each row"
    row_type: ClassVar[Type[Any]] = row_types.TradeModel


def service_config(server: Server, **options: Any) -> dualdb.DatabaseConfig:
    return dualdb.DatabaseConfig(**server._asdict(), pool_size=10, max_overflow=0, **options)


PEERS: List[Type[Peer]] = [
    Floor,
    PyMySQL,
    MySQLClient,
    Connector,
    PyroMySQL,
    Rustmy,
    DBUtils,
    SQLAlchemyPyMySQL,
    SQLAlchemyMySQLClient,
    SQLAlchemyTuned,
    DualDB,
    DualDBPython,
    DualDBSession,
    DualDBDataclass,
    DualDBPydantic,
]
