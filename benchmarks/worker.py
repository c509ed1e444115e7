"""One contestant in a process of its own: ``python -m benchmarks.worker KEY``.

Commands come as JSON lines, answers go the same way.

In a process of its own nobody suffers from another's garbage, threads or shared
libraries.
"""

import sys

if sys.argv[1:] == ["mysql-connector"]:
    # Its C extension brings an OpenSSL of its own, and finds it only where Python's ssl
    # has not loaded the system's before it.
    try:
        import _mysql_connector  # noqa: F401
    except ImportError:
        pass

import asyncio
import contextlib
import gc
import hashlib
import json
import os
import threading
import time
from typing import Any, Awaitable, Callable, Dict, List, TextIO

from . import data
from .data import Server
from .peers import ASYNCIO, Peer, Unsupported, peers

Command = Dict[str, Any]
CHECKED_IDS = (1, 500, 1000)


def point_ids(count: int) -> List[int]:
    """Ids all over the table, the same for everybody."""
    return [number * 7919 % data.ACCOUNTS + 1 for number in range(count)]


class Resident:
    """The memory that this process has in use, in MB (of a million bytes)."""

    def __init__(self) -> None:
        gc.collect()
        # The high-water mark starts anew; what the imports needed is not the query's.
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")
        self._start = self._read("VmRSS")

    def grown(self) -> float:
        """How far it ever rose above the start."""
        # Less cannot be seen by this way of counting, and nothing is divided by zero.
        return max(0.1, self._read("VmHWM") - self._start)

    @staticmethod
    def _read(name: str) -> float:
        with open("/proc/self/status", encoding="ascii") as file:
            for line in file:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) * 1024 / 1e6
        raise Unsupported("this system does not show a process's memory")


class LongestCall:
    """The longest of a caller's calls, which follow each other without a pause.

    Attributes:
        seconds: how long it took.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self._began = time.perf_counter()

    def returned(self) -> None:
        """A call has returned, and the next begins."""
        now = time.perf_counter()
        self.seconds = max(self.seconds, now - self._began)
        self._began = now


class Work:
    """What is common to both implementations: what to call, with what."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self._formed: Dict[str, Any] = {}

    def arguments(self, command: Command) -> List[Any]:
        operation, count = command["op"], command["count"]
        if operation in ("point", "call"):
            return list(point_ids(count))
        if operation in data.WRITES:
            return [self.formed(operation)] * count
        return [command["argument"]] * count

    def formed(self, operation: str) -> Any:
        """What the contestant writes, made once."""
        if operation not in self._formed:
            write = data.WRITES[operation]
            self._formed[operation] = self.peer.form(write.rows(), write.columns)
        return self._formed[operation]

    def digest(self, operation: str, value: Any) -> str:
        """Equal where two contestants gave the same, types and all."""
        if operation in ("stream", *data.WRITES):
            return str(int(value))
        rows = [value] if operation == "point" else value
        plain = [sorted(self.peer.plain(row).items()) for row in rows]
        return hashlib.sha256(repr(plain).encode()).hexdigest()

    def questions(self) -> List["tuple[str, Any]"]:
        """What is asked of everybody before anything is timed."""
        asked = [(operation, id_) for operation in ("point", "call") for id_ in CHECKED_IDS]
        return [
            *asked,
            ("rows", 1000),
            ("typed", 1000),
            ("stream", 1000),
            *[(operation, self.formed(operation)) for operation in data.WRITES],
        ]


class Threads(Work):
    """Commands performed by a contestant of threads."""

    def open(self) -> None:
        self.peer.open()

    def close(self) -> None:
        self.peer.close()

    def check(self, command: Command) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        for operation, argument in self.questions():
            try:
                answer = self.digest(operation, getattr(self.peer, operation)(argument))
            except Exception as error:
                found[operation] = refusal(error)
            else:
                found.setdefault(operation, {"digest": ""})["digest"] += answer
        return found

    def batch(self, command: Command) -> Dict[str, Any]:
        call = getattr(self.peer, command["op"])
        arguments = self.arguments(command)
        # the caches are cold: others have been at work
        for argument in arguments[: len(arguments) // 20 + 1]:
            call(argument)
        gc.collect()
        started = time.perf_counter()
        for argument in arguments:
            call(argument)
        return {"seconds": (time.perf_counter() - started) / len(arguments)}

    def crowd(self, command: Command) -> Dict[str, Any]:
        callers, each = command["callers"], max(1, command["count"] // command["callers"])
        failures: List[Exception] = []
        longest: List[float] = []
        barrier = threading.Barrier(callers + 1)

        def work(number: int) -> None:
            ids = point_ids(each + number)[number:]
            barrier.wait()
            clock = LongestCall()
            try:
                for id_ in ids:
                    self.peer.point(id_)
                    clock.returned()
            except Exception as error:
                failures.append(error)
            longest.append(clock.seconds)

        threads = [threading.Thread(target=work, args=(number,)) for number in range(callers)]
        gc.collect()
        for thread in threads:
            thread.start()
        barrier.wait()
        started = time.perf_counter()
        for thread in threads:
            thread.join()
        seconds = time.perf_counter() - started
        if failures:
            raise failures[0]
        return {"seconds": seconds / (callers * each), "longest": max(longest)}

    def memory(self, command: Command) -> Dict[str, Any]:
        call = getattr(self.peer, command["op"])
        call(10)
        resident = Resident()
        started = time.perf_counter()
        answer = call(command["argument"])
        seconds = time.perf_counter() - started
        grown = resident.grown()
        del answer
        return {"seconds": seconds, "megabytes": grown}


class Asyncio(Work):
    """The same for a contestant of asyncio."""

    async def open(self) -> None:
        await self.peer.open()

    async def close(self) -> None:
        await self.peer.close()

    async def check(self, command: Command) -> Dict[str, Any]:
        found: Dict[str, Any] = {}
        for operation, argument in self.questions():
            try:
                answer = self.digest(operation, await getattr(self.peer, operation)(argument))
            except Exception as error:
                found[operation] = refusal(error)
            else:
                found.setdefault(operation, {"digest": ""})["digest"] += answer
        return found

    async def batch(self, command: Command) -> Dict[str, Any]:
        call = getattr(self.peer, command["op"])
        arguments = self.arguments(command)
        for argument in arguments[: len(arguments) // 20 + 1]:
            await call(argument)
        gc.collect()
        started = time.perf_counter()
        for argument in arguments:
            await call(argument)
        return {"seconds": (time.perf_counter() - started) / len(arguments)}

    async def crowd(self, command: Command) -> Dict[str, Any]:
        callers, each = command["callers"], max(1, command["count"] // command["callers"])

        async def work(ids: List[int]) -> float:
            clock = LongestCall()
            for id_ in ids:
                await self.peer.point(id_)
                clock.returned()
            return clock.seconds

        lists = [point_ids(each + number)[number:] for number in range(callers)]
        gc.collect()
        started = time.perf_counter()
        longest = await asyncio.gather(*[work(ids) for ids in lists])
        seconds = time.perf_counter() - started
        return {"seconds": seconds / (callers * each), "longest": max(longest)}

    async def memory(self, command: Command) -> Dict[str, Any]:
        call = getattr(self.peer, command["op"])
        await call(10)
        resident = Resident()
        started = time.perf_counter()
        answer = await call(command["argument"])
        seconds = time.perf_counter() - started
        grown = resident.grown()
        del answer
        return {"seconds": seconds, "megabytes": grown}


def refusal(error: Exception) -> Dict[str, str]:
    """Why there is no figure, in one line."""
    if isinstance(error, Unsupported):
        return {"missing": str(error)}
    if isinstance(error, ModuleNotFoundError):
        return {"missing": f"not installed ({error.name})"}
    first = (str(error).splitlines() or [""])[0]
    return {"missing": f"failed: {type(error).__name__}: {first}"[:200]}


def serve_threads(work: Threads, read: Callable[[], str], answer: Callable[[Any], None]) -> None:
    try:
        work.open()
        answer({"note": work.peer.note()})
    except Exception as error:
        answer(refusal(error))
        return
    for line in iter(read, ""):
        command = json.loads(line)
        try:
            answer(getattr(work, command["do"])(command))
        except Exception as error:
            answer(refusal(error))
    work.close()


async def serve_asyncio(
    work: Asyncio, read: Callable[[], str], answer: Callable[[Any], None]
) -> None:
    loop = asyncio.get_running_loop()

    async def next_line() -> str:
        # the loop lives on, and background tasks with it
        return await loop.run_in_executor(None, read)

    try:
        await work.open()
        answer({"note": work.peer.note()})
    except Exception as error:
        answer(refusal(error))
        return
    while True:
        line = await next_line()
        if not line:
            break
        command = json.loads(line)
        performed: Callable[[Command], Awaitable[Any]] = getattr(work, command["do"])
        try:
            answer(await performed(command))
        except Exception as error:
            answer(refusal(error))
    await work.close()


def main(key: str) -> None:
    # What a library prints must not come between the answers.
    out: TextIO = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(value: Any) -> None:
        out.write(json.dumps(value) + "\n")
        out.flush()

    from . import growth, scatter

    known = {**peers(), **{peer.key: peer for peer in (*scatter.PEERS, *growth.PEERS)}}
    # The address and its password come through the pipe: everybody can read a command
    # line.
    peer = known[key](Server(**json.loads(sys.stdin.readline())))
    with contextlib.suppress(BrokenPipeError):
        if peer.implementation == ASYNCIO:
            if peer.uvloop:
                try:
                    import uvloop
                except ImportError:
                    answer({"missing": "not installed (uvloop)"})
                    return
                uvloop.install()
            asyncio.run(serve_asyncio(Asyncio(peer), sys.stdin.readline, answer))
        else:
            serve_threads(Threads(peer), sys.stdin.readline, answer)


if __name__ == "__main__":
    main(sys.argv[1])
