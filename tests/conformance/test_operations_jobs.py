"""Durable jobs: one worker at a time, taken over, paused, resumed."""

import asyncio
import datetime
from typing import Any, Callable, Iterator, List

import pytest
from waiting import wait_for

from dualdb import ParameterError, ProgrammingError
from dualdb.operations import Job, JobLost, JobState, JobStep, JobTaken

#: They make and compare many tables.
pytestmark = pytest.mark.slow


@pytest.fixture
def jobs(db: Any, databases: Any) -> Iterator[Any]:
    databases.run("global", "DROP TABLE IF EXISTS dualdb_job")
    yield db.operations.jobs
    databases.run("global", "DROP TABLE IF EXISTS dualdb_job")


def counter(io: Any, upto: int, seen: List[Any], then: Callable[[Job], Any] = bool) -> Any:
    """A function that counts up to a number, a step for each."""

    def step(job: Job) -> JobStep:
        at = job.position or 0
        seen.append(at)
        then(job)
        following = at + 1 if at + 1 < upto else None
        return JobStep(following, done=1, total=upto, message=f"at {at}")

    async def step_async(job: Job) -> JobStep:
        return step(job)

    return step if io.name == "sync" else step_async


def lease_is_over(databases: Any) -> None:
    databases.run(
        "global", "UPDATE dualdb_job SET lease_until = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
    )


def test_a_job_is_done_step_by_step_and_once(jobs: Any, io: Any) -> None:
    seen: List[Any] = []
    job = io(jobs.run("count", counter(io, 3, seen), kind="test", params={"a": [1]}))
    assert (job.state, job.done, job.total, job.message) == (JobState.DONE, 3, 3, "at 2")
    assert (job.kind, job.params, job.owner, seen) == ("test", {"a": [1]}, None, [0, 1, 2])
    assert io(jobs.run("count", counter(io, 3, seen))).state is JobState.DONE
    assert seen == [0, 1, 2]
    assert [each.name for each in io(jobs.list())] == ["count"]
    assert io(jobs.list(state="running")) == []
    assert io(jobs.get("count")) == io(jobs.list(kind="test"))[0]
    assert io(jobs.get("other")) is None


def test_no_jobs_are_no_error(jobs: Any, io: Any) -> None:
    assert io(jobs.list()) == []
    assert io(jobs.get("x")) is None


def test_two_workers_never_run_one_job(jobs: Any, io: Any, open_service: Any) -> None:
    other = open_service().operations.jobs
    refused: List[Any] = []

    def meanwhile(job: Job) -> None:
        if io.name == "sync" and not refused:
            with pytest.raises(JobTaken):
                other.run("count", counter(io, 3, []))
            refused.append(job)

    seen: List[Any] = []
    io(jobs.run("count", counter(io, 3, seen, meanwhile)))
    assert seen == [0, 1, 2]
    results = io.concurrently(
        [lambda: jobs.run("both", counter(io, 20, seen), wait=True, throttle=0.01)] * 4
    )
    assert {each.state for each in results} == {JobState.DONE}
    assert seen[3:] == list(range(20))


def test_a_job_whose_lease_is_over_is_taken_over(jobs: Any, io: Any, databases: Any) -> None:
    seen: List[Any] = []
    io(jobs.run("count", counter(io, 9, seen), max_steps=2))
    assert io(jobs.get("count")).state is JobState.READY
    databases.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', owner = 'dead', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    with pytest.raises(JobTaken, match="dead"):
        io(jobs.run("count", counter(io, 9, seen)))
    lease_is_over(databases)
    assert io(jobs.run("count", counter(io, 4, seen))).state is JobState.DONE
    assert seen == [0, 1, 2, 3]


def test_whoever_has_lost_its_lease_gets_an_error(jobs: Any, io: Any, databases: Any) -> None:
    def stolen(job: Job) -> None:
        databases.run("global", "UPDATE dualdb_job SET epoch = epoch + 1, owner = 'other'")

    with pytest.raises(JobLost):
        io(jobs.run("count", counter(io, 3, [], stolen)))
    job = io(jobs.get("count"))
    assert (job.state, job.owner, job.done) == (JobState.RUNNING, "other", 0)


def waiting_step(io: Any, condition: Callable[[Job], bool], then: Callable[[Job], Any]) -> Any:
    """A function of one step, which lasts until the condition holds."""

    def step(job: Job) -> JobStep:
        wait_for(lambda: condition(job))
        then(job)
        return JobStep(done=1)

    async def step_async(job: Job) -> JobStep:
        return await asyncio.to_thread(step, job)

    return step if io.name == "sync" else step_async


def test_a_lease_is_renewed_while_a_step_runs(jobs: Any, io: Any, databases: Any) -> None:
    started: List[Any] = []

    def has_outlived_its_lease(job: Job) -> bool:
        found = databases.run("global", "SELECT lease_until AS l FROM dualdb_job")[0]["l"]
        started.append(found)
        return bool(found - started[0] > datetime.timedelta(seconds=0.6))

    held: List[bool] = []
    step = waiting_step(
        io, has_outlived_its_lease, lambda job: held.append(job.lease is None or job.lease.lost)
    )
    job = io(jobs.run("long", step, lease=0.5))
    assert (job.state, held, job.epoch) == (JobState.DONE, [False], 1)


def test_a_step_can_learn_that_its_lease_is_lost(jobs: Any, io: Any, databases: Any) -> None:
    def lost(job: Job) -> bool:
        databases.run("global", "UPDATE dualdb_job SET epoch = 7, owner = 'other'")
        return bool(job.lease and job.lease.lost)

    checked: List[Any] = []

    def then(job: Job) -> None:
        assert job.lease is not None
        with pytest.raises(JobLost, match="'long'"):
            job.lease.check()
        checked.append(job)

    with pytest.raises(JobLost):
        io(jobs.run("long", waiting_step(io, lost, then), lease=0.3))
    assert len(checked) == 1
    assert "lease" not in checked[0].to_dict()
    assert io(jobs.get("long")).owner == "other"


def test_a_lease_that_cannot_be_renewed_is_lost_in_time(jobs: Any, io: Any, databases: Any) -> None:
    def lost(job: Job) -> bool:
        databases.run("global", "DROP TABLE IF EXISTS dualdb_job")
        return bool(job.lease and job.lease.lost)

    with pytest.raises(ProgrammingError):
        io(jobs.run("long", waiting_step(io, lost, bool), lease=0.3))


@pytest.mark.parametrize(
    ("change", "state"), [("pause", JobState.PAUSED), ("cancel", JobState.CANCELLED)]
)
def test_a_running_job_stops_after_its_step(
    jobs: Any, io: Any, databases: Any, change: str, state: JobState
) -> None:
    def ask(job: Job) -> None:
        if job.position == 1:
            databases.run("global", f"UPDATE dualdb_job SET {change}_requested = 1")

    seen: List[Any] = []
    job = io(jobs.run("count", counter(io, 5, seen, ask)))
    assert (job.state, job.position, seen) == (state, 2, [0, 1])
    assert io(jobs.run("count", counter(io, 5, seen))).state is state
    assert io(jobs.resume("count")).state is JobState.READY
    assert io(jobs.run("count", counter(io, 5, seen))).state is JobState.DONE
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("change", ["pause", "cancel"])
def test_one_that_somebody_runs_is_asked_and_another_is_stopped(
    jobs: Any, io: Any, databases: Any, change: str
) -> None:
    io(jobs.run("count", counter(io, 5, []), max_steps=1))
    stopped = io(getattr(jobs, change)("count"))
    assert stopped.state in (JobState.PAUSED, JobState.CANCELLED)
    databases.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', owner = 'x', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    assert io(getattr(jobs, change)("count")).state is JobState.RUNNING
    assert databases.value("global", f"SELECT {change}_requested FROM dualdb_job") == 1
    lease_is_over(databases)
    assert io(getattr(jobs, change)("count")).state is stopped.state


def test_a_step_that_fails_is_reported_and_can_be_repeated(jobs: Any, io: Any) -> None:
    def fail(job: Job) -> None:
        if job.position == 1 and len(seen) == 2:
            raise ZeroDivisionError("so it is")

    seen: List[Any] = []
    with pytest.raises(ZeroDivisionError):
        io(jobs.run("count", counter(io, 3, seen, fail)))
    job = io(jobs.get("count"))
    assert (job.state, job.message) == (JobState.FAILED, "ZeroDivisionError: so it is")
    assert io(jobs.run("count", counter(io, 3, seen, fail))).state is JobState.DONE
    assert seen == [0, 1, 1, 2]


def test_throttle_delete_and_what_is_refused(jobs: Any, io: Any, databases: Any) -> None:
    io(jobs.run("count", counter(io, 5, []), max_steps=1))
    assert io(jobs.throttle("count", 0.5)).throttle == 0.5
    databases.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', owner = 'x', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    with pytest.raises(ParameterError, match="run by x"):
        io(jobs.delete("count"))
    lease_is_over(databases)
    assert io(jobs.delete("count", dry_run=True)).name == "count"
    io(jobs.delete("count"))
    assert io(jobs.list()) == []
    for call in (jobs.pause, jobs.resume, jobs.cancel, jobs.delete):
        with pytest.raises(ParameterError, match="no job"):
            io(call("count"))
    with pytest.raises(ParameterError, match="name"):
        io(jobs.run("", counter(io, 1, [])))
    with pytest.raises(ParameterError, match="lease"):
        io(jobs.run("x", counter(io, 1, []), lease=0))
    with pytest.raises(ParameterError, match="JSON"):
        io(jobs.run("x", counter(io, 1, []), params=object()))
    with pytest.raises(ParameterError, match="JobStep"):
        io(jobs.run("x", lambda job: None))
    io(jobs.run("y", counter(io, 1, [])))
    with pytest.raises(ParameterError, match="done"):
        io(jobs.resume("y"))


def test_a_dry_run_refuses_what_cannot_be_done_and_changes_nothing(
    jobs: Any, io: Any, databases: Any
) -> None:
    io(jobs.run("count", counter(io, 5, []), max_steps=1))
    before = io(jobs.get("count"))
    for call in (jobs.pause, jobs.cancel, jobs.resume, jobs.delete):
        assert io(call("count", dry_run=True)) == before
        with pytest.raises(ParameterError, match="no job"):
            io(call("other", dry_run=True))
    assert io(jobs.throttle("count", 7, dry_run=True)) == before
    assert io(jobs.get("count")) == before
    io(jobs.run("count", counter(io, 5, [])))
    for call in (jobs.pause, jobs.cancel, jobs.resume):
        with pytest.raises(ParameterError, match="is done"):
            io(call("count", dry_run=True))
    databases.run(
        "global",
        "UPDATE dualdb_job SET state = 'running', owner = 'x', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL 60 SECOND",
    )
    with pytest.raises(ParameterError, match="run by x"):
        io(jobs.delete("count", dry_run=True))


def test_a_lease_is_waited_for_no_longer_than_asked(jobs: Any, io: Any, databases: Any) -> None:
    seen: List[Any] = []
    io(jobs.run("count", counter(io, 9, seen), max_steps=2))
    held = (
        "UPDATE dualdb_job SET state = 'running', owner = 'other', "
        "lease_until = UTC_TIMESTAMP(6) + INTERVAL {} SECOND"
    )
    databases.run("global", held.format(60))
    with pytest.raises(JobTaken, match="run by other, whose lease is over in (59|60) s"):
        io(jobs.run("count", counter(io, 9, seen), wait=0.1))
    databases.run("global", held.format(0.2))
    assert io(jobs.run("count", counter(io, 4, seen), wait=60)).state is JobState.DONE
    for wrong in (-1, "1", None, float("nan")):
        with pytest.raises(ParameterError):
            io(jobs.run("count", counter(io, 9, seen), wait=wrong))
