"""``spider``: the DDL of a head for the shards."""

from cli_command import Command


def test_the_ddl_of_a_head(cli: Command) -> None:
    shown = cli("spider", "ddl", "trades").stdout
    assert "CREATE SERVER `dualdb_shard_2` FOREIGN DATA WRAPPER mysql OPTIONS (" in shown
    assert "-- passwords are left out" in shown
    assert ", PASSWORD '" not in shown
    assert "CREATE VIEW `trades` AS SELECT" in shown
    found = cli.json("spider", "ddl", "trades", "--by", "user_id", "--passwords")
    assert len(found["statements"]) == 3
    assert ", PASSWORD '" in found["statements"][0]
    assert found["notes"] == []
    cli("spider", "ddl", "nothing", code=4)
    cli("spider", "ddl", code=2)
