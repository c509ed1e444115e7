"""What a server says of itself: its engine, its role, and whether it is in service.

It is asked in the round trip of the session's set-up. An ordinary account may ask all
of it, except for the state of a member of Group Replication, which needs
``GRANT SELECT ON performance_schema.replication_group_members``.
"""

import enum
from typing import Any, Dict, List, NamedTuple, Optional, Protocol, Sequence, Tuple

from .. import error_codes, errors
from ..config import Engine
from .profiles import PROFILES, EngineProfile


class Role(enum.Enum):
    """What a server may be used for.

    Attributes:
        PRIMARY: Reads and writes.
        REPLICA: Reads.
        OUT: Nothing: it has left its cluster, or is joining it.
        UNKNOWN: It cannot be asked, or has not been.
    """

    PRIMARY = "primary"
    REPLICA = "replica"
    OUT = "out of service"
    UNKNOWN = "unknown"


class Answer(Protocol):
    """The result of a question."""

    @property
    def rows(self) -> Sequence[Sequence[Any]]:
        """Its rows, as tuples."""
        ...


class Node(NamedTuple):
    """What a server reported about itself when a connection was opened.

    Attributes:
        profile: What its engine can do.
        role: Its role.
        why: Why it is not a primary; a warning for one that is.
        uuid: MySQL's ``@@server_uuid``; empty elsewhere.
    """

    profile: EngineProfile
    role: Role = Role.UNKNOWN
    why: str = ""
    uuid: str = ""


#: Asks a MariaDB. The state of a Galera node is readable in every state of it.
ASK_MARIADB = (
    "SELECT @@global.read_only, (SELECT GROUP_CONCAT(variable_name, '=', variable_value) "
    "FROM information_schema.global_status WHERE variable_name IN ('wsrep_provider_name', "
    "'wsrep_ready', 'wsrep_local_state', 'wsrep_cluster_status'))"
)
#: Ask a MySQL. The second is refused where the plugin is not loaded (1193), and where
#: the account may not read the table (1142).
ASK_MYSQL = "SELECT @@global.read_only, @@global.super_read_only, @@server_uuid"
ASK_MEMBER = (
    "SELECT @@group_replication_group_name, (SELECT CONCAT(member_state, '/', member_role) "
    "FROM performance_schema.replication_group_members WHERE member_id = @@server_uuid)"
)
#: A hint for an account that may not read that table: 0 in a server that has not been
#: in a group since its start.
ASK_MESSAGES = "SHOW GLOBAL STATUS LIKE 'Gr_control_messages_sent_count'"

GRANT = "GRANT SELECT ON performance_schema.replication_group_members TO the account"

#: Values of wsrep_local_state: of a node that donates its data, and of one in sync.
_DONOR, _SYNCED = "2", "4"


def questions(engine: Engine, version_engine: Engine, *, several: bool) -> Tuple[str, ...]:
    """Return the statements that ask a server of itself.

    Args:
        engine: Of the configuration.
        version_engine: That of the server's greeting.
        several: It is one of several hosts.
    """
    asked = version_engine if engine == "auto" else engine
    if PROFILES[asked].plain_sessions:
        return ()
    if version_engine == "mariadb":
        return (ASK_MARIADB,)
    return (ASK_MYSQL, ASK_MEMBER, ASK_MESSAGES) if several else (ASK_MYSQL, ASK_MEMBER)


def read_node(profile: EngineProfile, engine: Engine, answers: Sequence[Any]) -> Node:
    """Read the answers to ``questions``.

    Args:
        profile: That of the server's greeting, or of the configuration.
        engine: Of the configuration: another than "auto" is not found out.
        answers: For each question its result, with rows as tuples, or the server's
            error.
    """
    if not answers:
        return Node(profile)
    if isinstance(answers[0], BaseException):
        code = errors.code_of(answers[0])
        if code in error_codes.NOT_IN_SERVICE:
            return Node(profile, Role.OUT, f"it is not in service ({code})")
        return Node(profile)
    try:
        node = _mariadb(profile, answers[0]) if len(answers) == 1 else _mysql(profile, answers)
    except (LookupError, TypeError, ValueError):  # it is no answer to the question
        return Node(profile)
    return node if engine == "auto" else node._replace(profile=profile)


def _mariadb(profile: EngineProfile, answer: Answer) -> Node:
    read_only, text = answer.rows[0]
    status = _pairs(str(text or ""))
    if status.get("wsrep_provider_name"):
        profile = PROFILES["galera"]
        missing = _missing_of_galera(status)
        if missing:
            return Node(profile, Role.OUT, missing)
    if int(read_only):
        return Node(profile, Role.REPLICA, "it is read-only")
    return Node(profile, Role.PRIMARY)


def _missing_of_galera(status: Dict[str, str]) -> str:
    """Return why a Galera node is out of service; empty if it is not."""
    if status.get("wsrep_cluster_status") != "Primary":
        return f"its part of the cluster is {status.get('wsrep_cluster_status', 'unknown')}"
    state = status.get("wsrep_local_state")
    if status.get("wsrep_ready") != "ON" or state not in (_DONOR, _SYNCED):
        return f"it is not in sync with its cluster (state {state})"
    return ""


def _mysql(profile: EngineProfile, answers: Sequence[Any]) -> Node:
    read_only, super_read_only, uuid = answers[0].rows[0]
    node = Node(profile, Role.PRIMARY, uuid=str(uuid))
    member = answers[1]
    if isinstance(member, BaseException):
        if errors.code_of(member) in error_codes.TABLE_DENIED:
            node = _unseen_member(node, answers[2:])
    else:
        group, state = member.rows[0]
        if group:
            node = _member(node, state)
    if node.role is Role.PRIMARY and (int(read_only) or int(super_read_only)):
        return node._replace(role=Role.REPLICA, why="it is read-only")
    return node


def _member(node: Node, state: Optional[str]) -> Node:
    """Return what the member's own row means: "ONLINE/PRIMARY", or None without one."""
    node = node._replace(profile=PROFILES["group_replication"])
    if state == "ONLINE/PRIMARY":
        return node
    if state == "ONLINE/SECONDARY":
        return node._replace(role=Role.REPLICA, why="it is a secondary of its group")
    return node._replace(role=Role.OUT, why=f"it is not in its group ({state or 'no member'})")


def _unseen_member(node: Node, messages: Sequence[Any]) -> Node:
    """Return what is known of a member whose own row cannot be read.

    One that is up and outside its group may accept writes, which are on no other.
    """
    node = node._replace(profile=PROFILES["group_replication"])
    for answer in messages:
        sent: List[Any] = [] if isinstance(answer, BaseException) else list(answer.rows)
        if sent and str(sent[0][1]) == "0":
            return node._replace(role=Role.OUT, why="it has not joined its group")
    return node._replace(why=f"its role in its group cannot be read: {GRANT}")


def _pairs(text: str) -> Dict[str, str]:
    """Return ``A=1,B=2`` as a dict, with names in lower case."""
    found: Dict[str, str] = {}
    for part in text.split(","):
        name, _, value = part.partition("=")
        found[name.strip().lower()] = value.strip()
    return found
