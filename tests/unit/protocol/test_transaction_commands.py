"""What begins and ends a transaction."""

from typing import Tuple

import pymysql.err
import pytest
from scripted_exchanges import OK, run_scripted

from dualdb.protocol.transaction_commands import _NEW_MARKERS, Verdict, begin, commands_for


@pytest.mark.parametrize(
    ("savepoint", "opens", "commit", "rollback"),
    [
        (0, b"BEGIN", (b"COMMIT",), (b"ROLLBACK",)),
        (
            2,
            b"SAVEPOINT `dualdb_2`",
            (b"RELEASE SAVEPOINT `dualdb_2`",),
            (b"ROLLBACK TO SAVEPOINT `dualdb_2`", b"RELEASE SAVEPOINT `dualdb_2`"),
        ),
    ],
)
def test_transaction_commands(
    savepoint: int, opens: bytes, commit: Tuple[bytes, ...], rollback: Tuple[bytes, ...]
) -> None:
    run_scripted(begin(savepoint, None), [(opens, [OK])])
    ends = (
        (Verdict.RELEASE, Verdict.ROLLBACK_TO) if savepoint else (Verdict.COMMIT, Verdict.ROLLBACK)
    )
    assert [commands_for(verdict, savepoint) for verdict in ends] == [commit, rollback]
    explicit = [commands_for(verdict, savepoint, explicit=True) for verdict in ends]
    no_more = b"" if savepoint else b" AND NO CHAIN NO RELEASE"
    assert explicit == [
        tuple([each + no_more for each in commands]) for commands in (commit, rollback)
    ]
    for verdict in (Verdict.NOTHING, Verdict.CLOSE):
        assert commands_for(verdict, savepoint) == ()


def test_a_marked_transaction_leaves_its_token_and_makes_the_table_where_it_is_missing() -> None:
    opens, leaves = (b"BEGIN", [OK]), b"INSERT INTO dualdb_commit (token) VALUES ('f00d')"
    run_scripted(begin(0, "f00d", spread=lambda: 0.5), [opens, (leaves, [OK])])
    missing = pymysql.err.ProgrammingError(
        1146, "Table 'd.dualdb_commit' doesn't exist", sqlstate="42S02"
    )
    run_scripted(
        begin(0, "f00d", spread=lambda: 0.5),
        [opens, (leaves, missing), (_NEW_MARKERS, [OK]), opens, (leaves, [OK])],
    )
    sweeps = (b"DELETE FROM dualdb_commit WHERE at < NOW() - INTERVAL 7 DAY LIMIT 1000", [OK])
    run_scripted(begin(0, "f00d", spread=lambda: 0.0), [sweeps, opens, (leaves, [OK])])
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        run_scripted(
            begin(0, "f00d", spread=lambda: 0.5),
            [opens, (leaves, pymysql.err.OperationalError(1142, "denied", sqlstate="42000"))],
        )
