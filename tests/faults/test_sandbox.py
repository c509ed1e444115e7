"""The sandbox: it comes up, it goes away whatever happens to its owner, and it says
what is missing.
"""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
from typing import Any, List

import pymysql.err
import pytest
from waiting import wait_for

import dualdb
from dualdb.sandbox import Sandbox, ServerMissing, reaper, server

SCRIPT = """
import sys
from dualdb.sandbox import Sandbox
sandbox = Sandbox(1)
sandbox.start()
print(sandbox.directory, flush=True)
{end}
"""


def spawn(end: str, **options: Any) -> "subprocess.Popen[str]":
    environment = {**os.environ, "PYTHONPATH": str(pathlib.Path(dualdb.__file__).parents[1])}
    environment.update(options.pop("env", {}))
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT.format(end=end)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        **options,
    )


def assert_gone(directory: str) -> None:
    assert directory
    wait_for(lambda: not os.path.exists(directory))
    wait_for(lambda: not list(reaper.servers(directory)))


ENDS = {
    "normal end": ("sandbox.stop()", None),
    "forgotten": ("pass", None),
    "exception": ("1 / 0", None),
    "crash": ("import time; time.sleep(60)", signal.SIGKILL),
    "Ctrl-C": ("import time; time.sleep(60)", signal.SIGINT),
    "terminated": ("import time; time.sleep(60)", signal.SIGTERM),
    "a child lives on": (
        (
            "import os, time; os.fork() or (os.close(1), os.close(2), time.sleep(9), "
            "os._exit(0)); sandbox.stop()"
        ),
        None,
    ),
    "crash, a child lives on": (
        (
            "import os, time; os.fork() or (os.setsid(), os.close(1), os.close(2), "
            "time.sleep(9), os._exit(0)); time.sleep(60)"
        ),
        signal.SIGKILL,
    ),
    "hard exit": ("import os; os._exit(3)", None),
}


@pytest.mark.slow
@pytest.mark.parametrize(("end", "number"), ENDS.values(), ids=list(ENDS))
def test_nothing_is_left_whatever_happens_to_its_owner(end: str, number: Any) -> None:
    with spawn(end) as process:
        assert process.stdout is not None
        directory = process.stdout.readline().strip()
        if number is not None:
            assert os.path.isdir(directory)
            assert len(list(reaper.servers(directory))) == 2
            os.killpg(process.pid, number)
        process.communicate(timeout=30)
    assert_gone(directory)


@pytest.mark.slow
def test_a_block_has_the_shard_table_and_databases() -> None:
    with Sandbox([3, 7]) as sandbox:
        directory = sandbox.directory
        rows = sandbox.run(
            "global",
            (
                "SELECT shard_id, port, database_name, status FROM table_shard_config ORDER "
                "BY shard_id"
            ),
        )
        assert [tuple(row.values()) for row in rows] == [
            (3, sandbox.servers[3].port, "app_shard_3", "active"),
            (7, sandbox.servers[7].port, "app_shard_7", "active"),
        ]
        assert os.stat(directory).st_mode & 0o077 == 0, "nobody else reads it"
        sandbox.add_shard(8, status="maintenance")
        sandbox.set_status(7, "inactive")
        with dualdb.DatabaseService(sandbox.config) as db:
            assert sorted(db.shard_clients) == [3]
            assert repr(sandbox.servers[3]).endswith(", up>")
        sandbox.servers[3].kill()
        assert repr(sandbox.servers[3]).endswith(", down>")
    assert_gone(directory)


@pytest.mark.slow
def test_replicas_follow_and_one_can_be_promoted() -> None:
    with Sandbox(0, replicas=1) as sandbox:
        assert [len(members) for members in sandbox.members.values()] == [2]
        first, second = sandbox.members["global"]
        with dualdb.DatabaseService(sandbox.config) as db:
            db.execute("CREATE TABLE t (id INT PRIMARY KEY)")
            db.execute("INSERT INTO t VALUES (1)")
        sandbox.wait_synced("global")
        replica = dualdb.sync_impl.MySQLClient(sandbox.config_of("global", member=1))
        assert replica.query("SELECT id FROM t") == [{"id": 1}]
        with pytest.raises(dualdb.DatabaseError, match="read"):
            replica.execute("INSERT INTO t VALUES (2)")
        replica.close_pool()
        first.kill()
        assert sandbox.promote("global") is second
        assert sandbox.servers["global"] is second
        sandbox.run("global", "INSERT INTO t VALUES (2)")
        assert sandbox.config.port == second.port


@pytest.mark.slow
def test_a_galera_cluster_goes_on_without_a_node_which_joins_again() -> None:
    with Sandbox(0, galera=2) as sandbox:
        directory = sandbox.directory
        first, second = sandbox.members["global"]
        sandbox.run("global", "CREATE TABLE t (id INT PRIMARY KEY)")
        first.kill()
        insert = "INSERT INTO app_global.t VALUES (1)"

        def goes_on() -> bool:
            try:
                second.run(insert)
            except pymysql.err.MySQLError:
                return False
            return True

        wait_for(goes_on)
        first.start()
        sandbox.wait_synced("global")
        found = first.run("SET SESSION wsrep_sync_wait = 1", "SELECT id FROM app_global.t")
        assert found == [{"id": 1}]
    assert_gone(directory)


def test_replicas_and_galera_exclude_each_other() -> None:
    with pytest.raises(ValueError, match="not both"):
        Sandbox(replicas=1, galera=2)
    with pytest.raises(ValueError, match="at least 2"):
        Sandbox(galera=1)
    with pytest.raises(ValueError, match="no replicas"):
        Sandbox().promote("global")


def test_no_server_is_an_error_that_names_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(server, "_SBIN", str(tmp_path))
    with pytest.raises(ServerMissing, match="apt-get install mariadb-server"):
        Sandbox().start()


def test_a_program_that_is_no_server_is_an_error_that_says_so(tmp_path: pathlib.Path) -> None:
    program = tmp_path / "mariadbd"
    program.write_text("#!/bin/sh\necho broken >&2; exit 1\n")
    program.chmod(0o755)
    with pytest.raises(ServerMissing, match="broken"):
        Sandbox(program=str(program)).start()


@pytest.mark.slow
def test_a_server_that_does_not_start_shows_its_log() -> None:
    sandbox = Sandbox(0, options=["--no-such-option=1"])
    with pytest.raises(RuntimeError, match=r"(?s)did not start.*no-such-option"):
        sandbox.start()
    assert_gone(sandbox.directory)


@pytest.mark.slow
def test_as_an_ordinary_user() -> None:
    """As root, the other tests have shown that root can; this one is nobody, who may
    read the interpreter's files and nothing more.
    """
    code = (
        "from dualdb.sandbox import Sandbox\nwith Sandbox(1) as s: print(s.run('global', "
        "'SELECT COUNT(*) AS n FROM table_shard_config'))"
    )
    work = tempfile.mkdtemp(prefix="dualdb-user-")
    command: List[str] = [sys.executable, "-c", code]
    if os.geteuid() == 0:
        os.chown(work, 65534, 65534)
        become = [
            "setpriv",
            "--reuid=65534",
            "--regid=65534",
            "--clear-groups",
            "--inh-caps=+dac_read_search",
        ]
        command = [*become, "--ambient-caps=+dac_read_search", *command]
    environment = {
        **os.environ,
        "PYTHONPATH": str(pathlib.Path(dualdb.__file__).parents[1]),
        "TMPDIR": work,
    }
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "[{'n': 1}]", done.stderr
        assert os.listdir(work) == []
    finally:
        shutil.rmtree(work)
