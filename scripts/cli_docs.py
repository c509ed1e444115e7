"""Run the examples of docs/cli.md on private servers, and draw the pictures of it.

Without arguments it writes what the commands print into the page, and the pictures into
docs/images. tests/docs/test_cli.py runs the same and compares.
"""

import contextlib
import io
import os
import pathlib
import re
import shlex
import sys
import tempfile
from typing import Any, Dict, Iterator, List, NamedTuple

from click.testing import CliRunner
from rich.console import Console

from dualdb import PoolStats, ServiceStatus, ShardStatus
from dualdb.cli.app import dualdb
from dualdb.cli.checks import doctor_screen
from dualdb.cli.status import View, screen
from dualdb.operations import DoctorReport, Finding, Severity
from dualdb.operations.doctor import CHECKS
from dualdb.sandbox import Sandbox

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "cli.md"
IMAGES = ROOT / "docs" / "images"

PASSWORD = "admin-of-examples"

_FENCE = re.compile(r"^```text\n(\$ (?:export|dualdb|echo|cat) (?s:.*?))^```$", re.M)
_FILE = re.compile(
    r"^```(?:sql|toml|python)\n(?:--|#) (\S+\.(?:sql|toml|py))\n((?s:.*?))^```$", re.M
)


class Example(NamedTuple):
    """A command of the page, as it stands there, with what it printed."""

    command: str
    output: str


def examples(text: str) -> List[List[Example]]:
    """The examples of each fence of the page."""
    return [_examples(found[1]) for found in _FENCE.finditer(text)]


def _examples(fence: str) -> List[Example]:
    parts = re.split(r"^\$ ", fence, flags=re.M)[1:]
    made = []
    for part in parts:
        lines = part.splitlines(keepends=True)
        count = 1
        while lines[count - 1].endswith("\\\n"):
            count += 1
        made.append(Example("".join(lines[:count]).rstrip("\n"), "".join(lines[count:])))
    return made


class Runner:
    """Runs the examples in their order, on the servers of a sandbox.

    An address is shown as ``10.20.0.1N:3306``, which is as long as the real one.
    """

    def __init__(self, sandbox: Sandbox, directory: str) -> None:
        self._sandbox, self._directory = sandbox, directory
        self._code = 0
        self._runner = CliRunner()
        self.environ: Dict[str, str] = {"DUALDB_URL": sandbox.url}

    def _address(self, name: Any) -> str:
        return f"10.20.0.1{0 if name == 'global' else name}"

    def run(self, command: str) -> str:
        """What a command prints, and what stands in the page of it."""
        words = shlex.split(command.replace("\\\n", " "), comments=True)
        if words[0] == "echo":
            return f"{self._code}\n"
        if words[0] == "cat":
            return pathlib.Path(self._directory, words[1]).read_text(encoding="utf-8")
        for name, server in self._sandbox.servers.items():
            if self._address(name) in words:
                place = words.index(self._address(name))
                words[place : place + 1] = [server.host, "--port", str(server.port)]
        found = self._runner.invoke(dualdb, words[1:], env=self.environ)
        self._code = found.exit_code
        return self._as_shown(found.output)

    def _as_shown(self, text: str) -> str:
        for name, server in self._sandbox.servers.items():
            text = text.replace(f"{server.host}:{server.port}", f"{self._address(name)}:3306")
        text = text.replace(self._sandbox.config.reveal_password(), "PASSWORD")
        return "".join([line.rstrip() + "\n" for line in text.splitlines()])


@contextlib.contextmanager
def running(text: str) -> Iterator[Runner]:
    """The servers that the page speaks of, in a directory with its files."""
    sys.path.insert(0, str(ROOT / "examples"))
    import schema  # type: ignore[import-not-found, unused-ignore]  # noqa: PLC0415

    before = os.getcwd()
    with Sandbox(2) as sandbox, tempfile.TemporaryDirectory() as directory:
        sandbox.add_shard(3)
        schema.create(sandbox)
        for name in sandbox.servers:
            sandbox.run(
                name,
                f"CREATE USER admin@'%' IDENTIFIED BY '{PASSWORD}'",
                "GRANT ALL ON *.* TO admin@'%'",
            )
        sandbox.run("global", "DELETE FROM table_shard_config WHERE shard_id = 3")
        for found in _FILE.finditer(text):
            path = pathlib.Path(directory, found[1])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(found[2], encoding="utf-8")
        os.chdir(directory)
        try:
            runner = Runner(sandbox, directory)
            runner.environ["DUALDB_SHARD_3"] = sandbox.config.reveal_password()
            runner.environ["ADMIN_PASSWORD"] = PASSWORD
            yield runner
        finally:
            os.chdir(before)
            sys.path.remove(str(ROOT / "examples"))


def normal(text: str) -> str:
    """A text without what differs between two runs: times, versions, session ids."""
    text = re.sub(r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?", "TIME", text)
    text = re.sub(r"\d\d:\d\d:\d\d", "TIME", text)
    text = re.sub(r"\d+\.\d+\.\d+(-MariaDB\S*)?(?![\d.:])", "VERSION", text)
    text = re.sub(r"\d+\.\d+(?= s\b)", "SECONDS", text)
    text = re.sub(r"─+", "─", text)
    return re.sub(r"[ \t]+", " ", text).strip()


def written(text: str) -> str:
    """The page with what its commands print now."""
    with running(text) as runner:

        def run(found: "re.Match[str]") -> str:
            shown = [
                f"$ {each.command}\n{runner.run(each.command)}" for each in _examples(found[1])
            ]
            return "```text\n" + "".join(shown) + "```"

        return _FENCE.sub(run, text)


# The pictures.


def _pool(in_use: int, idle: int, *, waiting: int = 0, circuit: str = "closed") -> PoolStats:
    return PoolStats(30, in_use, idle, waiting, in_use + idle, 0, circuit)


def status_view() -> View:
    """A service with a shard in each state."""
    lost = "Can't connect to MySQL server on 'db3.internal' (timed out)"
    shards = {
        1: ShardStatus("active", None, "alpha", "db1.internal:3306/app_shard_1", _pool(7, 3)),
        2: ShardStatus("readonly", None, "beta", "db2.internal:3306/app_shard_2", _pool(1, 9)),
        3: ShardStatus(
            "unreachable", lost, "gamma", "db3.internal:3306/app_shard_3",
            _pool(0, 0, circuit="open"),
        ),
        4: ShardStatus("maintenance", None, "delta", "db4.internal:3306/app_shard_4", None),
    }  # fmt: skip
    status = ServiceStatus(
        version=12,
        age=1.4,
        failure=None,
        problems=(),
        global_pool=_pool(2, 8),
        shards=shards,
        draining={"db2-old.internal:3306/app_shard_2": 3},
        row_decoder="compiled",
    )
    statements = [
        {
            "database": "shard 1",
            "id": 4711,
            "seconds": 14.2,
            "statement": "UPDATE trades SET quantity = quantity * 2 WHERE symbol = 'ABC'",
        },
        {
            "database": "global",
            "id": 317,
            "seconds": 0.3,
            "statement": "SELECT COUNT(*) FROM accounts",
        },
    ]
    return View("db0.internal:3306/app_global", status, statements, "14:02:11")


def doctor_report() -> DoctorReport:
    """What the doctor finds on servers that are not the same."""
    findings = [
        Finding(
            "sql_mode-strict",
            Severity.ERROR,
            "2",
            "values that do not fit are cut and stored",
            "add STRICT_TRANS_TABLES to sql_mode in the server's options",
        ),
        Finding(
            "wait_timeout",
            Severity.ERROR,
            "2",
            "the pool keeps idle connections for 600 s, and the server ends them after 60 s",
            "set max_idle below 60, or raise wait_timeout",
        ),
        Finding(
            "time_zone-parity",
            Severity.WARNING,
            "all",
            "the time zone differs: 'UTC' on global, 1; '+02:00' on 2",
            "set default_time_zone='+00:00' in the options of all servers",
        ),
    ]
    findings += [
        Finding(
            "local_infile",
            Severity.NOTE,
            database,
            "the server takes files from its clients (LOAD DATA LOCAL)",
            "set local_infile=0 in the server's options",
        )
        for database in ("global", "1")
    ]
    databases = {"global": "10.11.19-MariaDB", "1": "10.11.19-MariaDB", "2": "9.0.1"}
    return DoctorReport(databases, tuple(CHECKS), tuple(findings))


def picture(title: str, shown: Any) -> str:
    """A terminal with this in it, as SVG."""
    console = Console(record=True, width=124, file=io.StringIO(), force_terminal=True)
    console.print(shown)
    console.print()  # the last line of a picture is cut
    svg = console.export_svg(title=title, unique_id=re.sub(r"\W", "", title))
    # The reader's own font, and not one that is fetched.
    return re.sub(r"@font-face \{.*?\}\s*|<!--.*?-->\s*", "", svg, flags=re.S)


def pictures() -> Dict[str, str]:
    """The pictures, by the names of their files."""
    return {
        "cli-status.svg": picture("dualdb status --watch", screen(status_view())),
        "cli-doctor.svg": picture("dualdb doctor", doctor_screen(doctor_report())),
    }


def main() -> None:
    """Write the page and its pictures."""
    IMAGES.mkdir(exist_ok=True)
    for name, svg in pictures().items():
        (IMAGES / name).write_text(svg, encoding="utf-8")
    PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
