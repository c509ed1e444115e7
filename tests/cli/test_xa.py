"""``dualdb xa``: what was left, listed and finished."""

from typing import Any

import pytest
from cli_command import Command

from dualdb import DatabaseService
from dualdb.sandbox import Sandbox

FORMAT_ID = 1685414252
GTRID = "65000000" + "ab" * 12


@pytest.fixture
def left(sandbox: Sandbox) -> Any:
    """A transaction that is prepared on both shards, and its log."""
    with DatabaseService(sandbox.config) as db:
        with db.shards([1, 2]).transaction() as tx:
            for n in (1, 2):
                tx[n].execute("INSERT INTO trades (user_id, symbol, quantity) VALUES (1, 'A', 1)")
    cluster = sandbox.run("global", "SELECT cluster FROM dualdb_xa_lease")[0]["cluster"]
    for n in (1, 2):
        xid = f"'{GTRID}','{cluster}.{n}',{FORMAT_ID}"
        sandbox.run(
            n,
            f"XA START {xid}",
            "INSERT INTO trades (user_id, symbol, quantity) VALUES (2, 'B', 1)",
            f"XA END {xid}",
            f"XA PREPARE {xid}",
        )
    yield lambda: [sandbox.run(n, "SELECT COUNT(*) AS n FROM trades")[0]["n"] for n in (1, 2)]
    for n in (1, 2):
        prepared = sandbox.run(n, "XA RECOVER")
        for _ in prepared:
            sandbox.run(n, f"XA ROLLBACK '{GTRID}','{cluster}.{n}',{FORMAT_ID}")


def test_what_is_left_is_listed_and_rolled_back(cli: Command, left: Any) -> None:
    listed = cli.json("xa", "list", code=1)
    (transaction,) = listed["transactions"]
    assert (transaction["gtrid"], transaction["shard_ids"]) == (GTRID, [1, 2])
    assert GTRID in cli("xa", "list", code=1).stdout
    would = cli.json("xa", "recover", "--grace", "0", "--dry-run")
    assert (would["rolled_back"], would["dry_run"]) == ([GTRID], True)
    assert cli("xa", "recover", "--grace", "0").stdout == f"rolled back {GTRID}\n"
    assert cli.json("xa", "list") == {
        "ok": True, "transactions": [], "foreign": {}, "errors": {},
    }  # fmt: skip
    assert cli("xa", "recover").stdout == "nothing is left to be done\n"
    assert left() == [1, 1]


def test_one_is_resolved(cli: Command, left: Any) -> None:
    refused = cli("xa", "resolve", GTRID, "commit", code=4).stderr
    assert "no decision" in refused
    resolve = ("xa", "resolve", GTRID, "commit", "--force")
    assert "--yes" in cli(*resolve, code=2).stderr
    would = cli(*resolve, "--dry-run").stdout
    assert would == f"would commit {GTRID}\n"
    assert left() == [1, 1]
    assert cli.json(*resolve, "--yes")["committed"] == [GTRID]
    assert left() == [2, 2]
    assert "decided to commit" in cli("xa", "resolve", GTRID, "abort", code=4).stderr


def test_the_tables_are_printed(cli: Command) -> None:
    printed = cli("init", "--print").stdout
    for table in ("dualdb_xa", "dualdb_xa_lease"):
        assert f"CREATE TABLE IF NOT EXISTS `{table}`" in printed
