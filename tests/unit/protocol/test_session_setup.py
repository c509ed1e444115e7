"""What a session is given, and what it reports."""

from typing import Any

import pytest

from dualdb import DatabaseConfig
from dualdb.protocol import commands, session_setup
from dualdb.protocol.session_setup import SessionChange, SessionFacts


def config(**changes: Any) -> DatabaseConfig:
    return DatabaseConfig(database="d", user="u", password="p", **changes)


def test_one_statement_says_everything() -> None:
    everything = config(
        time_zone="+01:00", sql_mode="STRICT_TRANS_TABLES", isolation="READ COMMITTED"
    )
    statement = session_setup.setup_statement(everything, mariadb=False, tracks=True, lock="dd1")
    assert statement == (
        "SET NAMES utf8mb4, autocommit=1, completion_type=0, session_track_state_change=1, "
        "session_track_system_variables='character_set_client,character_set_connection,"
        "character_set_results', session_track_gtids='OWN_GTID', time_zone='+01:00', "
        "sql_mode='STRICT_TRANS_TABLES', "
        "transaction_isolation='READ-COMMITTED', @dualdb_session=GET_LOCK('dd1',0)"
    )
    statement = session_setup.setup_statement(config(), mariadb=True, tracks=True, lock=None)
    assert statement == (
        "SET NAMES utf8mb4, autocommit=1, completion_type=0, session_track_state_change=1, "
        "session_track_system_variables='character_set_client,character_set_connection,"
        "character_set_results,last_gtid'"
    )
    statement = session_setup.setup_statement(everything, mariadb=True, tracks=False, lock=None)
    assert statement == (
        "SET NAMES utf8mb4, autocommit=1, completion_type=0, time_zone='+01:00', "
        "sql_mode='STRICT_TRANS_TABLES', tx_isolation='READ-COMMITTED'"
    )


def test_a_reset_repeats_what_a_new_session_is_given() -> None:
    own = config(init_command="SET @a = 1")
    setup = session_setup.setup_commands(own, "SET NAMES utf8mb4")
    assert [text for _, text in setup] == [
        b"SET @a = 1",
        b"SET NAMES utf8mb4",
        session_setup.PROBE,
    ]
    reset = session_setup.reset_commands(own, "SET NAMES utf8mb4", "utf8")
    assert reset[2:] == setup
    assert reset[:2] == [(31, b""), (2, b"d")]
    assert commands.together([(3, b"ab"), (31, b"")]) == (
        b"\x03\x00\x00\x00\x03ab" + b"\x01\x00\x00\x00\x1f"
    )


def test_locks_have_names_that_nobody_guesses() -> None:
    names = {session_setup.new_lock_name() for _ in range(100)}
    assert len(names) == 100
    assert max(map(len, names)) <= 64


MYSQL = (
    b"\x00a\x00\x1d\x14character_set_client\x07utf8mb4\x00!\x18character_set_connection\x07utf8mb4"
    b"\x00\x1a\x15character_set_results\x03gbk\x02\x011"
)


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (b"", SessionChange(True, {})),
        (b"\x00\x09\x02", SessionChange(True, {})),
        (b"\x00\x00", SessionChange(False, {})),
        (b"\x00\x03\x02\x011", SessionChange(True, {})),
        (b"\x00\x0b\x05\t\x08T_______", SessionChange(False, {})),
        (b"\x00\x0e\x02\x011\x05\t\x08________", SessionChange(True, {})),
        (b"\x00\x0b\x01\t\x08sess_exp", SessionChange(False, {})),
        (
            b"\x00\x2a\x03\x28\x00\x26d20c3a4a-0b5c-11ef-9d1a-02fc00000001:7",
            SessionChange(False, {}, ("gtid", "d20c3a4a-0b5c-11ef-9d1a-02fc00000001:7")),
        ),
        (
            b"\x00\x12\x00\x10\x09last_gtid\x050-1-9",
            SessionChange(False, {}, ("mariadb_gtid", "0-1-9")),
        ),
        (b"\x00\x0d\x00\x0b\x09last_gtid\x00", SessionChange(False, {})),
        (b"\x00\x02\x03\x00", SessionChange(False, {})),
        (
            MYSQL,
            SessionChange(
                True,
                {
                    "character_set_client": "utf8mb4",
                    "character_set_connection": "utf8mb4",
                    "character_set_results": "gbk",
                },
            ),
        ),
    ],
)
def test_what_an_ok_packet_reports(info: bytes, expected: SessionChange) -> None:
    assert session_setup.session_change(info) == expected


def test_a_change_of_the_character_set_is_one_to_another_value() -> None:
    facts = SessionFacts("dd1", {"character_set_client": "utf8mb4"})
    assert facts.changes_charset({"character_set_client": "gbk"})
    assert not facts.changes_charset({"character_set_client": "utf8mb4"})
    assert not facts.changes_charset({"character_set_results": "gbk"}), "nothing is known of it"
