"""The applications of the status page, called as a server calls them."""

import asyncio
import json
from typing import Any, Dict, List, Tuple

import pytest
from database_servers import Databases

from dualdb import AsyncDatabaseService, DatabaseService, ProgrammingError
from dualdb.integrations.status_page import asgi, asgi_app, snapshot, wsgi_app


class Client:
    """A client of an ASGI application that leaves when it has what it wants."""

    def __init__(self, wanted: int) -> None:
        self.left = asyncio.Event()
        self.sent: List[Dict[str, Any]] = []
        self._wanted = wanted
        self._requests = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive(self) -> Dict[str, Any]:
        for request in self._requests:
            return request
        await self.left.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if len(self.sent) == self._wanted:
            self.left.set()


def call(app: Any, scope: Any, wanted: int, *, leaves: bool = False) -> Client:
    """The client of this scope, which wants so many messages, and may leave at once."""

    async def run() -> Client:
        client = Client(wanted)
        if leaves:
            client.left.set()
        await app(scope, client.receive, client.send)
        return client

    return asyncio.run(run())


def http_scope(path: str) -> Dict[str, Any]:
    return {"type": "http", "method": "GET", "path": f"/s{path}", "root_path": "/s", "headers": []}


def test_a_stream_ends_when_its_client_leaves_or_after_a_while(
    databases: Databases, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "SAMPLE_INTERVAL", 0.01)

    async def run() -> None:
        async with AsyncDatabaseService(databases.config) as db:
            app = asgi_app(db, jobs=False)
            client = Client(4)
            await asyncio.wait_for(app(http_scope("/events"), client.receive, client.send), 20)
            assert client.sent[0]["status"] == 200
            assert all(each["more_body"] for each in client.sent[1:])
            monkeypatch.setattr(asgi, "STREAM_SECONDS", 0.05)
            patient = Client(10**9)
            await asyncio.wait_for(app(http_scope("/events"), patient.receive, patient.send), 20)
            assert patient.sent[-1] == {
                "type": "http.response.body", "body": b"", "more_body": False,
            }  # fmt: skip
            monkeypatch.setattr(asgi, "MOST_STREAMS", 0)
            refused = Client(10**9)
            await app(http_scope("/events"), refused.receive, refused.send)
            assert refused.sent[0]["status"] == 503

    asyncio.run(run())


def test_a_service_that_is_not_open_has_a_page_too(databases: Databases) -> None:
    app = wsgi_app(DatabaseService(databases.config))
    statuses: List[Tuple[str, Any]] = []

    def start_response(status: str, headers: Any, exc_info: Any = None) -> Any:
        statuses.append((status, headers))

    environ: Any = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "PATH_INFO": "/status.json"}
    (body,) = app(environ, start_response)
    found = json.loads(body)
    assert statuses[0][0] == "200 OK"
    assert (found["state"], found["databases"][0]["state"]) == ("not open", "not open")
    assert found["jobs_failure"]


def test_other_kinds_of_connections_are_not_taken(databases: Databases) -> None:
    app = asgi_app(AsyncDatabaseService(databases.config))
    with pytest.raises(ValueError, match="websocket"):
        call(app, {"type": "websocket"}, 1)


def test_alone_it_takes_part_in_the_lifespan_of_its_server(databases: Databases) -> None:
    app = asgi_app(AsyncDatabaseService(databases.config))
    client = call(app, {"type": "lifespan"}, 2, leaves=True)
    assert [each["type"] for each in client.sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


def test_jobs_are_shown_with_their_progress(databases: Databases) -> None:
    with DatabaseService(databases.config) as db:
        jobs = db.operations.jobs
        databases.run("global", "DROP TABLE IF EXISTS dualdb_job")

        def work(step: Any) -> Any:
            raise ValueError("canary")

        try:
            with pytest.raises(ValueError, match="canary"):
                jobs.run("backfill 2026", work, kind="backfill", params={"secret": "canary"})
            (body,) = wsgi_app(db)(
                {"REQUEST_METHOD": "GET", "PATH_INFO": "/status.json"}, lambda *response: print
            )
        finally:
            databases.run("global", "DROP TABLE IF EXISTS dualdb_job")
    assert b"canary" not in body
    (job,) = json.loads(body)["jobs"]
    assert (job["name"], job["kind"], job["state"]) == ("backfill 2026", "backfill", "failed")
    assert job["updated_at"].endswith(" UTC")


def test_samples_go_back_in_time(databases: Databases) -> None:
    with DatabaseService(databases.config) as db:
        now = 1000.0
        recorder = snapshot.Recorder(db, lambda: now)
        recorder.snapshot()
        now += 10.5
        with db.shard(1).transaction():
            found = recorder.snapshot()["databases"]
        now += 1e6
        later = recorder.snapshot()["databases"]
    assert [each["in_use"] for each in found] == [[0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 1], [0] * 6]
    assert {len(each["in_use"]) for each in later} == {snapshot.MOST_SAMPLES}


def test_equal_errors_are_one_line(databases: Databases) -> None:
    with DatabaseService(databases.config) as db:
        recorder = snapshot.Recorder(db)
        for number in range(70):
            for _ in range(2):
                with pytest.raises(ProgrammingError):
                    db.query(f"SELECT 'canary' FROM absent_{number}")
        with pytest.raises(ProgrammingError):
            db.query("SELECT 'other' FROM absent_30")
        rows = recorder.snapshot()["errors"]
        recorder.close()
    assert len(rows) == snapshot.MOST_ERRORS
    assert (rows[0]["times"], rows[1]["times"]) == (3, 2)
    assert rows[0]["statement"] == "SELECT ? FROM absent_30"
