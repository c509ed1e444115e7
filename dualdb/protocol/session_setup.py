"""What a session is given when it is opened, and again when it is reset: everything
that is relied on, and nothing that is taken from the server's greeting.
"""

import secrets
import struct
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from pymysql.constants import COMMAND
from pymysql.protocol import MysqlPacket

from ..config import DatabaseConfig

_COM_RESET_CONNECTION = 31
#: In the status flags: the statement has changed what is tracked.
STATE_CHANGED = 0x4000
#: What an OK packet reports: a system variable, or that anything else has changed.
_TRACK_VARIABLE = 0
_TRACK_STATE_CHANGE = 2
#: The variables that decide how bytes become text, in both directions.
CHARSET_VARIABLES = (
    "character_set_client",
    "character_set_connection",
    "character_set_results",
)
#: Asked in the round trip of the set-up: whether a new session runs ``init_connect``,
#: which a reset does not; the session's roles, which a reset leaves as they are; and
#: its character sets, whose changes are reported.
PROBE = (
    "SELECT @@init_connect, CURRENT_ROLE(), "
    + ", ".join([f"@@{name}" for name in CHARSET_VARIABLES])
).encode("ascii")
#: Empties the diagnostics area: MariaDB keeps it over statements without a table.
CLEAR_DIAGNOSTICS = b"DO (SELECT 1 FROM (SELECT 1) AS d)"


class SessionChange(NamedTuple):
    """What an OK packet says about the session.

    Attributes:
        dirty: Something was changed that the next borrower must not find.
        charsets: New values of ``CHARSET_VARIABLES``, by name.
    """

    dirty: bool
    charsets: Mapping[str, str]


def session_change(info: bytes) -> SessionChange:
    """Read what follows the flags in an OK packet.

    Args:
        info: A text, then a list of (kind, data). What cannot be read may say anything.
    """
    try:
        return _session_change(info)
    except (AssertionError, IndexError, TypeError, ValueError, struct.error):
        return SessionChange(True, {})


def _session_change(info: bytes) -> SessionChange:
    dirty = False
    charsets: Dict[str, str] = {}
    packet: Any = MysqlPacket(info, "latin1")
    packet.read_length_coded_string()
    tracked = packet.read_length_coded_string()
    while tracked:
        kind = tracked[0]
        packet = MysqlPacket(tracked[1:], "latin1")
        data = packet.read_length_coded_string()
        tracked = packet.read_all()
        if kind == _TRACK_STATE_CHANGE:
            dirty = True
        elif kind == _TRACK_VARIABLE:
            charsets.update(_charset_variables(data))
    return SessionChange(dirty, charsets)


def _charset_variables(data: Optional[bytes]) -> Dict[str, str]:
    """Those among the names and values of one report."""
    found: Dict[str, str] = {}
    while data:
        packet: Any = MysqlPacket(data, "latin1")
        name = (packet.read_length_coded_string() or b"").decode("latin1")
        value = (packet.read_length_coded_string() or b"").decode("latin1")
        data = packet.read_all()
        if name in CHARSET_VARIABLES:
            found[name] = value
    return found


class SessionFacts(NamedTuple):
    """What is known of a session since it was opened.

    Attributes:
        lock: The name of the user-level lock that it holds, by which a KILL finds it
            and nothing else; None on a server that has none.
        charsets: The values of ``CHARSET_VARIABLES``, as far as they are known.
        roles: ``CURRENT_ROLE()``, None where that is not known.
        runs_init_connect: The server runs ``init_connect`` in new sessions.
    """

    lock: Optional[str] = None
    charsets: Mapping[str, str] = {}
    roles: Optional[str] = None
    runs_init_connect: bool = False

    def changes_charset(self, charsets: Mapping[str, str]) -> bool:
        """Whether these are other values than after the set-up."""
        return any(self.charsets.get(name, value) != value for name, value in charsets.items())


def new_lock_name() -> str:
    """The name of a lock that nobody else takes."""
    return f"dd{secrets.token_hex(12)}"


def setup_statement(
    config: DatabaseConfig, *, mariadb: bool, tracks: bool, lock: Optional[str]
) -> str:
    """The one statement that says how a session is.

    Args:
        config: The character set, and what the user wants beside it.
        mariadb: The server is MariaDB, whose variable for the isolation has another
            name.
        tracks: The server reports changes of the session.
        lock: A name of ``new_lock_name``; None on a server without such locks.
    """
    # Without SET NAMES the collation is the handshake's, which is not the server's
    # default in MySQL 8 and later.
    words = [f"SET NAMES {config.charset}", "autocommit=1", "completion_type=0"]
    if tracks:
        words.append("session_track_state_change=1")
        words.append(f"session_track_system_variables='{','.join(CHARSET_VARIABLES)}'")
    if config.time_zone is not None:
        words.append(f"time_zone='{config.time_zone}'")
    if config.sql_mode is not None:
        words.append(f"sql_mode='{config.sql_mode}'")
    if config.isolation is not None:
        name = "tx_isolation" if mariadb else "transaction_isolation"
        words.append(f"{name}='{config.isolation.replace(' ', '-')}'")
    if lock is not None:
        words.append(f"@dualdb_session=GET_LOCK('{lock}',0)")
    return ", ".join(words)


def packets(commands: Sequence[Tuple[int, bytes]]) -> bytes:
    """Several commands, to be sent at once.

    Args:
        commands: The numbers of the commands, with their arguments.
    """
    parts: List[bytes] = []
    for number, argument in commands:
        parts.append(struct.pack("<IB", len(argument) + 1, number) + argument)
    return b"".join(parts)


def setup_commands(config: DatabaseConfig, statement: str) -> List[Tuple[int, bytes]]:
    """The commands of the set-up; the last is ``PROBE``.

    The user's own comes first: what is relied on is said after it.
    """
    texts = [statement.encode("ascii"), PROBE]
    if config.init_command is not None:
        texts.insert(0, config.init_command.encode("utf-8"))
    return [(COMMAND.COM_QUERY, text) for text in texts]


def reset_commands(
    config: DatabaseConfig, statement: str, encoding: str
) -> List[Tuple[int, bytes]]:
    """The commands that make a session as ``setup_commands`` left it.

    COM_RESET_CONNECTION leaves the database and the roles as they are.
    """
    return [
        (_COM_RESET_CONNECTION, b""),
        (COMMAND.COM_INIT_DB, config.database.encode(encoding)),
        *setup_commands(config, statement),
    ]
