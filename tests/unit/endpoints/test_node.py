"""What a server's answers say of its engine and its role."""

from types import SimpleNamespace
from typing import Any, List, Optional

import pymysql.err
import pytest

from dualdb.endpoints import node
from dualdb.endpoints.node import Role, questions, read_node
from dualdb.endpoints.profiles import PROFILES

MARIADB, MYSQL = PROFILES["mariadb"], PROFILES["mysql"]
UUID = "d20c3a4a-0b5c-11ef-9d1a-0242ac120002"


def rows(*found: Any) -> Any:
    return SimpleNamespace(rows=tuple(found))


def refused(code: int) -> Exception:
    return pymysql.err.OperationalError(code, "no", sqlstate="HY000")


def galera(**changed: str) -> str:
    state = {
        "WSREP_CLUSTER_STATUS": "Primary",
        "WSREP_LOCAL_STATE": "4",
        "WSREP_PROVIDER_NAME": "Galera",
        "WSREP_READY": "ON",
        **changed,
    }
    return ",".join([f"{name}={value}" for name, value in state.items()])


#: What a MariaDB without Galera says.
ALONE = "WSREP_CLUSTER_STATUS=Disconnected,WSREP_PROVIDER_NAME=,WSREP_READY=OFF"


@pytest.mark.parametrize(
    ("answer", "engine", "role", "why"),
    [
        ((0, ALONE), "mariadb", Role.PRIMARY, ""),
        ((1, ALONE), "mariadb", Role.REPLICA, "it is read-only"),
        ((0, None), "mariadb", Role.PRIMARY, ""),
        ((0, galera()), "galera", Role.PRIMARY, ""),
        ((0, galera(WSREP_LOCAL_STATE="2")), "galera", Role.PRIMARY, ""),
        ((1, galera()), "galera", Role.REPLICA, "it is read-only"),
        (
            (0, galera(WSREP_LOCAL_STATE="1")),
            "galera",
            Role.OUT,
            "it is not in sync with its cluster (state 1)",
        ),
        (
            (0, galera(WSREP_READY="OFF")),
            "galera",
            Role.OUT,
            "it is not in sync with its cluster (state 4)",
        ),
        (
            (0, galera(WSREP_CLUSTER_STATUS="non-Primary", WSREP_READY="OFF")),
            "galera",
            Role.OUT,
            "its part of the cluster is non-Primary",
        ),
    ],
)
def test_mariadb(answer: Any, engine: str, role: Role, why: str) -> None:
    assert read_node(MARIADB, "auto", [rows(answer)]) == node.Node(PROFILES[engine], role, why)


def mysql(read_only: int = 0, super_read_only: int = 0) -> Any:
    return rows((read_only, super_read_only, UUID))


NO_PLUGIN, NO_GRANT = refused(1193), refused(1142)


@pytest.mark.parametrize(
    ("answers", "engine", "role", "why"),
    [
        ([mysql(), NO_PLUGIN], "mysql", Role.PRIMARY, ""),
        ([mysql(1), NO_PLUGIN], "mysql", Role.REPLICA, "it is read-only"),
        ([mysql(1, 1), NO_PLUGIN], "mysql", Role.REPLICA, "it is read-only"),
        ([mysql(), rows(("", None))], "mysql", Role.PRIMARY, ""),
        ([mysql(), rows(("g", "ONLINE/PRIMARY"))], "group_replication", Role.PRIMARY, ""),
        (
            # it has been elected, and is still applying what it had received
            [mysql(1, 1), rows(("g", "ONLINE/PRIMARY"))],
            "group_replication",
            Role.REPLICA,
            "it is read-only",
        ),
        (
            [mysql(1, 1), rows(("g", "ONLINE/SECONDARY"))],
            "group_replication",
            Role.REPLICA,
            "it is a secondary of its group",
        ),
        (
            [mysql(), rows(("g", "OFFLINE/"))],
            "group_replication",
            Role.OUT,
            "it is not in its group (OFFLINE/)",
        ),
        (
            [mysql(1, 1), rows(("g", "ERROR/SECONDARY"))],
            "group_replication",
            Role.OUT,
            "it is not in its group (ERROR/SECONDARY)",
        ),
        (
            [mysql(), rows(("g", None))],
            "group_replication",
            Role.OUT,
            "it is not in its group (no member)",
        ),
        (
            [mysql(), NO_GRANT, rows(("Gr_control_messages_sent_count", "0"))],
            "group_replication",
            Role.OUT,
            "it has not joined its group",
        ),
        (
            [mysql(), NO_GRANT, rows(("Gr_control_messages_sent_count", "391"))],
            "group_replication",
            Role.PRIMARY,
            f"its role in its group cannot be read: {node.GRANT}",
        ),
        (
            [mysql(1, 1), NO_GRANT, rows(("Gr_control_messages_sent_count", "391"))],
            "group_replication",
            Role.REPLICA,
            "it is read-only",
        ),
    ],
)
def test_mysql(answers: List[Any], engine: str, role: Role, why: str) -> None:
    assert read_node(MYSQL, "auto", answers) == node.Node(PROFILES[engine], role, why, UUID)


@pytest.mark.parametrize(
    ("answers", "role"),
    [
        ([], Role.UNKNOWN),
        ([refused(1193)], Role.UNKNOWN),
        ([refused(1047)], Role.OUT),
        ([refused(3032), NO_PLUGIN], Role.OUT),
        ([rows()], Role.UNKNOWN),
        ([rows(("x", "y"))], Role.UNKNOWN),
        ([rows((0,))], Role.UNKNOWN),
        ([rows((0, 0, UUID)), rows()], Role.UNKNOWN),
    ],
)
def test_what_is_no_answer_decides_nothing(answers: List[Any], role: Role) -> None:
    assert read_node(MARIADB, "auto", answers).role is role


def test_an_engine_that_is_set_is_kept() -> None:
    found = read_node(PROFILES["spider"], "spider", [rows((0, ALONE))])
    assert (found.profile.name, found.role) == ("spider", Role.PRIMARY)


@pytest.mark.parametrize(
    ("engine", "greeted", "several", "count"),
    [
        ("auto", "mariadb", True, 1),
        ("auto", "mysql", False, 2),
        ("auto", "mysql", True, 3),
        ("galera", "mariadb", True, 1),
        ("group_replication", "mysql", True, 3),
        ("auto", "tidb", True, 0),
        ("auto", "vitess", True, 0),
        ("proxysql", "mysql", True, 0),
    ],
)
def test_what_is_asked(engine: Any, greeted: Any, several: bool, count: Optional[int]) -> None:
    assert len(questions(engine, greeted, several=several)) == count
