"""Ending a session on the server."""

import pymysql.err
import pytest
from scripted_exchanges import OK, hold, rows

from dualdb.protocol.kill import end_session


def test_a_session_is_ended_unless_the_server_has_been_started_since() -> None:
    uptime = (b"SHOW GLOBAL STATUS LIKE 'Uptime'", [rows({"Value": "70"})])
    hold(end_session(9, 70.9), [uptime, (b"KILL 9", [OK])])
    hold(
        end_session(9, 70.9),
        [
            uptime,
            (
                b"KILL 9",
                pymysql.err.OperationalError(1094, "Unknown thread id: 9", sqlstate="HY000"),
            ),
        ],
    )
    hold(end_session(9, 71.0), [uptime])
    with pytest.raises(pymysql.err.OperationalError, match="not owner"):
        hold(
            end_session(9, 1.0),
            [
                uptime,
                (b"KILL 9", pymysql.err.OperationalError(1290, "not owner", sqlstate="HY000")),
            ],
        )
