"""Fixtures: the servers, the two implementations, the two interfaces of the service."""

import contextlib
import gc
import logging
import os
import random
from typing import Any, Callable, Generator, Iterator, List, Optional

import pytest
from apis import APIS, Verbs
from clusters import MYSQLD
from database_servers import Databases, GivenServers
from hostile_servers import CORE, FAILING, SETTINGS
from io_kinds import IO, IO_KINDS

from dualdb.execution import retry
from dualdb.topology import lifecycle

#: The test has failed, so that it has not closed what it opened.
FAILED = pytest.StashKey[bool]()

#: A file system in memory, and how many bytes of it must be free to be used.
MEMORY = "/dev/shm"
ROOM = 2 << 30

#: Without a MySQL there is no group of them.
collect_ignore = [] if os.environ.get(MYSQLD) else ["faults/test_group_failover.py"]

#: Tests of transactions that not every engine has. On given servers without them only
#: what is marked ``without_xa`` is run.
XA_TESTS = "test_xa.py"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--server",
        action="append",
        default=[],
        metavar="NAME=[USER[:PASSWORD]@]HOST:PORT",
        help="run on this server and not on private ones; NAME is global, 1 or 2 (what is not "
        "given shares the first); the account must be able to create databases and users. Tests "
        "that kill servers start private ones all the same.",
    )
    parser.addoption(
        "--server-program",
        metavar="PATH",
        help="the server program of the private servers on which transactions on several "
        "databases are tested: a mysqld where a mariadbd is installed, too",
    )
    parser.addoption(
        "--seed",
        type=int,
        metavar="NUMBER",
        help="of what is done at random, to repeat what failed",
    )
    parser.addoption(
        "--moves",
        type=int,
        default=6,
        metavar="NUMBER",
        help="how many tenants are moved while others write; shown with -s",
    )
    parser.addoption(
        "--writers", type=int, default=8, metavar="NUMBER", help="how many write meanwhile"
    )


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of what a test does at random; a failure prints it, and ``--seed`` does the same
    again.
    """
    given: Optional[int] = request.config.getoption("--seed")
    chosen = random.randrange(1_000_000) if given is None else given
    print(f"--seed={chosen}")  # noqa: T201
    return chosen


def pytest_configure(config: pytest.Config) -> None:
    """Put the private servers' files into memory, where there is room."""
    with contextlib.suppress(OSError):
        memory = os.statvfs(MEMORY)
        if memory.f_bavail * memory.f_frsize > ROOM and os.access(MEMORY, os.W_OK):
            os.environ.setdefault("TMPDIR", MEMORY)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the core of the conformance tests on hostile servers too."""
    name = metafunc.definition.originalname
    if metafunc.config.getoption("--server"):
        return
    if name not in CORE.get(metafunc.definition.path.name, ()):
        return
    hostile = [pytest.param(setting, marks=pytest.mark.slow) for setting in SETTINGS]
    metafunc.parametrize("server_settings", ["usual", *hostile], indirect=True)


def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    given = config.getoption("--server")
    if given and items:
        has_xa = GivenServers(given, list(Databases.ids)).profile.xa
        left_out = {
            item
            for item in items
            if item.path.name == XA_TESTS
            and not has_xa
            and item.get_closest_marker("without_xa") is None
        }
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]
    for item in items:
        for failure in FAILING:
            if failure.covers(item.name):
                item.add_marker(pytest.mark.xfail(reason=failure.reason, strict=failure.always))


@pytest.fixture(autouse=True)
def logging_as_it_was() -> Iterator[None]:
    """Undo what frameworks do to logging in a process: ``fileConfig`` disables loggers,
    a Celery worker sets the root logger's level.
    """
    for name in list(logging.Logger.manager.loggerDict):
        if name == "dualdb" or name.startswith("dualdb."):
            logging.getLogger(name).disabled = False
    root = logging.getLogger()
    level = root.level
    yield
    root.setLevel(level)


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Show what was wrong with the first attempt: it may be a fault that is rare."""
    for report in terminalreporter.stats.get("rerun", []):
        terminalreporter.section(f"failed, and was run again: {report.nodeid}")
        terminalreporter.line(report.longreprtext)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Have no run of the garbage collector look through what was imported."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def servers(request: pytest.FixtureRequest) -> Iterator[Databases]:
    with Databases(request.config.getoption("--server")) as databases:
        yield databases


@pytest.fixture(scope="session")
def server_settings(request: pytest.FixtureRequest) -> Iterator[Optional[Databases]]:
    """Servers with hostile settings; None for a test that runs on the usual ones."""
    setting = getattr(request, "param", "usual")
    if setting == "usual":
        yield None
        return
    with Databases([]) as databases:
        for name in ("global", *databases.ids):
            databases.run(name, *SETTINGS[setting])
        yield databases


@pytest.fixture
def databases(server_settings: Optional[Databases], request: pytest.FixtureRequest) -> Databases:
    """The global database and two shards, empty."""
    databases: Databases = server_settings or request.getfixturevalue("servers")
    databases.reset()
    return databases


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, Any]:
    report = yield
    if report.failed:
        item.stash[FAILED] = True
    return report


@pytest.fixture(params=list(IO_KINDS))
def io(request: pytest.FixtureRequest) -> Iterator[IO]:
    made = IO_KINDS[request.param]()
    yield made
    if request.node.stash.get(FAILED, False):
        made.close_what_is_open()
    made.close()


@pytest.fixture
def call(io: IO) -> IO:
    """``call(db.query(...))`` is the value, whichever implementation made it."""
    return io


@pytest.fixture
def open_service(databases: Databases, io: IO) -> Iterator[Callable[..., Any]]:
    """A function that opens a service on the test's servers; all are closed
    afterwards.
    """
    opened = []

    def open_one(config: Any = None, **options: Any) -> Any:
        service = io.Service(config or databases.config, **options)
        opened.append(service)
        io(service.init_service())
        return service

    yield open_one
    for service in opened:
        io(service.close_service())


@pytest.fixture
def db(open_service: Callable[..., Any]) -> Any:
    """An open service."""
    return open_service()


@pytest.fixture(params=list(APIS))
def api(request: pytest.FixtureRequest, db: Any, io: IO) -> Verbs:
    """The same calls through the verbs and through the original service's methods."""
    return APIS[request.param](db, io)


@pytest.fixture
def frequent_maintenance(monkeypatch: pytest.MonkeyPatch) -> None:
    """The background's rounds follow each other fast, for tests that wait for one."""
    monkeypatch.setattr(lifecycle, "MAINTENANCE_INTERVAL", 0.05)


@pytest.fixture
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting between attempts, for tests of what happens after the last."""
    monkeypatch.setattr(retry, "backoff", lambda attempt, **kwargs: 0.0)
