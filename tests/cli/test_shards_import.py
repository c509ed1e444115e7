"""``shards import``: what a file may say, and what is written when."""

import json
import pathlib
from typing import Any, Dict, List

import pytest
from cli_command import Command

from dualdb.cli.settings import SettingsError
from dualdb.cli.shards_import import parse
from dualdb.sandbox import Sandbox

ROW = {"shard_id": 3, "host": "DB3", "database_name": "c", "username": "u", "password": "p"}
FIELDS = {"host": "db3", "port": 3306, "database": "c", "user": "u", "password": "p"}


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("json", json.dumps([ROW])),
        ("json", json.dumps({"shards": [{**ROW, "created_at": "2026-01-01", "name": None}]})),
        ("csv", "shard_id,host,port,database,user,password\n3,DB3,,c,u,p\n"),
        ("csv", 'shard_id,host,database,user,password,status\r\n3,"DB3",c,u,p,Active\r\n'),
        (
            "toml",
            '[[shards]]\nshard_id = 3\nhost = "DB3"\ndatabase = "c"\nuser = "u"\npassword = "p"\n',
        ),
    ],
)
def test_a_file_has_the_columns_of_the_table(form: str, text: str) -> None:
    assert parse(text, form) == [(3, {**FIELDS, "status": "active"})]


@pytest.mark.parametrize(
    ("form", "text", "message"),
    [
        ("json", "[", "not JSON"),
        ("json", "{}", "no list of shards"),
        ("json", "[]", "no shard"),
        ("json", "[1]", "names and values"),
        ("json", json.dumps([ROW, ROW]), "twice"),
        ("json", json.dumps([{**ROW, "x": 1}]), "'x'"),
        ("json", json.dumps([{**ROW, "shard_id": "x"}]), "shard_id must be a number"),
        ("json", json.dumps([{**ROW, "shard_id": True}]), "shard_id must be a number"),
        ("json", json.dumps([{**ROW, "port": -1}]), "port must be a number"),
        ("json", json.dumps([{**ROW, "host": 5}]), "host must be a text"),
        ("json", json.dumps([{**ROW, "password": ["secret"]}]), "password must be a text"),
        ("json", json.dumps([{**ROW, "status": "gone"}]), "status is one of"),
        ("json", json.dumps([{**ROW, "password": ""}]), "no password"),
        ("csv", "shard_id,host\n3,a,b\n", "more values"),
        ("csv", "", "no shard"),
        ("toml", "shards = 1", "no list of shards"),
        ("toml", "[", "not TOML"),
    ],
)
def test_a_wrong_file_is_refused_without_its_passwords(form: str, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message) as caught:
        parse(text, form)
    assert "secret" not in str(caught.value)


@pytest.fixture
def spare(sandbox: Sandbox) -> Any:
    """Two databases that are not in the shard table, as rows of a file."""
    config = sandbox.config_of(1)
    made: List[Dict[str, Any]] = []
    for number in (3, 4):
        name = f"spare_{number}"
        sandbox.run(
            1,
            f"DROP DATABASE IF EXISTS {name}",
            f"CREATE DATABASE {name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci",
            f"CREATE TABLE {name}.trades LIKE trades",
            f"GRANT ALL ON {name}.* TO '{config.user}'@'%'",
        )
        made.append(
            {
                "shard_id": number,
                "host": config.host,
                "port": config.port,
                "database": name,
                "user": config.user,
                "password": config.reveal_password(),
            }
        )
    return made


def ids(sandbox: Sandbox) -> List[int]:
    sql = "SELECT shard_id FROM table_shard_config ORDER BY shard_id"
    return [row["shard_id"] for row in sandbox.run("global", sql)]


def write(rows: Any) -> str:
    pathlib.Path("shards.json").write_text(json.dumps(rows))
    return "shards.json"


def test_shards_of_a_file_are_added_once(cli: Command, sandbox: Sandbox, spare: Any) -> None:
    file = write(spare)
    planned = cli.json("shards", "import", file, "--dry-run", "--any-privileges")
    assert (planned["added"], planned["left"], ids(sandbox)) == ([3, 4], [], [1, 2])
    assert "would add shard 3" in cli("shards", "import", file, "--dry-run").stdout
    assert cli.json("shards", "import", file, "--any-privileges")["added"] == [3, 4]
    assert ids(sandbox) == [1, 2, 3, 4]
    again = cli.json("shards", "import", file)
    assert (again["added"], again["left"]) == ([], [3, 4])
    moved = write([{**spare[0], "database": "elsewhere"}])
    assert "spare_3" in cli("shards", "import", moved, code=4).stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--host", ""), ("--host", "a:x"), ("--port", "0"), ("--port", "70000"), ("--user", ""),
     ("--database", "")],
)  # fmt: skip
def test_a_shard_that_cannot_be_is_wrong_usage(cli: Command, option: str, value: str) -> None:
    fields = {"--host": "127.0.0.1", "--port": "1", "--database": "x", "--user": "x"}
    given = [each for pair in {**fields, option: value}.items() for each in pair]
    reference = ["--password-ref", "env:HOME"]
    for more in ([], ["--dry-run"]):
        found = cli("shards", "add", "3", *given, *reference, *more, code=2)
        assert option[2:] in found.stderr
        assert len(found.stderr.splitlines()) == 1
        assert "pydantic" not in found.stderr


def test_nothing_is_written_if_one_of_them_is_wrong(
    cli: Command, sandbox: Sandbox, spare: Any
) -> None:
    file = write([spare[0], {**spare[1], "database": "missing"}])
    cli("shards", "import", file, "--any-privileges", code=3)
    sandbox.run(1, "ALTER TABLE spare_4.trades ADD more INT")
    file = write(spare)
    refused = cli("shards", "import", file, "--any-privileges", code=4)
    assert "shard 4 has not the schema" in refused.stderr
    assert ids(sandbox) == [1, 2]
    pathlib.Path("shards").write_text(json.dumps(spare))
    assert "--format" in cli("shards", "import", "shards", code=2).stderr
    cli("shards", "import", "shards", "--format", "json", "--any-schema", "--any-privileges")
    assert ids(sandbox) == [1, 2, 3, 4]
