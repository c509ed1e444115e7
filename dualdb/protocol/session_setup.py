"""Session set-up, when a connection is opened and after each reset.

It sets everything this package relies on, and takes nothing from the server's greeting.
"""

import secrets
from typing import Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from pymysql.constants import COMMAND

from ..config import DatabaseConfig
from ..endpoints.gtid import GtidKind
from ..endpoints.node import Node

_COM_RESET_CONNECTION = 31
#: SERVER_SESSION_STATE_CHANGED: the statement changed tracked session state.
STATE_CHANGED = 0x4000
#: Types of session state information in an OK packet (SESSION_TRACK_*).
_TRACK_VARIABLE = 0
_TRACK_STATE_CHANGE = 2
_TRACK_GTIDS = 3
#: MariaDB's variable with the id of the session's last transaction.
_LAST_GTID = "last_gtid"
#: The longest length in one byte, and how many bytes a longer one has, by the first.
_SHORT = 250
_LONGER = {252: 2, 253: 3, 254: 8}
#: The variables that determine the encoding of statements and results.
CHARSET_VARIABLES = (
    "character_set_client",
    "character_set_connection",
    "character_set_results",
)
#: Sent in the round trip of the set-up: whether new sessions run ``init_connect``,
#: which a reset does not; the session's roles, which a reset keeps; its character sets,
#: whose changes are tracked; and which server it is, of those behind one address.
PROBE = (
    "SELECT @@init_connect, CURRENT_ROLE(), "
    + ", ".join([f"@@{name}" for name in CHARSET_VARIABLES])
    + ", CONCAT(@@hostname, ':', @@port)"
).encode("ascii")
#: Clears the diagnostics area, which MariaDB keeps after statements without a table.
CLEAR_DIAGNOSTICS = b"DO (SELECT 1 FROM (SELECT 1) AS d)"


class SessionChange(NamedTuple):
    """The session changes that an OK packet reports.

    Attributes:
        dirty: The session needs a reset before it is reused.
        charsets: New values of ``CHARSET_VARIABLES``, by name.
        gtid: The kind and the ids of the transactions that it has committed; None if
            none is reported.
    """

    dirty: bool
    charsets: Mapping[str, str]
    gtid: Optional[Tuple[GtidKind, str]] = None


def session_change(info: bytes) -> SessionChange:
    """Parse the session state information of an OK packet.

    Args:
        info: The payload after the status flags and warnings. If it cannot be parsed,
            the session counts as dirty.

    Returns:
        The changes.
    """
    try:
        return _session_change(info)
    except (LookupError, ValueError):
        return SessionChange(True, {})


def _session_change(info: bytes) -> SessionChange:
    dirty = False
    charsets: Dict[str, str] = {}
    gtid: Optional[Tuple[GtidKind, str]] = None
    _, at = _lengthed(info, 0)
    tracked, _ = _lengthed(info, at)
    at = 0
    while at < len(tracked):
        kind = tracked[at]
        data, at = _lengthed(tracked, at + 1)
        if kind == _TRACK_STATE_CHANGE:
            dirty = True
        elif kind == _TRACK_VARIABLE:
            changed = _variables(data)
            last = changed.pop(_LAST_GTID, "")
            gtid = ("mariadb_gtid", last) if last else gtid
            charsets.update(changed)
        elif kind == _TRACK_GTIDS and data:
            gtid = "gtid", _lengthed(data, 1)[0].decode("latin1")
    return SessionChange(dirty, charsets, gtid)


def _lengthed(data: bytes, at: int) -> Tuple[bytes, int]:
    """Return the string at a position, which begins with its length, and the position
    after it.

    Raises:
        ValueError: It is not there as a whole.
    """
    length = data[at]
    at += 1
    if length > _SHORT:  # the number of bytes that follow, little-endian
        size = _LONGER[length]
        length = int.from_bytes(data[at : at + size], "little")
        at += size
    if at + length > len(data):
        raise ValueError
    return data[at : at + length], at + length


def _variables(data: bytes) -> Dict[str, str]:
    """Return the variables that matter in a report of changed variables."""
    found: Dict[str, str] = {}
    at = 0
    while at < len(data):
        name, at = _lengthed(data, at)
        value, at = _lengthed(data, at)
        text = name.decode("latin1")
        if text in CHARSET_VARIABLES or text == _LAST_GTID:
            found[text] = value.decode("latin1")
    return found


class SessionFacts(NamedTuple):
    """Facts about a session, determined at its set-up.

    Attributes:
        lock: The name of the user-level lock that it holds, which identifies it for
            KILL; None on a server without such locks.
        charsets: The values of ``CHARSET_VARIABLES``, as far as known.
        roles: ``CURRENT_ROLE()``; None if unknown.
        runs_init_connect: The server runs ``init_connect`` in new sessions.
        max_packet: The server's limit on one packet, in bytes; None until it is asked
            for.
        node: What the server reported about itself when the connection was opened.
        server: Its server's own name and port; None if unknown.
    """

    lock: Optional[str] = None
    charsets: Mapping[str, str] = {}
    roles: Optional[str] = None
    runs_init_connect: bool = False
    max_packet: Optional[int] = None
    node: Optional[Node] = None
    server: Optional[str] = None

    def changes_charset(self, charsets: Mapping[str, str]) -> bool:
        """Return whether these values differ from those after the set-up."""
        return any(self.charsets.get(name, value) != value for name, value in charsets.items())


def new_lock_name() -> str:
    """Return a unique name for a session's lock."""
    return f"dd{secrets.token_hex(12)}"


def set_names(config: DatabaseConfig) -> str:
    """The statement that says which character set a session reads and writes."""
    return f"SET NAMES {config.charset}"


def setup_statement(
    config: DatabaseConfig,
    *,
    mariadb: bool,
    tracks: bool,
    lock: Optional[str],
    plain: bool = False,
) -> str:
    """Return the statement that sets up a session.

    Args:
        config: The character set and the other settings of the session.
        mariadb: The server is MariaDB, where the variable for the isolation level has
            another name.
        tracks: The server supports session tracking.
        lock: A name of ``new_lock_name``; None on a server without such locks.
        plain: Set what the configuration says and nothing else; see ``EngineProfile``.
    """
    # Without SET NAMES the collation is the handshake's, which is not the server's
    # default in MySQL 8 and later.
    words = [set_names(config), "autocommit=1"]
    if not plain:
        words.append("completion_type=0")
    if tracks and not plain:
        words.append("session_track_state_change=1")
        tracked = [*CHARSET_VARIABLES, _LAST_GTID] if mariadb else CHARSET_VARIABLES
        words.append(f"session_track_system_variables='{','.join(tracked)}'")
        if not mariadb:
            words.append("session_track_gtids='OWN_GTID'")
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


def setup_commands(
    config: DatabaseConfig, statement: str, questions: Sequence[str] = ()
) -> List[Tuple[int, bytes]]:
    """Return the commands of the set-up; the last are ``PROBE`` and the questions.

    ``init_command`` comes first, so that it cannot override what is relied on.

    Args:
        config: The configuration.
        statement: Of ``setup_statement``.
        questions: Ask a new session's server of itself; see ``endpoints.node``.
    """
    texts = [statement.encode("ascii"), PROBE]
    texts += [question.encode("ascii") for question in questions]
    if config.init_command is not None:
        texts.insert(0, config.init_command.encode("utf-8"))
    return [(COMMAND.COM_QUERY, text) for text in texts]


def reset_commands(
    config: DatabaseConfig, statement: str, encoding: str
) -> List[Tuple[int, bytes]]:
    """Return the commands that restore a session to its state after the set-up.

    COM_RESET_CONNECTION keeps the current database and the roles.
    """
    return [
        (_COM_RESET_CONNECTION, b""),
        (COMMAND.COM_INIT_DB, config.database.encode(encoding)),
        *setup_commands(config, statement),
    ]
