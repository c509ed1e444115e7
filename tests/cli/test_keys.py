"""The commands about keys and routes."""

from typing import Any

from cli_command import Command

MAPPING = "SELECT * FROM table_user_shard_mapping ORDER BY account_db_key"


def test_keys_are_placed_and_found(cli: Command) -> None:
    cli("init")
    assert cli.json("locate", "7", code=1)["shard_id"] is None
    planned = cli.json("keys", "assign", "7", "8", "--dry-run")
    assert {each["shard_id"] for each in planned["keys"]} <= {1, 2}
    assert [each["before"] for each in planned["keys"]] == [None, None]
    assert cli.json("locate", "7", code=1)["shard_id"] is None
    assert cli.sandbox.run("global", MAPPING) in ((), [])
    placed = cli.json("keys", "assign", "7", "8", "9", "10")["keys"]
    assert sorted(each["shard_id"] for each in placed) == [1, 1, 2, 2]
    found = cli.json("keys", "get", "7", "8", "9", "10")
    assert [each["shard_id"] for each in found] == [each["shard_id"] for each in placed]
    again = cli.json("keys", "assign", "7")["keys"][0]
    assert again["before"] == again["shard_id"] == placed[0]["shard_id"]
    assert cli.json("keys", "get", "7", "99", code=1)[1]["shard_id"] is None
    assert f"shard {placed[0]['shard_id']}" in cli("locate", "7").stdout


def test_a_key_can_be_moved_and_forgotten(cli: Command) -> None:
    cli("init")
    cli("keys", "set", "7", "1")
    before = cli.sandbox.run("global", MAPPING)
    assert "it has shard 1" in cli("keys", "set", "7", "2", "--dry-run").stdout
    cli("keys", "set", "7", "9", "--dry-run", code=4)
    cli("keys", "forget", "7", "--dry-run")
    assert cli.sandbox.run("global", MAPPING) == before
    cli("keys", "set", "7", "2")
    assert cli.json("locate", "7")["shard_id"] == 2
    cli("keys", "forget", "7")
    cli("locate", "7", code=1)


def test_a_route_is_explained(cli: Command) -> None:
    cli("init")
    cli("keys", "set", "7", "2")
    assert cli.json("route", "--key", "7")["target"] == "shard 2"
    assert cli.json("route")["target"] == "global"
    assert cli.json("route", "--session-shard", "9")["reason"] == "absent"
    assert cli.json("route", "--shard", "9", code=1)["target"] is None
    assert cli.json("route", "--key", "8", code=1)["reason"] == "key_not_found"


def test_buckets_are_spread_and_moved(cli: Command, tmp_path: Any) -> None:
    (tmp_path / "dualdb.toml").write_text('[directory]\nkind = "buckets"\nbuckets = 8\n')
    cli("init")
    owners = "SELECT bucket, shard_id FROM dualdb_bucket ORDER BY bucket"
    before = cli.sandbox.run("global", owners)
    assert len(before) == 8
    assert cli.json("keys", "move-plan") == []
    bucket = next(each["bucket"] for each in before if each["shard_id"] == 1)
    cli("keys", "set-bucket", str(bucket), "2", "--dry-run")
    assert cli.sandbox.run("global", owners) == before
    cli("keys", "set-bucket", str(bucket), "2")
    moves = cli.json("keys", "move-plan")
    assert [each["to"] for each in moves] == [1]


def test_a_function_finds_keys(cli: Command, tmp_path: Any) -> None:
    (tmp_path / "rule_of_cli_test.py").write_text("def shard(key):\n    return key % 2 + 1\n")
    (tmp_path / "dualdb.toml").write_text(
        '[directory]\nkind = "function"\nfunction = "rule_of_cli_test:shard"\n'
    )
    assert cli.json("locate", "7")["shard_id"] == 2
    cli("keys", "assign", "7", code=4)


def test_keys_have_types(cli: Command) -> None:
    cli("init")
    cli("locate", "x", "--key-type", "int", code=2)
    cli("locate", "zz", "--key-type", "hex", code=2)
    cli("locate", "ann", code=4)  # text is no key of an integer column


def test_the_route_of_a_key_is_shown_where_nothing_is_cached(cli: Command, tmp_path: Any) -> None:
    cli("init")
    cli("keys", "set", "7", "2")
    for ttl in (0, 60):
        (tmp_path / "dualdb.toml").write_text(f"[directory]\nttl = {ttl}\n")
        found = cli.json("route", "--key", "7")
        assert (found["shard_id"], found["target"]) == (2, "shard 2")
        cli("route", "--key", "8", code=1)
