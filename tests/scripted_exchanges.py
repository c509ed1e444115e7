"""Exchanges with a scripted server: a list of what must be sent and what comes back."""

from typing import Any, List, Tuple

from dualdb import ResultSet
from dualdb.protocol.exchange import TextEncoding

UTF8 = TextEncoding("utf8", True)
OK = ResultSet([], (), 0, 0, 0)


def rows(*found: Any) -> ResultSet:
    return ResultSet(list(found), tuple(found[0]) if found else (), len(found), 0, 0)


def run_scripted(exchange: Any, script: List[Tuple[bytes, Any]]) -> Any:
    """Run an exchange against a script of (expected command, response); return its
    result.
    """
    try:
        command = next(exchange)
        for expected, response in script:
            assert command == expected
            command = (
                exchange.throw(response)
                if isinstance(response, Exception)
                else exchange.send(response)
            )
    except StopIteration as done:
        return done.value
    raise AssertionError(f"sent {command!r} after the script")
