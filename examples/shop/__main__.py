"""Start everything: servers, a Celery worker, a web server. Ctrl-C stops it.

``python examples/shop`` needs ``pip install 'dualdb[fastapi,celery]' uvicorn`` and a
MariaDB or MySQL server program. With ``redis-server`` on PATH tasks travel through
Redis (``pip install redis``), otherwise through files.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from typing import Dict, Iterator

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

import schema  # noqa: E402

from dualdb.sandbox import Sandbox  # noqa: E402
from dualdb.sandbox.server import free_port  # noqa: E402


def main() -> None:
    """Run the application."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, help="of the page; a free one by default")
    port = parser.parse_args().port
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(0))
    with contextlib.suppress(KeyboardInterrupt), contextlib.ExitStack() as stack:
        print("starting three database servers ...", flush=True)
        sandbox = stack.enter_context(Sandbox(shards=2))
        schema.create(sandbox)
        port = port or free_port(sandbox)
        variables = environment(sandbox, stack)
        stack.enter_context(running(variables, "celery", "-A", "shop.jobs", "worker", "-c", "2"))
        web = ["uvicorn", "shop.app:app", "--port", str(port), "--log-level", "warning"]
        stack.enter_context(running(variables, *web))
        wait_for(f"http://127.0.0.1:{port}/")
        print(f"open http://127.0.0.1:{port}/ in a browser; Ctrl-C stops it", flush=True)
        signal.pause()


def environment(sandbox: Sandbox, stack: contextlib.ExitStack) -> Dict[str, str]:
    """What the processes are told: the global database, and the broker of tasks."""
    path = os.pathsep.join(sys.path[:2])
    broker = ""
    if shutil.which("redis-server") and importlib.util.find_spec("redis"):
        port = str(free_port(stack))
        where = ["--port", port, "--bind", "127.0.0.1", "--save", "", "--loglevel", "warning"]
        process = subprocess.Popen(
            ["redis-server", *where, "--dir", sandbox.directory], stdout=subprocess.DEVNULL
        )
        stack.callback(process.wait)
        stack.callback(process.terminate)
        broker = f"redis://127.0.0.1:{port}/0"
    return {
        **os.environ,
        "DUALDB_URL": sandbox.url,
        "BROKER_URL": broker,
        "BROKER_DIRECTORY": sandbox.directory,
        "PYTHONPATH": path,
    }


@contextlib.contextmanager
def running(variables: Dict[str, str], *command: str) -> "Iterator[subprocess.Popen[bytes]]":
    """A Python program, until the end of the block."""
    out = subprocess.DEVNULL if command[0] == "celery" else None
    with subprocess.Popen(
        [sys.executable, "-m", *command], env=variables, stdout=out, stderr=out
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def wait_for(address: str) -> None:
    """Wait until the page is served."""
    for _ in range(300):
        with contextlib.suppress(OSError), urllib.request.urlopen(address, timeout=5):
            return
        time.sleep(0.1)
    raise SystemExit(f"{address} does not answer")


if __name__ == "__main__":
    main()
