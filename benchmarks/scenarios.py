"""What is measured, and the running of it."""

import collections
import contextlib
import datetime
import os
import platform
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

from dualdb.sandbox import Sandbox

from . import data, growth
from .data import Server, server_of
from .measure import interleaved
from .peers import NOT_ASKED, peers, python, versions
from .results import Results
from .scatter import PEERS as SCATTER
from .workers import Refused, Worker

#: What --only takes.
GROUPS = (
    "point",
    "rows1000",
    "typed",
    "insert",
    "update",
    "call",
    "callers",
    "memory",
    "scatter",
    "growth",
)

SHARDS = (1, 2, 4, 8)
#: How many calls each of a crowd makes at least: so the longest call tells whether its
#: caller has waited for one call of each of the others, or for all of theirs.
CALLS_OF_EACH = 5
TRIVIAL, SLEEPING = "SELECT 1 AS one", "SELECT SLEEP(0.05) AS slept"


class Scenario(NamedTuple):
    """One command, which every contestant performs."""

    key: str
    group: str
    operation: str
    command: Dict[str, Any]


SCENARIOS = [
    Scenario("point", "point", "point", {"do": "batch", "op": "point"}),
    Scenario("rows1000", "rows1000", "rows", {"do": "batch", "op": "rows", "argument": 1000}),
    Scenario("typed", "typed", "typed", {"do": "batch", "op": "typed", "argument": 1000}),
    Scenario("insert", "insert", "insert", {"do": "batch", "op": "insert"}),
    Scenario("update", "update", "update", {"do": "batch", "op": "update"}),
    Scenario("call", "call", "call", {"do": "batch", "op": "call"}),
    *[
        Scenario(f"callers{number}", "callers", "point", {"do": "crowd", "callers": number})
        for number in growth.CALLERS
    ],
]
MEMORY = [
    Scenario(
        "rows100000", "memory", "rows", {"do": "memory", "op": "rows", "argument": data.TRADES}
    ),
    Scenario(
        "stream100000",
        "memory",
        "stream",
        {"do": "memory", "op": "stream", "argument": data.TRADES},
    ),
]


class Plan(NamedTuple):
    """How much is done.

    Attributes:
        rounds: of the short batches.
        memory_rounds: of whole processes.
        seconds: how long a batch is to take.
    """

    groups: Tuple[str, ...] = GROUPS
    rounds: int = 30
    memory_rounds: int = 5
    seconds: float = 0.1


def run(plan: Plan, say: Callable[[str], None]) -> Results:
    """Measure what the plan asks for, on servers that are started for it."""
    results = Results(rounds=plan.rounds)
    results.machine = machine()
    simple = [scenario for scenario in SCENARIOS if scenario.group in plan.groups]
    if simple or {"memory", "growth"} & set(plan.groups):
        say("starting a server, and filling it")
        with Sandbox(0, options=["--max-connections=4000"]) as sandbox:
            data.create(sandbox)
            results.machine["server"] = str(
                sandbox.run("global", "SELECT VERSION() AS version")[0]["version"]
            )
            server = server_of(sandbox)
            if simple:
                with contextlib.closing(Field(sandbox, server, results, say)) as field:
                    field.open(simple)
                    for scenario in simple:
                        field.measure(scenario, plan)
            if "memory" in plan.groups:
                for scenario in MEMORY:
                    measure_memory(scenario, plan, server, results, say)
            if "growth" in plan.groups:
                growth.measure(plan.memory_rounds, sandbox, server, results, say)
    if "scatter" in plan.groups:
        say(f"starting {max(SHARDS)} shards")
        with Sandbox(max(SHARDS)) as sandbox:
            measure_scatter(plan, server_of(sandbox), results, say)
    results.machine["load after"] = load()
    return results


class Field:
    """All contestants of one server, each in its process."""

    def __init__(
        self, sandbox: Sandbox, server: Server, results: Results, say: Callable[[str], None]
    ) -> None:
        self._sandbox, self._server, self._results, self._say = sandbox, server, results, say
        self._workers: Dict[str, Worker] = {}
        #: By contestant and operation: why it takes no part.
        self._out: Dict[str, Dict[str, str]] = collections.defaultdict(dict)

    def open(self, scenarios: List[Scenario]) -> None:
        """Start everybody and ask everybody the same questions: who answers otherwise
        takes no part in that.
        """
        operations = {scenario.operation for scenario in scenarios}
        answers: Dict[str, Dict[str, Any]] = {}
        for key, peer in peers().items():
            try:
                self._workers[key] = Worker(key, self._server)
                note_peer(self._results, key, peer, self._workers[key].note)
                answers[key] = {} if peer.floor else self._checked(self._workers[key])
            except Refused as error:
                self._say(f"  {peer.title} ({peer.implementation}): {error}")
                self._out[key] = dict.fromkeys((*operations, "open"), str(error))
        self._out.update(differences(answers, self._out))
        for key, reasons in self._out.items():
            for operation in operations & set(reasons):
                if "open" not in reasons and reasons[operation] != NOT_ASKED:
                    self._say(f"  {key}: no {operation}: {reasons[operation]}")

    def _checked(self, worker: Worker) -> Dict[str, Any]:
        """A contestant's answers. Of what it has written, the tables have the last
        word.
        """
        answers = worker.ask({"do": "check"})
        for operation, write in data.WRITES.items():
            (content,) = self._sandbox.run("global", write.content)
            if "digest" in answers[operation]:
                answers[operation]["digest"] += f" {content['found']} {content['digest']}"
            self._reset(operation)
        return answers

    def close(self) -> None:
        for worker in self._workers.values():
            worker.close()

    def measure(self, scenario: Scenario, plan: Plan) -> None:
        self._say(scenario.key)
        missing = self._results.missing.setdefault(scenario.key, {})
        counts: Dict[str, int] = {}
        for key, peer in peers().items():
            if peer.only and scenario.key not in peer.only:
                continue
            reason = self._out[key].get(scenario.operation)
            if reason is None and scenario.command["do"] == "crowd" and not peer.pooled:
                reason = NOT_ASKED if peer.floor else "has no pool, or none that lets callers wait"
            if reason is None:
                try:
                    counts[key] = self._count(key, scenario, plan.seconds)
                except Refused as error:
                    reason = str(error)
            if reason is not None:
                missing[key] = reason

        def once(key: str) -> Dict[str, Any]:
            answer = self._workers[key].ask({**scenario.command, "count": counts[key]})
            self._reset(scenario.operation)
            return answer

        answers = interleaved(counts, plan.rounds, once, missing)
        self._results.tables[scenario.key] = {
            key: [each["seconds"] for each in found] for key, found in answers.items()
        }
        if scenario.command["do"] == "crowd":
            self._results.tables[longest_of(scenario.key)] = {
                key: [each["longest"] for each in found] for key, found in answers.items()
            }

    def _count(self, key: str, scenario: Scenario, seconds: float) -> int:
        """How many calls take so long: a first guess, which also warms up, and a
        second.
        """
        count = 200 if scenario.operation in ("point", "call") else 2
        for _ in range(2):
            took = self._workers[key].ask({**scenario.command, "count": count})["seconds"]
            least = scenario.command.get("callers", 0) * CALLS_OF_EACH
            count = max(1, least, min(20_000, round(seconds / took)))
        self._reset(scenario.operation)
        return count

    def _reset(self, operation: str) -> None:
        """Make the table that an operation writes as it was."""
        if operation in data.WRITES:
            self._sandbox.run("global", data.WRITES[operation].reset)


def longest_of(scenario: str) -> str:
    """The table of the longest calls of a crowd."""
    return f"{scenario}-longest"


def note_peer(results: Results, key: str, peer: Any, note: str) -> None:
    if note:
        results.notes[key] = note
    results.versions.update(versions(peer))


def differences(
    answers: Dict[str, Dict[str, Any]], out: Dict[str, Dict[str, str]]
) -> Dict[str, Dict[str, str]]:
    """By contestant and operation: what it could not do, or did otherwise than most."""
    found: Dict[str, Dict[str, str]] = {key: dict(reasons) for key, reasons in out.items()}
    for operation in sorted({operation for answer in answers.values() for operation in answer}):
        given = {
            key: answer[operation]["digest"]
            for key, answer in answers.items()
            if "digest" in answer.get(operation, {})
        }
        for key, answer in answers.items():
            if "missing" in answer.get(operation, {}):
                found.setdefault(key, {})[operation] = answer[operation]["missing"]
        if given:
            usual = collections.Counter(given.values()).most_common(1)[0][0]
            for key, digest in given.items():
                if digest != usual:
                    found.setdefault(key, {})[operation] = "its answer is not the others'"
    return found


def measure_memory(
    scenario: Scenario, plan: Plan, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    say(f"{scenario.key}, with its memory")
    missing = results.missing.setdefault(scenario.key, {})
    # A floor has to learn how long an answer is, and in a fresh process that would be
    # timed.
    field = {
        key: peer
        for key, peer in peers().items()
        if not peer.floor and (not peer.only or scenario.key in peer.only)
    }

    def once(key: str) -> Dict[str, Any]:
        with contextlib.closing(Worker(key, server)) as worker:
            note_peer(results, key, field[key], worker.note)
            return worker.ask(scenario.command)

    answers = interleaved(field, plan.memory_rounds, once, missing)
    results.tables[scenario.key] = {
        key: [each["seconds"] for each in found] for key, found in answers.items()
    }
    results.tables[f"{scenario.key}-memory"] = {
        key: [each["megabytes"] for each in found] for key, found in answers.items()
    }


def scatter_key(peer: str, way: str, shards: int) -> str:
    return f"{peer}/{way}/{shards}"


def measure_scatter(
    plan: Plan, server: Server, results: Results, say: Callable[[str], None]
) -> None:
    with contextlib.ExitStack() as stack:
        workers = {
            peer.key: stack.enter_context(contextlib.closing(Worker(peer.key, server)))
            for peer in SCATTER
        }
        for peer in SCATTER:
            results.versions.update(versions(peer))
        for name, sql, count in (
            ("scatter-trivial", TRIVIAL, max(1, round(plan.seconds / 0.002))),
            ("scatter-sleep", SLEEPING, 1),
        ):
            say(name)
            asked = {
                scatter_key(peer.key, way, shards): (
                    peer.key,
                    {"do": "batch", "op": way, "argument": [shards, sql], "count": count},
                )
                for peer in SCATTER
                for way in ("at_once", "in_turn")
                for shards in SHARDS
            }

            def once(
                key: str, asked: Dict[str, Tuple[str, Dict[str, Any]]] = asked
            ) -> Dict[str, Any]:
                worker, command = asked[key]
                return workers[worker].ask(command)

            rounds = plan.rounds if name == "scatter-trivial" else plan.memory_rounds
            answers = interleaved(asked, rounds, once, results.missing.setdefault(name, {}))
            results.tables[name] = {
                key: [each["seconds"] for each in found] for key, found in answers.items()
            }


def machine() -> Dict[str, str]:
    """By what it is, not by its name."""
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "processor": processor(),
        "processors": str(os.cpu_count()),
        "system": (
            f"{platform.system()} "
            f"{'.'.join(platform.release().split('-')[0].split('.')[:2])}, "
            f"{platform.machine()}"
        ),
        "python": python(),
        "load before": load(),
    }


def processor() -> str:
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def load() -> str:
    return f"{os.getloadavg()[0]:.1f}"
