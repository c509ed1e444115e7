"""The example application, started as a newcomer starts it."""

import json
import pathlib
import re
import signal
import subprocess
import sys
from typing import Iterator

import httpx
import pytest
from waiting import wait_for

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    command = [sys.executable, str(EXAMPLES / "shop")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline() for _ in range(2)]
            found = re.search(r"open (http\S+)/ in a browser", lines[1])
            assert found, lines
            yield found[1]
        finally:
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0


def test_it_does_what_its_page_offers(address: str) -> None:
    with httpx.Client(base_url=address, timeout=30) as ann, httpx.Client(base_url=address) as bob:
        assert "shop on dualdb" in ann.get("/").text
        assert ann.get("/portfolio").status_code == 401
        assert ann.post("/sign-up?email=ann@example.com").json()["shard_id"] == 1
        assert bob.post("/sign-up?email=bob@example.com").json()["shard_id"] == 2
        assert ann.post("/sign-up?email=ann@example.com").json()["shard_id"] == 1
        assert ann.post("/buy?symbol=abc&quantity=3").json() == {"trade": 1, "database": "shard 1"}
        assert bob.post("/buy?symbol=ABC&quantity=4").json()["database"] == "shard 2"
        assert ann.get("/portfolio").json() == [{"symbol": "ABC", "quantity": 3}]
        assert ann.get("/totals").json() == [{"symbol": "ABC", "quantity": 7}]
        assert json.loads(bob.get("/export").text) == {"id": 1, "symbol": "ABC", "quantity": 4}
        task = bob.post("/report").json()["id"]
        found = wait_for(lambda: bob.get(f"/report/{task}").json()["report"], 60)
        assert found == {"trades": 1, "quantity": 4, "database": "shard 2"}
        assert ann.post("/buy?symbol=ABC&quantity=many").status_code == 422
