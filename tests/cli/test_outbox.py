"""``outbox``: events seen, delivered, and given another chance."""

import pathlib
import signal
import subprocess
import sys
from typing import Any, List

import pytest
from cli_command import Command
from waiting import wait_for

from dualdb import DatabaseService

HANDLERS = """\
def handle(event):
    with open("seen", "a") as file:
        file.write(f"{event.topic} {event.payload}\\n")

def refuse(event):
    raise ValueError("not today")
"""


def publish(cli: Command, *payloads: Any, shard_id: int = 1) -> List[str]:
    with DatabaseService(cli.sandbox.config) as db, db.shard(shard_id).transaction() as tx:
        return [tx.outbox("trade", each, key=7) for each in payloads]


@pytest.fixture
def shop(cli: Command, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    (tmp_path / "handlers.py").write_text(HANDLERS)
    monkeypatch.delitem(sys.modules, "handlers", raising=False)
    cli("init")
    return cli


def test_events_are_counted_and_delivered(shop: Command, tmp_path: pathlib.Path) -> None:
    publish(shop, 1, 2)
    publish(shop, 3, shard_id=2)
    found = shop.json("outbox", "status")
    assert {each["database"]: each["pending"] for each in found["databases"]} == {
        "global": 0, "1": 2, "2": 1,
    }  # fmt: skip
    assert "shard 1" in shop("outbox", "status").stdout
    consume = ("outbox", "consume", "--handler", "handlers:handle", "--until-idle")
    assert shop.json(*consume, "--dry-run")["events"] == 3
    assert "would deliver 3 events" in shop(*consume, "--dry-run").stdout
    assert not (tmp_path / "seen").exists()
    assert shop.json(*consume) == {
        "ok": True, "delivered": 3, "failed": 0, "dead": 0, "errors": {},
    }  # fmt: skip
    assert "delivered 0, failed 0, given up 0" in shop(*consume).stdout
    assert sorted((tmp_path / "seen").read_text().splitlines()) == [
        "trade 1", "trade 2", "trade 3",
    ]  # fmt: skip
    planned = shop.json("outbox", "sweep", "--retention", "0", "--dry-run")
    assert (planned["events"], planned["dry_run"]) == (3, True)
    assert shop.json("outbox", "sweep", "--retention", "0")["events"] == 3


def test_what_was_given_up_is_shown_and_requeued(shop: Command) -> None:
    ids = publish(shop, 1, 2)
    assert "no event" in shop("outbox", "dead").stdout
    refuse = ("outbox", "consume", "--handler", "handlers:refuse", "--until-idle")
    assert shop.json(*refuse, "--max-attempts", "2")["failed"] == 1  # it comes again
    shop.sandbox.run(1, "UPDATE dualdb_outbox_retry SET retry_at = '2000-01-01'")
    given_up = shop.json(*refuse, "--max-attempts", "1", code=1)
    assert (given_up["dead"], given_up["errors"]) == (2, {})
    found = shop.json("outbox", "dead")["events"]
    assert [each["id"] for each in found] == ids
    assert "ValueError: not today" in shop("outbox", "dead").stdout
    assert shop.json("outbox", "status", code=1)["databases"][1]["dead"] == 2
    shop("outbox", "requeue", code=2)
    planned = shop.json("outbox", "requeue", ids[0], "--dry-run")
    assert (planned["events"], planned["dry_run"]) == (1, True)
    assert shop.json("outbox", "requeue", ids[0])["events"] == 1
    assert shop.json("outbox", "requeue", ids[0], code=1)["events"] == 0
    assert "1 event of these" in shop("outbox", "requeue", ids[0], "--dry-run", code=1).stderr
    assert shop.json("outbox", "requeue", "--all")["events"] == 1
    assert shop.json("outbox", "dead") == {"ok": True, "events": [], "errors": {}}
    assert "dualdb outbox dead" in shop(*refuse, "--max-attempts", "1", code=1).stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_after_the_event_it_is_at(
    shop: Command, tmp_path: pathlib.Path, number: signal.Signals
) -> None:
    publish(shop, 1)
    arguments = ["outbox", "consume", "--handler", "handlers:handle", "--url", shop.sandbox.url]
    process = subprocess.Popen(
        [sys.executable, "-m", "dualdb", *arguments],
        cwd=tmp_path,
        env={"PYTHONPATH": str(pathlib.Path(__file__).parents[2])},
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        wait_for((tmp_path / "seen").exists, 60)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "delivered 1, failed 0, given up 0\n")
