"""The doctor's checks, on facts: each of them finds what it is for, and nothing on
sound servers.
"""

import pathlib
from typing import Any, Callable, Dict, List, Tuple

import pytest

from dualdb import DatabaseConfig
from dualdb.coordination.xid import FORMAT_ID
from dualdb.operations import Misplaced, Severity, doctor
from dualdb.operations.facts import (
    DatabaseFacts,
    Facts,
    NotAsked,
    PreparedXa,
    XaOwner,
    sort_prepared,
)

VARIABLES = {
    "sql_mode": "STRICT_TRANS_TABLES,NO_ENGINE_SUBSTITUTION",
    "time_zone": "+00:00",
    "system_time_zone": "UTC",
    "wait_timeout": "28800",
    "max_connections": "200",
    "lower_case_table_names": "0",
    "transaction_isolation": "REPEATABLE-READ",
    "autocommit": "ON",
    "init_connect": "",
    "completion_type": "NO_CHAIN",
    "max_allowed_packet": "67108864",
    "innodb_rollback_on_timeout": "OFF",
    "read_only": "OFF",
    "innodb_flush_log_at_trx_commit": "1",
    "log_bin": "ON",
    "sync_binlog": "1",
    "binlog_format": "ROW",
    "gtid_strict_mode": "ON",
    "gtid_mode": "ON",
    "local_infile": "OFF",
}
CONFIG = DatabaseConfig(host="db.internal", database="app", user="app", password="x",
                        ssl_mode="verify_identity")  # fmt: skip
GRANTS = (
    "GRANT USAGE ON *.* TO `app`@`%`",
    "GRANT SELECT, INSERT, UPDATE, DELETE, EXECUTE ON `app`.* TO `app`@`%`",
)


def database(name: str, **changes: Any) -> DatabaseFacts:
    variables = {**VARIABLES, **changes.pop("variables", {})}
    sound = DatabaseFacts(
        name,
        "active",
        CONFIG,
        "10.11.6-MariaDB-log",
        variables,
        f"server-{name}/app",
        "utf8mb4",
        "utf8mb4_general_ci",
        "TLS_AES_256_GCM_SHA384",
        grants=GRANTS,
    )
    return sound._replace(**changes)


def facts(**second: Any) -> Facts:
    more = {key: second.pop(key) for key in ("processes", "misplaced", "unreachable", "homeless")
            if key in second}  # fmt: skip
    return Facts(
        (database("global"), database("1"), database("2", **second)),
        privileges=doctor.PRIVILEGES,
        **more,
    )


def found(given: Facts) -> Dict[str, List[str]]:
    names: Dict[str, List[str]] = {}
    for each in doctor.report_of(given).findings:
        names.setdefault(each.check, []).append(each.database)
        assert each.message
        assert each.fix
    return names


def test_sound_servers_have_nothing() -> None:
    report = doctor.report_of(facts())
    assert report.findings == ()
    assert report.ok
    assert list(report.databases) == ["global", "1", "2"]
    assert len(report.checks) >= 30


def variable(name: str, value: str) -> Callable[[], Facts]:
    return lambda: facts(variables={name: value})


def config(**changes: Any) -> Callable[[], Facts]:
    return lambda: facts(config=CONFIG.model_copy(update=changes))


MISCONFIGURED: List[Tuple[str, Callable[[], Facts], List[str]]] = [
    ("reachable", lambda: facts(unreachable=(NotAsked("3", "no"),)), ["3"]),
    ("unusable-row", lambda: facts(unreachable=(NotAsked("3", "no", by_its_row=True),)), ["3"]),
    ("same-database", lambda: facts(identity="server-1/app"), ["2"]),
    ("version-parity", lambda: facts(version="11.4.2-MariaDB"), ["all"]),
    ("version-parity", lambda: facts(version="9.7.4"), ["all"]),
    ("version-age", lambda: facts(version="10.3.1-MariaDB"), ["2"]),
    ("version-age", lambda: facts(version="5.7.44-log"), ["2"]),
    ("charset", lambda: facts(charset="latin1"), ["2"]),
    ("collation-parity", lambda: facts(collation="utf8mb4_bin"), ["all"]),
    ("connection-charset", config(charset="latin1"), ["2"]),
    ("sql_mode-strict", variable("sql_mode", "NO_ENGINE_SUBSTITUTION"), ["2"]),
    ("sql_mode-parity", variable("sql_mode", "STRICT_TRANS_TABLES"), ["all"]),
    ("time_zone-parity", variable("time_zone", "SYSTEM"), ["all"]),
    ("clock-skew", lambda: facts(clock_offset=3.5), ["all"]),
    ("case-parity", variable("lower_case_table_names", "1"), ["all"]),
    ("isolation-parity", variable("transaction_isolation", "READ-COMMITTED"), ["all"]),
    ("wait_timeout", variable("wait_timeout", "300"), ["2"]),
    ("wait_timeout", config(max_idle=None, max_lifetime=None), ["2"]),
    ("connection-budget", lambda: facts(processes=7), ["global", "1", "2"]),
    ("connection-budget", variable("max_connections", "20"), ["2"]),
    ("connection-budget", config(max_overflow=200), ["2"]),
    ("connection-budget-small", config(max_connections_per_server=2), ["global, 1, 2"]),
    (
        "connection-budget-small",
        config(host="db2,DB.internal.:3306", max_connections_per_server=2),
        ["global, 1, 2"],
    ),
    ("keys-without-shard", lambda: facts(homeless=((7, 12),)), ["global"]),
    ("autocommit", variable("autocommit", "OFF"), ["2"]),
    ("init_connect", variable("init_connect", "SET NAMES latin1"), ["2"]),
    ("completion_type", variable("completion_type", "CHAIN"), ["2"]),
    ("max_allowed_packet", variable("max_allowed_packet", "1048576"), ["2"]),
    ("innodb_rollback_on_timeout-parity", variable("innodb_rollback_on_timeout", "ON"), ["all"]),
    ("read_only", variable("read_only", "ON"), ["2"]),
    ("durability", variable("innodb_flush_log_at_trx_commit", "2"), ["2"]),
    ("binlog", variable("log_bin", "OFF"), ["2"]),
    ("sync_binlog", variable("sync_binlog", "0"), ["2"]),
    ("binlog_format", variable("binlog_format", "STATEMENT"), ["2"]),
    ("gtid", variable("gtid_strict_mode", "OFF"), ["2"]),
    ("gtid", lambda: facts(version="9.7.4", variables={"gtid_mode": "OFF_PERMISSIVE"}), ["2"]),
    ("xa-detach", variable("xa_detach_on_prepare", "OFF"), ["2"]),
    ("privileges-missing", lambda: facts(grants=(GRANTS[1].replace("DELETE, ", ""),)), ["2"]),
    ("privileges-missing", lambda: facts(grants=(GRANTS[1].replace("`app`.", "`b`."),)), ["2"]),
    ("privileges-excess", lambda: facts(grants=("GRANT ALL PRIVILEGES ON *.* TO `a`@`%`",)), ["2"]),
    (
        "privileges-excess",
        lambda: facts(grants=(*GRANTS, "GRANT FILE, SUPER ON *.* TO `a`@`%`")),
        ["2"],
    ),
    ("tls", lambda: facts(cipher=""), ["2"]),
    ("tls-unverified", config(ssl_mode="required"), ["2"]),
    ("local_infile", variable("local_infile", "ON"), ["2"]),
    ("xa-left", lambda: facts(prepared=PreparedXa(left=("a" * 32,))), ["2"]),
    ("prepared-xa", lambda: facts(prepared=PreparedXa(foreign=("'a','b',1",))), ["2"]),
    ("commit-markers", lambda: facts(old_markers=7), ["2"]),
    ("migrations", lambda: facts(unfinished_migrations=1), ["2"]),
    ("jobs", lambda: facts(abandoned_jobs=1), ["2"]),
    (
        "misplaced-rows",
        lambda: facts(misplaced=(("trades", Misplaced("2", 7, 3, 1)),)),
        ["2"],
    ),
    ("primary-keys", lambda: facts(keyless_tables=("log",)), ["2"]),
    ("engines", lambda: facts(foreign_engines=("log",)), ["2"]),
]


@pytest.mark.parametrize(
    ("name", "given", "databases"),
    [pytest.param(*each, id=f"{each[0]}-{n}") for n, each in enumerate(MISCONFIGURED)],
)
def test_a_misconfiguration_is_found_with_its_fix(
    name: str, given: Callable[[], Facts], databases: List[str]
) -> None:
    assert found(given())[name] == databases


def test_every_check_is_tested() -> None:
    assert {each[0] for each in MISCONFIGURED} == set(doctor.CHECKS)


def test_every_check_is_documented() -> None:
    text = (pathlib.Path(__file__).parents[3] / "docs" / "operations.md").read_text()
    assert [name for name in doctor.CHECKS if f"`{name}`" not in text] == []


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("tls", lambda: facts(cipher="", config=CONFIG.model_copy(update={"host": "127.0.0.1"}))),
        ("tls", lambda: facts(cipher="", config=CONFIG.model_copy(update={"host": "localhost"}))),
        ("read_only", lambda: facts(status="readonly", variables={"read_only": "ON"})),
        ("prepared-xa", lambda: facts(prepared=None)),
        ("privileges-missing", lambda: facts(
            grants=("GRANT ALL PRIVILEGES ON `a%`.* TO `a`@`%`",))),
        ("privileges-missing", lambda: facts(grants=("GRANT `role` TO `a`@`%`",))),
        ("privileges-excess", lambda: facts(
            grants=("GRANT ALL PRIVILEGES ON `app`.* TO `a`@`%`",))),
        ("sql_mode-parity", lambda: facts(
            variables={"sql_mode": "NO_ENGINE_SUBSTITUTION,STRICT_TRANS_TABLES"})),
        ("sync_binlog", lambda: facts(variables={"log_bin": "OFF", "sync_binlog": "0"})),
        ("connection-budget", lambda: facts(processes=6)),
        ("connection-budget", config(max_connections_per_server=50, max_overflow=500)),
    ],
)  # fmt: skip
def test_what_is_sound_is_not_reported(name: str, given: Callable[[], Facts]) -> None:
    assert name not in found(given())


def test_the_worst_comes_first_and_checks_can_be_left_out() -> None:
    given = facts(variables={"local_infile": "ON", "read_only": "ON", "log_bin": "OFF"})
    severities = [each.severity for each in doctor.report_of(given).findings]
    assert severities == [Severity.ERROR, Severity.WARNING, Severity.NOTE]
    report = doctor.report_of(given, frozenset({"read_only", "binlog"}))
    assert [each.check for each in report.findings] == ["local_infile"]
    assert report.ok
    assert "read_only" not in report.checks


def test_the_report_has_no_password() -> None:
    assert "password" not in str(doctor.report_of(facts()).to_dict())


def test_prepared_transactions_are_sorted_by_whose_they_are() -> None:
    """Of a server with two shards, and other programs' transactions."""
    owner = XaOwner("c" * 16, grace=10.0)
    now = 1_000_000
    old, young = f"{now - 10:08x}{'1' * 24}", f"{now - 9:08x}{'1' * 24}"

    def row(gtrid: str, cluster: str, shard: int, **changes: Any) -> Dict[str, Any]:
        data = f"{gtrid}{cluster}.{shard}".encode()
        return {"formatID": FORMAT_ID, "gtrid_length": 32, "data": data, **changes}

    rows = [
        row(old, "c" * 16, 2),
        row(young, "c" * 16, 2),
        row(old, "c" * 16, 1),
        row(old, "d" * 16, 2),
        row("x" * 32, "c" * 16, 2),
        {"formatID": 7, "gtrid_length": 2, "data": b"ab'\xff"},
        {"formatID": 1, "gtrid_length": 3, "data": "0x61626364"},
    ]
    found = sort_prepared(rows, owner, 2, float(now))
    assert found.left == (old,)
    assert set(found.foreign) == {
        f"'{old}','{'d' * 16}.2',{FORMAT_ID}",
        f"'{'x' * 32}','{'c' * 16}.2',{FORMAT_ID}",
        "'ab',X'27ff',7",
        "'abc','d',1",
    }
    unused = sort_prepared(rows, owner._replace(cluster=None), 2, float(now))
    assert (unused.left, len(unused.foreign)) == ((), 7)
    assert sort_prepared(rows, owner, None, float(now)).left == ()


def test_a_few_of_many_transactions_are_named() -> None:
    names = tuple(f"'{number}','',1" for number in range(9))
    (finding,) = doctor.report_of(facts(prepared=PreparedXa(foreign=names))).findings
    assert finding.message.startswith("prepared")
    assert finding.message.endswith("'4','',1 and 4 more")
    assert "never touches" in finding.fix


def test_what_is_prepared_is_shown_by_its_names() -> None:
    known = facts(prepared=PreparedXa(("a" * 32,), ("'b','',1",)))
    shown = doctor.report_of(known).facts
    assert shown["2"]["prepared"] == {"left": ("a" * 32,), "foreign": ("'b','',1",)}
    assert doctor.report_of(facts(prepared=None)).facts["2"]["prepared"] is None
