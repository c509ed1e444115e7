"""The commands about shards: exit codes, JSON, and that a dry run changes nothing."""

import json
import logging
from typing import Any, List, Tuple

import pytest
from cli_command import Command

from dualdb.sandbox import Sandbox


def rows(sandbox: Sandbox) -> List[Any]:
    return sandbox.run("global", "SELECT * FROM table_shard_config ORDER BY shard_id")


def test_status_shows_the_shards(cli: Command) -> None:
    found = cli.json("status")
    assert [each["state"] for each in found["shards"]] == ["active", "active"]
    assert found["global_pool"]["limit"] == 30
    assert "2 shards: active 2" in cli("status").stdout


def test_options_may_stand_before_the_command(cli: Command) -> None:
    assert json.loads(cli("--json", "status").stdout)["problems"] == []


def test_check_exits_with_1_for_a_shard_that_does_not_answer(cli: Command) -> None:
    assert cli.json("check")["healthy"] is True
    cli.sandbox.servers[2].kill()
    try:
        found = cli.json("check", code=1)
        assert [each["healthy"] for each in found["databases"]] == [True, True, False]
        assert cli("status").stdout.count("unreachable") == 2
        assert cli.json("check", "--wait", "0.2", code=1)["healthy"] is False
        checked = cli.json("shards", "check", code=1)
        assert [bool(each["problems"]) for each in checked] == [False, True]
    finally:
        cli.sandbox.servers[2].start()
    assert cli.json("check", "--wait", "30")["healthy"] is True


def test_an_unreachable_global_database_is_exit_code_3(cli: Command) -> None:
    found = cli("status", "--url", "mysql://u:s3cret@127.0.0.1:1/x", code=3)
    assert found.stdout == ""
    assert found.stderr.startswith("dualdb: ")
    assert found.stderr.count("\n") == 1
    assert "s3cret" not in found.stderr


def test_no_password_is_shown_where_it_is_wrong(cli: Command) -> None:
    config = cli.sandbox.config
    url = f"mysql://{config.user}:s3cret-wr0ng@{config.host}:{config.port}/{config.database}"
    found = cli("status", "--url", url, "--debug", code=3)
    assert "Access denied" in found.stderr
    assert "s3cret-wr0ng" not in found.output


@pytest.mark.parametrize(
    "arguments",
    [
        ("status", "--bogus"),
        ("status", "--url", "postgres://x"),
        ("shards", "set-status", "2", "asleep"),
        ("route", "--key", "7", "--shard", "1"),
        ("shards", "drain", "2"),
        ("shell", "--shard", "1", "--key", "2"),
        ("sql",),
    ],
)
def test_wrong_usage_is_exit_code_2(cli: Command, arguments: Any) -> None:
    assert cli(*arguments, code=2).stdout == ""


def test_debug_shows_the_traceback(cli: Command) -> None:
    found = cli("shards", "remove", "1", "--yes", "--debug", code=4)
    assert "Traceback" in found.stderr
    assert "Traceback" not in cli("shards", "remove", "1", "--yes", code=4).stderr


def test_set_status(cli: Command) -> None:
    before = rows(cli.sandbox)
    assert (
        "would set shard 2" in cli("shards", "set-status", "2", "maintenance", "--dry-run").stdout
    )
    assert rows(cli.sandbox) == before
    found = cli.json("shards", "set-status", "2", "maintenance")
    assert (found["before"], found["after"]) == ("active", "maintenance")
    assert cli.json("shards", "list")[1]["state"] == "maintenance"
    cli("shards", "set-status", "9", "active", code=4)
    cli("shards", "set-status", "9", "active", "--dry-run", code=4)


def test_a_shard_that_moves_is_shown_and_is_not_waited_for(cli: Command) -> None:
    assert cli.json("shards", "set-status", "2", "moving")["after"] == "moving"
    assert cli.json("shards", "list")[1]["state"] == "moving"
    assert cli.json("shards", "check")[1]["state"] == "moving"
    assert cli.json("check")["healthy"] is True
    route = cli("route", "--shard", "2", code=1).stdout
    assert route == "waits: shard 2 is moving: the call waits (moving)\n"
    assert "removed" in cli("shards", "remove", "2", "--yes", code=4).stderr


def test_drain_and_remove(cli: Command) -> None:
    before = rows(cli.sandbox)
    assert "would make shard 2 inactive" in cli("shards", "drain", "2", "--dry-run").stdout
    cli("shards", "remove", "2", "--dry-run", code=4)
    cli("shards", "remove", "2", "--yes", code=4)
    assert rows(cli.sandbox) == before
    assert cli.json("shards", "drain", "2", "--yes", "--timeout", "5")["left"] == 0
    assert "would delete the row" in cli("shards", "remove", "2", "--dry-run").stdout
    assert len(rows(cli.sandbox)) == 2
    cli("shards", "remove", "2", "--yes")
    assert [each["shard_id"] for each in rows(cli.sandbox)] == [1]
    add_second(cli, "--password-stdin")
    assert [each["shard_id"] for each in rows(cli.sandbox)] == [1, 2]


def test_drain_says_which_sessions_are_left(cli: Command) -> None:
    config = cli.sandbox.config_of(2)
    import pymysql

    with pymysql.connect(
        host=config.host,
        port=config.port,
        user=config.user,
        password=config.reveal_password(),
        database=config.database,
    ):
        found = cli.json("shards", "drain", "2", "--yes", "--timeout", "0.3", code=1)
    assert found["left"] == 1


def add_second(cli: Command, *more: str, code: int = 0) -> Any:
    config = cli.sandbox.config_of(2)
    return cli(
        "shards", "add", "2", "--host", config.host, "--port", str(config.port),
        "--database", config.database, "--user", config.user, *more,
        code=code, given=config.reveal_password() + "\n", SHARD_2=config.reveal_password(),
    )  # fmt: skip


def test_add_takes_the_password_as_a_reference_or_from_standard_input(cli: Command) -> None:
    cli("shards", "drain", "2", "--yes")
    cli("shards", "remove", "2", "--yes")
    found = add_second(cli, "--password-stdin", "--dry-run")
    assert "would add shard 2" in found.stdout
    assert len(rows(cli.sandbox)) == 1
    password = cli.sandbox.config_of(2).reveal_password()
    add_second(cli, "--password-ref", password, code=2)
    add_second(cli, code=2)  # nobody can be asked
    found = add_second(cli, "--password-stdin", "--status", "readonly")
    assert password not in found.output
    assert rows(cli.sandbox)[1]["status"] == "readonly"
    assert rows(cli.sandbox)[1]["password"] == password
    assert password not in cli("shards", "list").output
    add_second(cli, "--password-stdin", code=4)  # it is there


def test_add_compares_the_schema_with_the_first_shard_s(cli: Command) -> None:
    cli("shards", "drain", "2", "--yes")
    cli("shards", "remove", "2", "--yes")
    cli.sandbox.run(2, "DROP TABLE trades", "CREATE TABLE extra (id INT PRIMARY KEY)")
    for more in (("--dry-run",), (), ("--status", "readonly")):
        found = add_second(cli, "--password-stdin", *more, code=4)
        assert "shard 2: table trades, missing" in found.stderr
        assert "shard 2: table extra, not in shard 1" in found.stderr
        assert "--status maintenance" in found.stderr
        assert len(rows(cli.sandbox)) == 1
    found = add_second(cli, "--password-stdin", "--status", "maintenance")
    assert "table trades, missing" in found.stderr
    assert rows(cli.sandbox)[1]["status"] == "maintenance"
    cli("shards", "remove", "2", "--yes")
    add_second(cli, "--password-stdin", "--any-schema")
    assert rows(cli.sandbox)[1]["status"] == "active"


def test_add_refuses_what_cannot_be_connected_to(cli: Command) -> None:
    cli(
        "shards", "add", "3", "--host", "127.0.0.1", "--port", "1", "--database", "x",
        "--user", "y", "--password-ref", "env:DUALDB_SHARD_3", code=3, DUALDB_SHARD_3="x",
    )  # fmt: skip
    assert len(rows(cli.sandbox)) == 2


def test_init_makes_what_is_missing_and_can_be_repeated(cli: Command) -> None:
    tables = "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()"
    before = len(cli.sandbox.run("global", tables))
    planned = cli.json("init", "--dry-run")
    assert len(cli.sandbox.run("global", tables)) == before
    made = cli.json("init")
    assert made["actions"] == planned["actions"]
    assert len(cli.sandbox.run("global", tables)) == before + sum(
        "global" in each for each in made["actions"]
    )
    assert cli.json("init")["actions"] == []
    assert "all tables are there" in cli("init").stdout


def test_init_prints_sql_that_does_the_same(cli: Command) -> None:
    text = cli("init", "--print", "--url", "mysql://u:p@127.0.0.1:1/x").stdout
    for_global, _, for_shards = text.partition("-- In the database of each shard:")
    for name, part in (("global", for_global), (1, for_shards), (2, for_shards)):
        statements = [each for each in part.split(";") if "CREATE" in each]
        cli.sandbox.run(name, *statements)
    assert cli.json("init")["actions"] == []


def test_init_on_an_empty_database_begins_with_the_shard_table(cli: Command) -> None:
    cli.sandbox.run("global", "RENAME TABLE table_shard_config TO kept")
    try:
        found = cli.json("init")
        assert "create table_shard_config" in found["actions"][0]
        cli.sandbox.run("global", "DROP TABLE table_shard_config")
    finally:
        cli.sandbox.run("global", "RENAME TABLE kept TO table_shard_config")


def test_completion_scripts(cli: Command) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_DUALDB_COMPLETE" in cli("completion", shell).stdout


def test_a_json_array_of_a_watch_is_a_line_for_each_look(cli: Command) -> None:
    found = cli("status", "--watch", "--json", "--count", "2", "--interval", "0.1").stdout
    assert [json.loads(line)["version"] for line in found.splitlines()] == [1, 1]


@pytest.mark.parametrize("options", [(), ("--debug",)])
def test_a_command_leaves_the_level_of_the_log_as_it_was(
    cli: Command, options: Tuple[str, ...]
) -> None:
    before = logging.getLogger("dualdb").level
    cli("shards", "list", *options)
    assert logging.getLogger("dualdb").level == before


def test_keys_on_a_shard_that_goes_are_reported_and_kept(cli: Command) -> None:
    cli("init")
    cli("keys", "set", "7", "2")
    drained = cli("shards", "drain", "2", "--yes")
    assert "1 key of the directory" in drained.stderr
    assert cli("locate", "7").stdout == "key 7: shard 2, inactive\n"
    refused = cli("shards", "remove", "2", "--yes", code=4)
    assert "the directory has 1 key on shard 2" in refused.stderr
    assert len(rows(cli.sandbox)) == 2
    cli("shards", "remove", "2", "--yes", "--leave-keys")
    assert "not in the shard table" in cli("locate", "7", code=1).stdout
    found = cli.json("doctor", code=1)["findings"]
    assert [each["database"] for each in found if each["check"] == "keys-without-shard"] == [
        "global"
    ]
    add_second(cli, "--password-stdin")
    cli("keys", "forget", "7")


def test_a_shard_is_resized(cli: Command, sandbox: Sandbox) -> None:
    assert "ADD max_connections" in cli("shards", "resize", "2", "5", code=4).stderr
    sandbox.run("global", "ALTER TABLE table_shard_config ADD max_connections INT")
    try:
        planned = cli.json("shards", "resize", "2", "5", "--dry-run")
        assert (planned["dry_run"], planned["before"], planned["after"]) == (True, 30, 5)
        assert rows(sandbox)[1]["max_connections"] is None
        cli("shards", "resize", "2", "5")
        assert rows(sandbox)[1]["max_connections"] == 5
        cli("shards", "resize", "2", "--unlimited")
        assert rows(sandbox)[1]["max_connections"] is None
        for wrong in ([], ["0"], ["x"], ["5", "--unlimited"]):
            cli("shards", "resize", "2", *wrong, code=2)
        cli("shards", "resize", "9", "5", code=4)
    finally:
        sandbox.run("global", "ALTER TABLE table_shard_config DROP max_connections")


@pytest.mark.parametrize("suspended", ["maintenance", "moving", "inactive"])
@pytest.mark.parametrize("status", ["active", "readonly"])
def test_a_shard_that_comes_back_has_the_schema_of_the_others(
    cli: Command, suspended: str, status: str
) -> None:
    cli("shards", "set-status", "2", suspended)
    cli.sandbox.run(2, "ALTER TABLE trades DROP COLUMN quantity")
    for more in ((), ("--dry-run",)):
        refused = cli("shards", "set-status", "2", status, *more, code=4)
        assert "shard 2: column trades.quantity, missing" in refused.stderr
        assert "has not the schema of shard 1" in refused.stderr
        assert "--any-schema" in refused.stderr
        assert rows(cli.sandbox)[1]["status"] == suspended
    assert "--any-schema" in cli.json("shards", "set-status", "2", status, code=4)["error"]
    for other in ("maintenance", "inactive", suspended):  # these take no calls
        cli("shards", "set-status", "2", other)
    found = cli.json("shards", "set-status", "2", status, "--any-schema")
    assert (found["after"], found["compared_with"]) == (status, None)
    # a shard that is in service already is not asked
    cli("shards", "set-status", "2", "readonly" if status == "active" else "active")


def test_a_shard_with_the_same_schema_comes_back(cli: Command) -> None:
    for suspended in ("maintenance", "moving", "inactive"):
        cli("shards", "set-status", "2", suspended)
        found = cli.json("shards", "set-status", "2", "active")
        assert (found["before"], found["after"]) == (suspended, "active")
        assert found["compared_with"] == 1


def test_a_shard_comes_back_where_nothing_can_be_compared(cli: Command) -> None:
    cli("shards", "set-status", "2", "maintenance")
    cli.sandbox.run(2, "ALTER TABLE trades DROP COLUMN quantity")
    cli("shards", "set-status", "1", "maintenance")
    # no shard is in service that it could be compared with
    found = cli("shards", "set-status", "2", "active", "--json")
    assert json.loads(found.stdout)["compared_with"] is None
    assert "no other one can be read" in found.stderr
    cli("shards", "set-status", "2", "maintenance")
    cli("shards", "set-status", "1", "active")
    cli.sandbox.servers[2].kill()
    try:
        found = cli("shards", "set-status", "2", "active")
        assert "the schema of shard 2 is not compared" in found.stderr
        assert rows(cli.sandbox)[1]["status"] == "active"
    finally:
        cli.sandbox.servers[2].start()


def test_add_connects_to_check_and_to_compare_and_no_more(cli: Command) -> None:
    def connections() -> int:
        (row,) = cli.sandbox.run(2, "SHOW GLOBAL STATUS LIKE 'Connections'")
        return int(row["Value"])

    cli("shards", "drain", "2", "--yes")
    cli("shards", "remove", "2", "--yes")
    before = connections()
    own = connections() - before
    add_second(cli, "--password-stdin", "--status", "maintenance")
    assert connections() - before - 2 * own == 2
