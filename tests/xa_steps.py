"""Something that happens at one step of a transaction on several databases; and, as a
program, a process that kills itself there.

A step is a command of the package's own: XA START to XA COMMIT, and the decision.
"""

import asyncio
import os
import re
import signal
import sys
from typing import Any, Callable, List, Optional, Tuple

import dualdb
from dualdb import async_impl, sync_impl
from dualdb.async_impl.connection import Connection as AsyncConnection
from dualdb.sync_impl.connection import Connection as SyncConnection

COMMAND = re.compile(rb"XA (?!RECOVER)|BEGIN NOT ATOMIC XA |INSERT INTO `dualdb_xa`|COMMIT$")
#: Before a command is sent, and when it has been, before its answer.
MOMENTS = ("before", "sent")
#: XA START and PREPARE on two shards, the decision, XA COMMIT on both; on MySQL XA END
#: is a step of its own.
STEPS = {"MariaDB": 7, "MySQL": 9}

ADD = "UPDATE amounts SET value = value + %s WHERE id = 1"


class Steps:
    """Counts the commands, and calls a function at one of them.

    Args:
        number: Which one, from 0.
        moment: One of ``MOMENTS``.
        action: What happens then.
    """

    def __init__(self, number: int, moment: str, action: Callable[[], None]) -> None:
        self._wanted = (number, moment)
        self._action = action
        self._count = 0
        self.seen: List[bytes] = []

    def happens(self, number: int, moment: str) -> None:
        if (number, moment) == self._wanted:
            self._action()

    def counted(self, command: Any) -> Optional[int]:
        """The number of a command; None for those of the application."""
        if not isinstance(command, bytes) or not COMMAND.match(command):
            return None
        self.seen.append(command)
        return len(self.seen) - 1

    def install(self, replace: Callable[[type, str, Any], None]) -> None:
        """Watch the connections of both implementations.

        Args:
            replace: Sets an attribute of a class.
        """
        sync_send = SyncConnection._send
        async_send = AsyncConnection._send

        def send(connection: Any, transport: Any, command: Any) -> None:
            number = self.counted(command)
            if number is not None:
                self.happens(number, "before")
            sync_send(connection, transport, command)
            if number is not None:
                self.happens(number, "sent")

        async def send_in_task(
            connection: Any, transport: Any, command: Any, *args: Any, **kwargs: Any
        ) -> None:
            number = self.counted(command)
            if number is not None:
                self.happens(number, "before")
            await async_send(connection, transport, command, *args, **kwargs)
            if number is not None:
                self.happens(number, "sent")

        replace(SyncConnection, "_send", send)
        replace(AsyncConnection, "_send", send_in_task)


def transfer(tx: Any, *, global_: bool) -> List[Tuple[Any, int]]:
    """What the transaction does: the parts with the amounts."""
    parts = [(tx[1], 1), (tx[2], -1)]
    return [*parts, (tx.global_, 1)] if global_ else parts


def run_in_threads(config: dualdb.DatabaseConfig, *, global_: bool) -> None:
    with sync_impl.DatabaseService(config, xa_grace=None) as db:
        with db.shards([1, 2]).transaction(mode="xa", global_=global_) as tx:
            for part, amount in transfer(tx, global_=global_):
                part.execute(ADD, (amount,))


async def run_in_tasks(config: dualdb.DatabaseConfig, *, global_: bool) -> None:
    async with async_impl.DatabaseService(config, xa_grace=None) as db:
        async with db.shards([1, 2]).transaction(mode="xa", global_=global_) as tx:
            for part, amount in transfer(tx, global_=global_):
                await part.execute(ADD, (amount,))


def main(kind: str, number: str, moment: str, global_: str) -> None:
    steps = Steps(int(number), moment, lambda: os.kill(os.getpid(), signal.SIGKILL))
    steps.install(setattr)
    config = dualdb.DatabaseConfig.from_env()
    if kind == "sync":
        run_in_threads(config, global_=global_ == "global")
    else:
        asyncio.run(run_in_tasks(config, global_=global_ == "global"))


if __name__ == "__main__":
    main(*sys.argv[1:])
