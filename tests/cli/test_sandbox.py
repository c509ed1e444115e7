"""``dualdb sandbox``: what it starts, and the command that it runs there."""

import json
import pathlib
import signal
import subprocess
import sys
from typing import Any, Dict

import pymysql
import pytest
from click.testing import CliRunner
from waiting import wait_for

import dualdb
from dualdb.cli.app import dualdb as command


def start(*arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "dualdb", "sandbox", *arguments],
        stdout=subprocess.PIPE,
        text=True,
        cwd=pathlib.Path(dualdb.__file__).parents[1],
    )


def test_replicas_and_galera_exclude_each_other() -> None:
    found = CliRunner().invoke(command, ["sandbox", "--replicas", "1", "--galera"])
    assert found.exit_code == 2
    assert "exclude each other" in found.output


@pytest.mark.slow
def test_replicas_are_shown_and_read_only() -> None:
    with start("--json", "--shards", "1", "--replicas", "1") as process:
        assert process.stdout is not None
        shown: Dict[str, Any] = json.loads(process.stdout.readline())
        assert sorted(shown["members"]) == ["1", "global"]
        assert [len(each) for each in shown["members"].values()] == [2, 2]
        assert shown["servers"]["1"] == shown["members"]["1"][0]
        options = pathlib.Path(shown["root_options"]["1"])
        assert options.stat().st_mode & 0o077 == 0
        root = pymysql.connect(read_default_file=str(options))
        with root, root.cursor() as cursor:
            cursor.execute("SELECT CURRENT_USER()")
            assert cursor.fetchone() == ("root@localhost",)
        config = dualdb.DatabaseConfig.from_url(shown["url"])
        replica = pymysql.connect(
            host=config.host,
            port=int(shown["members"]["global"][1].rpartition(":")[2]),
            user=config.user,
            password=config.reveal_password(),
            database=config.database,
        )
        with replica, replica.cursor() as cursor:
            cursor.execute("SELECT @@read_only")
            assert cursor.fetchone() == (1,)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)
    wait_for(lambda: not pathlib.Path(shown["directory"]).exists())


@pytest.mark.slow
def test_a_command_has_the_url_and_gives_its_exit_code() -> None:
    script = "import os, sys; sys.exit(7 if os.environ['DUALDB_URL'].startswith('mysql:') else 1)"
    with start("--shards", "0", "--galera", "--", sys.executable, "-c", script) as process:
        process.communicate(timeout=60)
        assert process.returncode == 7
