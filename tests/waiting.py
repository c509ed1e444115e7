"""Waiting for a condition, in tests: once, with one contract."""

import time
from typing import Any, Callable, Iterable, TypeVar

T = TypeVar("T")


def wait_for(
    condition: Callable[..., T],
    seconds: float = 20.0,
    *,
    every: float = 0.02,
    sleep: Callable[[float], None] = time.sleep,
) -> T:
    """Return what the condition returns as soon as that is true.

    Raises:
        AssertionError: It has not become true within ``seconds``.
    """
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        assert time.monotonic() < deadline, f"still {found!r} after {seconds} s"
        sleep(every)


def sessions_alive(databases: Any, name: Any, ids: Iterable[int]) -> int:
    """How many of these connections a database's server still has."""
    wanted = ", ".join(map(str, ids))
    sql = f"SELECT COUNT(*) FROM information_schema.processlist WHERE id IN ({wanted})"
    return int(databases.value(name, sql))


def statements_running(databases: Any, name: Any, text: str) -> int:
    """How many statements with this text a database's server is running."""
    sql = (
        "SELECT COUNT(*) FROM information_schema.processlist "
        f"WHERE info LIKE '%{text}%' AND info NOT LIKE '%processlist%'"
    )
    return int(databases.value(name, sql))


def connections_to(*ports: int) -> int:
    """How many TCP connections this machine has to these ports of its own."""
    wanted = {f":{port:04X}" for port in ports}
    with open("/proc/net/tcp", encoding="ascii") as table:
        rows = [line.split() for line in table.readlines()[1:]]
    return sum([row[2][-5:] in wanted and row[3] == "01" for row in rows])
