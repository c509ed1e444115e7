"""Doubles of servers that cannot be started here: they speak the protocol, record what
they are sent, and refuse what the manuals of their engines say that they refuse.
"""

import contextlib
import re
import socket
import struct
import threading
from typing import Dict, List, NamedTuple, Optional, Pattern, Tuple

from packets import packets, table
from pymysql.constants import CLIENT

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
_AUTOCOMMIT, _IN_TRANSACTION = 2, 1


class Refusal(NamedTuple):
    """Statements that an engine refuses.

    Attributes:
        pattern: What they begin with, or contain.
        code: The error's code.
        message: Its text.
    """

    pattern: Pattern[str]
    code: int
    message: str


def _refused(pattern: str, code: int, message: str) -> Refusal:
    return Refusal(re.compile(pattern, re.IGNORECASE), code, message)


class Manual(NamedTuple):
    """What an engine's manual says.

    Attributes:
        version: In the greeting.
        refusals: What is refused.
        answers: Rows by a pattern of the statement.
    """

    version: str
    refusals: Tuple[Refusal, ...]
    answers: Tuple[Tuple[Pattern[str], Tuple[List[str], List[List[bytes]]]], ...] = ()


_ONE = re.compile(r"^SELECT (1|GET_LOCK|RELEASE_LOCK|IS_USED_LOCK)", re.IGNORECASE)

#: TiDB: "MySQL Compatibility" (no stored procedures, no XA, no session tracker), "KILL"
#: (a number alone), "System Variables".
TIDB = Manual(
    "8.0.11-TiDB-v7.5.0",
    (
        _refused(r"^CALL\b", 8108, "Unsupported type *ast.CallStmt"),
        _refused(r"^XA\b", 1064, "You have an error in your SQL syntax near 'XA'"),
        _refused(r"^KILL\b(?! *(TIDB )?(QUERY |CONNECTION )?\d+$)", 1064, "syntax error near KILL"),
        _refused(r"completion_type", 1193, "Unknown system variable 'completion_type'"),
        _refused(r"session_track_\w+", 1193, "Unknown system variable 'session_track_...'"),
        _refused(r"@@init_connect, CURRENT_ROLE", 1193, "Unknown system variable"),
    ),
    ((_ONE, (["answer"], [[b"1"]])),),
)

#: Vitess: "MySQL Compatibility" (user-level locks by a reserved connection alone, no
#: XA, no OUT parameters, no variables that it does not know).
VITESS = Manual(
    "8.0.30-Vitess",
    (
        _refused(r"^XA\b", 1235, "VT12001: unsupported: XA"),
        _refused(r"\bGET_LOCK\(.*FROM\b", 1235, "VT12001: unsupported: lock function with a table"),
        _refused(r"^SET .*GET_LOCK", 1235, "VT12001: unsupported: expression in SET"),
        _refused(r"^KILL\b(?! *(QUERY |CONNECTION )?\d+$)", 1064, "syntax error near KILL"),
        _refused(r"^CALL \w+\(.*@", 1235, "VT12001: unsupported: OUT parameters"),
        _refused(r"completion_type", 1235, "VT12001: unsupported: SET completion_type"),
        _refused(r"session_track_\w+", 1235, "VT12001: unsupported: SET session_track"),
        _refused(r"@@init_connect, CURRENT_ROLE", 1235, "VT12001: unsupported: CURRENT_ROLE"),
    ),
    ((_ONE, (["answer"], [[b"1"]])),),
)


class Double:
    """A server that listens on loopback; ``sent`` has every statement.

    Args:
        manual: The engine's.

    Attributes:
        sent: Every statement that came.
        errors: By statement, the codes of errors that it is answered with, each once.
        hangs: Statements that are not answered.
        closed_by_peer: Sessions whose client closed them without COM_QUIT.
    """

    def __init__(self, manual: Manual) -> None:
        self.manual = manual
        self.sent: List[str] = []
        self.errors: Dict[str, List[int]] = {}
        self.hangs: List[str] = []
        self.closed_by_peer = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> "Double":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(link,), daemon=True).start()

    def _serve(self, link: socket.socket) -> None:
        try:
            with contextlib.suppress(OSError), link:
                self._converse(link)
        except EOFError:
            self.closed_by_peer += 1

    def _converse(self, link: socket.socket) -> None:
        link.sendall(packets([self._greeting()], 0))
        _read_packet(link)
        link.sendall(packets([_ok(_AUTOCOMMIT)], 2))
        status = _AUTOCOMMIT
        while True:
            command = _read_packet(link)
            if command[:1] == b"\x01":  # COM_QUIT
                return
            text = command[1:].decode("utf-8", "replace")
            if command[:1] == b"\x03":  # COM_QUERY
                self.sent.append(text)
            if re.match(r"BEGIN|START TRANSACTION", text, re.IGNORECASE):
                status |= _IN_TRANSACTION
            elif re.match(r"COMMIT|ROLLBACK$", text, re.IGNORECASE):
                status &= ~_IN_TRANSACTION
            if text not in self.hangs:
                link.sendall(packets(self._answer(text, status)))

    def _answer(self, text: str, status: int) -> List[bytes]:
        scripted = self.errors.get(text)
        if scripted:
            return [_error(scripted.pop(0), "scripted")]
        for refusal in self.manual.refusals:
            if refusal.pattern.search(text):
                return [_error(refusal.code, refusal.message)]
        for pattern, (names, rows) in self.manual.answers:
            if pattern.search(text):
                end = b"\xfe\x00\x00" + struct.pack("<H", status)
                return table(names, rows, end)
        return [_ok(status)]

    def _greeting(self) -> bytes:
        return (
            b"\x0a" + self.manual.version.encode() + b"\x00" + struct.pack("<I", 7)
            + b"saltsalt\x00" + struct.pack("<H", _CAPABILITIES & 0xFFFF) + b"\x21"
            + struct.pack("<HH", _AUTOCOMMIT, _CAPABILITIES >> 16) + b"\x15" + b"\x00" * 10
            + b"saltsaltsalt\x00" + b"mysql_native_password\x00"
        )  # fmt: skip


def _ok(status: int) -> bytes:
    return b"\x00\x01\x00" + struct.pack("<HH", status, 0)


def _error(code: int, message: str) -> bytes:
    return b"\xff" + struct.pack("<H", code) + b"#HY000" + message.encode()


def _read_packet(link: socket.socket) -> bytes:
    header = _read(link, 4)
    return _read(link, int.from_bytes(header[:3], "little"))


def _read(link: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece: Optional[bytes] = link.recv(count - len(data))
        if not piece:
            raise EOFError
        data += piece
    return data
