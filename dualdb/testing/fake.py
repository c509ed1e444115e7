"""Databases without servers: they speak MySQL's protocol and give scripted answers."""

import contextlib
import datetime
import re
import socket
import struct
import threading
from decimal import Decimal
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Pattern,
    Sequence,
    Tuple,
    Union,
)

import pymysql.err
from pymysql.constants import CLIENT, FIELD_TYPE

from ..config import DatabaseConfig

Name = Union[str, int]

_CAPABILITIES = (
    CLIENT.LONG_PASSWORD
    | CLIENT.FOUND_ROWS
    | CLIENT.LONG_FLAG
    | CLIENT.CONNECT_WITH_DB
    | CLIENT.PROTOCOL_41
    | CLIENT.TRANSACTIONS
    | CLIENT.SECURE_CONNECTION
    | CLIENT.MULTI_RESULTS
    | CLIENT.PLUGIN_AUTH
    | CLIENT.CONNECT_ATTRS
)
_AUTOCOMMIT = 2
_IN_TRANSACTION = 1
_MORE_RESULTS = 8
_UTF8 = 45
_BINARY = 63

_BEGIN = re.compile(r"(BEGIN|START TRANSACTION)\b", re.IGNORECASE)
_END = re.compile(r"(COMMIT|ROLLBACK)(?! TO\b)", re.IGNORECASE)
#: What is answered without a script: nothing comes of it here.
_CONTROL = re.compile(
    r"(BEGIN|START TRANSACTION|COMMIT|ROLLBACK|SAVEPOINT|RELEASE SAVEPOINT|SET|DO|KILL)\b",
    re.IGNORECASE,
)
_SHARD_TABLE = re.compile(r"SELECT \* FROM `?table_shard_config`? ", re.IGNORECASE)
#: What a new session asks about the server: it is a single one, and nothing special.
_REPLICA_TABLE = re.compile(r"SELECT \* FROM `?table_shard_replica`?$", re.IGNORECASE)
_ASKS_NODE = re.compile(r"SELECT @@(global\.read_only|group_replication)", re.IGNORECASE)
_ANSWERED_BY_ONE = re.compile(r"SELECT (1|RELEASE_LOCK|GET_LOCK|IS_USED_LOCK)\b", re.IGNORECASE)


class FakeCall(NamedTuple):
    """A statement that came.

    Attributes:
        database: ``"global"`` or a shard id.
        sql: The statement, with its parameters as they were sent.
    """

    database: Name
    sql: str


class Rows(NamedTuple):
    """Rows as an answer, where dicts cannot say it.

    Attributes:
        columns: The names of the columns.
        rows: The values of each row.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[Any]] = ()


class Done(NamedTuple):
    """The answer to a write.

    Attributes:
        affected: The number of affected rows.
        lastrowid: The AUTO_INCREMENT id; 0 for none.
    """

    affected: int = 1
    lastrowid: int = 0


class Sets(NamedTuple):
    """The answer to a procedure.

    Attributes:
        sets: Its result sets.
        affected: The affected rows of its last statement.
    """

    sets: Sequence[Union[Rows, Sequence[Mapping[str, Any]]]]
    affected: int = 0


#: Dicts with the same keys, or one of the types above; an int is Done(affected); an
#: exception is an error of the server, with its code and message as arguments.
Answer = Union[Sequence[Mapping[str, Any]], Rows, Done, Sets, int, Exception]


class FakeRouter:
    """A global database and shards without servers, for tests of what an application
    sends and does with the answers.

    It listens on loopback and speaks MySQL's protocol, so that the real services of
    both implementations connect to it, with their routing, transactions, retries and
    errors. Statements are answered as scripted; one that is not scripted is an error of
    the server. It is in a ``with`` block.

    Args:
        shards: The number of shards, with ids from 1, or their ids.
        answer: Takes each FakeCall first, and returns an Answer; None to go on with
            what ``on`` scripts.

    Attributes:
        calls: Every statement that came, without those of the session set-up and of
            reading the shard table.

    Example:
        >>> with FakeRouter(shards=2) as fake, DatabaseService(fake.config) as db:
        ...     fake.on("SELECT symbol FROM trades", [{"symbol": "ABC"}], database=2)
        ...     db.shard(2).query("SELECT symbol FROM trades")
        [{'symbol': 'ABC'}]
    """

    def __init__(
        self,
        shards: Union[int, Iterable[int]] = 2,
        *,
        answer: Optional[Callable[[FakeCall], Optional[Answer]]] = None,
    ) -> None:
        ids = list(range(1, shards + 1)) if isinstance(shards, int) else list(shards)
        self.calls: List[FakeCall] = []
        self._answer = answer
        self._scripts: List[Tuple[Pattern[str], Optional[Name], Any]] = []
        self._status: Dict[int, str] = dict.fromkeys(ids, "active")
        self._servers: Dict[Name, _Server] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> "FakeRouter":
        names: List[Name] = ["global", *self._status]
        for name in names:
            self._servers[name] = _Server(name, self._respond)
        return self

    def __exit__(self, *exc_info: object) -> None:
        for server in self._servers.values():
            server.stop()

    @property
    def config(self) -> DatabaseConfig:
        """The configuration of the global database."""
        return self.config_of("global")

    def config_of(self, name: Name) -> DatabaseConfig:
        """Return the configuration of a database.

        Args:
            name: ``"global"`` or a shard id.
        """
        return DatabaseConfig(
            host="127.0.0.1",
            port=self._servers[name].port,
            database=_database(name),
            user="app",
            password="secret",
            ssl_mode="disabled",
        )

    def on(
        self,
        pattern: str,
        answer: Union[Answer, Callable[[FakeCall], Answer]],
        *,
        database: Optional[Name] = None,
    ) -> None:
        """Script an answer. Of several that fit, the last one counts.

        Args:
            pattern: A regular expression that is searched for in the statement without
                its backticks, whatever the case of its letters.
            answer: The answer, or a function of the FakeCall.
            database: ``"global"`` or a shard id; None for all.
        """
        self._scripts.append((re.compile(pattern, re.IGNORECASE), database, answer))

    def statements(self, database: Name) -> List[str]:
        """Return the statements that came to one database.

        Args:
            database: ``"global"`` or a shard id.
        """
        return [each.sql for each in self.calls if each.database == database]

    def set_status(self, shard_id: int, status: str) -> None:
        """Change a shard's row; the service learns of it by ``refresh()``.

        Args:
            shard_id: The shard.
            status: "active", "inactive", "maintenance", "moving" or "readonly".
        """
        self._status[shard_id] = status

    def take_down(self, name: Name) -> None:
        """Cut a database's connections and refuse new ones.

        Args:
            name: ``"global"`` or a shard id.
        """
        self._servers[name].stop()

    def bring_up(self, name: Name) -> None:
        """Undo ``take_down``.

        Args:
            name: ``"global"`` or a shard id.
        """
        self._servers[name].start()

    # What comes.

    def _respond(self, call: FakeCall) -> Answer:
        found = self._scripted(call)
        if found is not None:
            self._record(call)
            return found
        built_in = self._built_in(call)
        if built_in is None or _BEGIN.match(call.sql) or _END.match(call.sql):
            self._record(call)
        if built_in is not None:
            return built_in
        return pymysql.err.OperationalError(1105, f"no answer is scripted for: {call.sql[:200]}")

    def _record(self, call: FakeCall) -> None:
        with self._lock:
            self.calls.append(call)

    def _scripted(self, call: FakeCall) -> Optional[Answer]:
        found = None if self._answer is None else self._answer(call)
        if found is not None:
            return found
        sql = call.sql.replace("`", "")
        for pattern, database, answer in reversed(self._scripts):
            if database in (None, call.database) and pattern.search(sql):
                scripted: Answer = answer(call) if callable(answer) else answer
                return scripted
        return None

    def _built_in(self, call: FakeCall) -> Optional[Answer]:
        if _SHARD_TABLE.match(call.sql) and call.database == "global":
            return [self._row(shard_id) for shard_id in sorted(self._status)]
        if _REPLICA_TABLE.match(call.sql) and call.database == "global":
            return pymysql.err.ProgrammingError(1146, "Table 'table_shard_replica' doesn't exist")
        if "@@max_allowed_packet" in call.sql:
            return Rows(["n"], [(16 * 1024 * 1024,)])
        if "@@init_connect" in call.sql:
            names = ["init_connect", "role", "client", "connection", "results"]
            return Rows(names, [("", None, "utf8mb4", "utf8mb4", "utf8mb4")])
        if _ASKS_NODE.match(call.sql):
            return pymysql.err.OperationalError(1193, "Unknown system variable")
        if _CONTROL.match(call.sql):
            return Done(0)
        if _ANSWERED_BY_ONE.match(call.sql):
            return Rows(["1"], [(1,)])
        return None

    def _row(self, shard_id: int) -> Dict[str, Any]:
        config = self.config_of(shard_id)
        return {
            "shard_id": shard_id,
            "host": config.host,
            "port": config.port,
            "database_name": config.database,
            "username": config.user,
            "password": config.reveal_password(),
            "status": self._status[shard_id],
        }


def _database(name: Name) -> str:
    return "app_global" if name == "global" else f"app_shard_{name}"


# One database, on the wire.


class _Server:
    def __init__(self, name: Name, respond: Callable[[FakeCall], Answer]) -> None:
        self._name = name
        self._respond = respond
        self._links: List[socket.socket] = []
        self._listener: Optional[socket.socket] = None
        self.port = 0
        self.start()

    def start(self) -> None:
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def stop(self) -> None:
        listener, self._listener = self._listener, None
        links, self._links = self._links, []
        for each in [*links, *([] if listener is None else [listener])]:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                link, _ = listener.accept()
                # As servers do: no one of several answers waits until the one before
                # it is acknowledged.
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._links.append(link)
                threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), link:
            _Session(self._name, link, self._respond).run()


class _Session:
    """One connection, from the greeting to its end."""

    def __init__(
        self, name: Name, link: socket.socket, respond: Callable[[FakeCall], Answer]
    ) -> None:
        self._name = name
        self._link = link
        self._respond = respond
        self._status = _AUTOCOMMIT

    def run(self) -> None:
        self._send([_greeting()], 0)
        self._receive()
        self._send([_ok(Done(0), self._status)], 2)
        while True:
            command = self._receive()
            if command[:1] == b"\x01":  # COM_QUIT
                return
            if command[:1] == b"\x03":  # COM_QUERY
                self._send(self._answer(command[1:].decode("utf-8", "surrogateescape")))
            else:
                if command[:1] == b"\x1f":  # COM_RESET_CONNECTION
                    self._status = _AUTOCOMMIT
                self._send([_ok(Done(0), self._status)])

    def _answer(self, sql: str) -> List[bytes]:
        try:
            answer = self._respond(FakeCall(self._name, sql))
        except Exception as error:
            # of the script: it is shown where the statement was sent
            answer = pymysql.err.OperationalError(1105, f"the script failed: {error!r}")
        if isinstance(answer, Exception):
            return [_error(answer)]
        if _BEGIN.match(sql):
            self._status |= _IN_TRANSACTION
        elif _END.match(sql):
            self._status &= ~_IN_TRANSACTION
        if isinstance(answer, Sets):
            made = [
                packet
                for each in answer.sets
                for packet in _table(_as_rows(each), self._status | _MORE_RESULTS)
            ]
            return [*made, _ok(Done(answer.affected), self._status)]
        if isinstance(answer, int):
            answer = Done(answer)
        if isinstance(answer, Done):
            return [_ok(answer, self._status)]
        return _table(_as_rows(answer), self._status)

    def _send(self, payloads: Sequence[bytes], number: int = 1) -> None:
        sent = []
        for payload in payloads:
            for begin in range(0, len(payload) + 1, 0xFFFFFF):
                piece = payload[begin : begin + 0xFFFFFF]
                sent.append(struct.pack("<I", len(piece) | (number & 255) << 24) + piece)
                number += 1
        self._link.sendall(b"".join(sent))

    def _receive(self) -> bytes:
        payload = b""
        while True:
            size = int.from_bytes(self._read(4)[:3], "little")
            payload += self._read(size)
            if size < 0xFFFFFF:
                return payload

    def _read(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            piece = self._link.recv(count - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def _as_rows(answer: "Union[Rows, Sequence[Mapping[str, Any]]]") -> Rows:
    if isinstance(answer, Rows):
        return answer
    columns = list(answer[0]) if answer else ["nothing"]
    return Rows(columns, [[row[name] for name in columns] for row in answer])


# Packets.


def _greeting() -> bytes:
    return (
        b"\x0a8.0.0-dualdb-fake\x00"
        + struct.pack("<I", 7)
        + b"saltsalt\x00"
        + struct.pack("<H", _CAPABILITIES & 0xFFFF)
        + bytes([_UTF8])
        + struct.pack("<HH", _AUTOCOMMIT, _CAPABILITIES >> 16)
        + b"\x15"
        + b"\x00" * 10
        + b"saltsaltsalt\x00mysql_native_password\x00"
    )


def _ok(done: Done, status: int) -> bytes:
    numbers = _number(done.affected) + _number(done.lastrowid)
    return b"\x00" + numbers + struct.pack("<HH", status, 0)


def _error(error: Exception) -> bytes:
    arguments = error.args
    code, message = arguments if len(arguments) == 2 else (1105, str(error))
    state = getattr(error, "sqlstate", None) or "HY000"
    return b"\xff" + struct.pack("<H", code) + b"#" + state.encode() + str(message).encode()


def _table(found: Rows, status: int) -> List[bytes]:
    end = b"\xfe" + struct.pack("<HH", 0, status)
    kinds = [_kind([row[number] for row in found.rows]) for number in range(len(found.columns))]
    return [
        _number(len(found.columns)),
        *[_column(name, kind) for name, kind in zip(found.columns, kinds)],
        b"\xfe" + struct.pack("<HH", 0, status),
        *[b"".join(map(_value, row)) for row in found.rows],
        end,
    ]


#: Type and character set by the first value that is not None.
_KINDS: Tuple[Tuple[type, int, int], ...] = (
    (bool, FIELD_TYPE.LONGLONG, _BINARY),
    (int, FIELD_TYPE.LONGLONG, _BINARY),
    (float, FIELD_TYPE.DOUBLE, _BINARY),
    (Decimal, FIELD_TYPE.NEWDECIMAL, _BINARY),
    (str, FIELD_TYPE.VAR_STRING, _UTF8),
    (bytes, FIELD_TYPE.BLOB, _BINARY),
    (datetime.datetime, FIELD_TYPE.DATETIME, _BINARY),
    (datetime.date, FIELD_TYPE.DATE, _BINARY),
    (datetime.timedelta, FIELD_TYPE.TIME, _BINARY),
)


def _kind(values: Sequence[object]) -> Tuple[int, int]:
    for value in values:
        for cls, kind, charset in _KINDS:
            if isinstance(value, cls):
                return kind, charset
        if value is not None:
            raise TypeError(f"a value of an answer cannot be a {type(value).__name__}")
    return FIELD_TYPE.VAR_STRING, _UTF8


def _column(name: str, kind: Tuple[int, int]) -> bytes:
    words = [b"def", b"", b"", b"", name.encode(), name.encode()]
    code, charset = kind
    decimals = 31 if code in (FIELD_TYPE.DOUBLE, FIELD_TYPE.NEWDECIMAL) else 0
    definition = struct.pack("<BHIBHBxx", 12, charset, 255, code, 0, decimals)
    return b"".join(map(_text, words)) + definition


def _value(value: object) -> bytes:
    if value is None:
        return b"\xfb"
    if isinstance(value, bool):
        value = int(value)
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, datetime.timedelta):
        value = _duration(value)
    return _text(str(value).encode())


def _duration(value: datetime.timedelta) -> str:
    microseconds = value // datetime.timedelta(microseconds=1)
    seconds, rest = divmod(abs(microseconds), 1_000_000)
    text = f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}"
    return ("-" if microseconds < 0 else "") + text + (f".{rest:06}" if rest else "")


def _text(value: bytes) -> bytes:
    return _number(len(value)) + value


def _number(value: int) -> bytes:
    if value < 251:
        return bytes([value])
    if value < 1 << 16:
        return b"\xfc" + struct.pack("<H", value)
    if value < 1 << 24:
        return b"\xfd" + struct.pack("<I", value)[:3]
    return b"\xfe" + struct.pack("<Q", value)
