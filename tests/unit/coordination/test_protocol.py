"""Two-phase commit in a model of the servers: every order, every failure.

What runs is the package's own plans; see ``xa_model``.
"""

from typing import Any, Iterator, List, Optional

import pytest
from xa_model import (
    CRASH,
    GTRID,
    NO_FAULT,
    REPLY_LOST,
    Actor,
    Choices,
    Fault,
    Model,
    explore,
    faults,
    run_to_end,
)

from dualdb.coordination import decision_log, protocol

KINDS = pytest.mark.parametrize("mariadb", [True, False], ids=["mariadb", "mysql"])
PARTS = pytest.mark.parametrize("global_part", [False, True], ids=["shards", "global too"])


class Run:
    """One run: a coordinator, at most one fault, and recoveries in between.

    Args:
        model: The servers.
        choices: What decides.
        recoveries: How many recoveries begin at any step.
        switches: How often another than the last actor goes on, while both could.
        members: The plans that are gathered run in any order, and not the first one
            first.
        most_faults: How many there are.
    """

    def __init__(
        self,
        model: Model,
        choices: Choices,
        *,
        recoveries: int = 0,
        switches: int = 0,
        members: bool = False,
        most_faults: int = 1,
    ) -> None:
        self.model = model
        self._choices = choices
        self._recoveries = recoveries
        self._switches = switches
        self._members = members
        self._faults = most_faults
        self.coordinator: Optional[Actor] = Actor("coordinator", model.commit())
        self.outcome: Optional[protocol.Outcome] = None
        self._others: List[Actor] = []
        self._last: Any = self.coordinator

    def to_end(self) -> None:
        while True:
            actors = [each for each in self._actors() if each.leaves()]
            if not actors and not self._recoveries:
                break
            actor = self._next_actor(actors)
            if actor is None:
                break
            self._step(actor)
        self.model.close_sessions()
        for _ in range(2):  # the second deletes what the first has finished
            run_to_end(self.model, Actor("recovery", self.model.recover()))
        self.model.check(self.outcome)

    def _actors(self) -> Iterator[Actor]:
        if self.coordinator is not None:
            yield self.coordinator
        yield from self._others

    def _next_actor(self, actors: List[Actor]) -> Optional[Actor]:
        """The last one, or another while there are switches left."""
        current: Optional[Actor] = self._last if self._last in actors else None
        if current is not None and not self._switches:
            return current
        options: List[Any] = [current] if current is not None else []
        options += [each for each in actors if each is not current]
        if self._recoveries:
            options.append("new")
        if not actors:
            options.append(None)
        option = options[self._choices.choose(len(options))] if len(options) > 1 else options[0]
        if option is None:
            return None
        if option == "new":
            self._recoveries -= 1
            self._others.append(Actor("recovery", self.model.recover()))
        chosen: Actor = self._others[-1] if option == "new" else option
        if current is not None and chosen is not current:
            self._switches -= 1
        self._last = chosen
        return chosen

    def _step(self, actor: Actor) -> None:
        leaves = actor.leaves()
        leaf = leaves[self._choices.choose(len(leaves))] if self._members else leaves[0]
        fault = self._fault(actor)
        if fault == CRASH:
            self.model.kill_coordinator()
            self.coordinator = None
            return
        if fault.server is not None:
            next(each for each in self.model.servers if each.name == fault.server).crash()
        self.model.perform(leaf, fault)
        actor.settle()
        if actor is self.coordinator and actor.done:
            assert actor.error is None, actor.error
            self.outcome = actor.result
            self.model.close_sessions()

    def _fault(self, actor: Actor) -> Fault:
        if not self._faults:
            return NO_FAULT
        options = [NO_FAULT, *faults(self.model)]
        if actor is not self.coordinator:
            options.remove(CRASH)
        fault = options[self._choices.choose(len(options))]
        if fault != NO_FAULT:
            self._faults -= 1
        return fault


@KINDS
@PARTS
def test_every_order_and_every_failure_of_one_coordinator(mariadb: bool, global_part: bool) -> None:
    def run(choices: Choices) -> None:
        Run(Model(mariadb=mariadb, global_part=global_part), choices, members=True).to_end()

    assert explore(run) > 100


@KINDS
@PARTS
def test_two_failures(mariadb: bool, global_part: bool) -> None:
    def run(choices: Choices) -> None:
        Run(Model(mariadb=mariadb, global_part=global_part), choices, most_faults=2).to_end()

    assert explore(run) > 150


@pytest.mark.slow
@KINDS
@PARTS
def test_a_recovery_at_every_moment(mariadb: bool, global_part: bool) -> None:
    """Without grace, beside a coordinator that is alive, slow, or fails."""

    def run(choices: Choices) -> None:
        model = Model(mariadb=mariadb, global_part=global_part)
        Run(model, choices, recoveries=1, switches=2).to_end()

    assert explore(run) > 500


@pytest.mark.slow
@KINDS
def test_two_recoveries_beside_a_slow_coordinator(mariadb: bool) -> None:
    def run(choices: Choices) -> None:
        # what is deleted early here is not asked for
        model = Model(mariadb=mariadb, age=decision_log.KEEP_COMMITTED)
        Run(model, choices, recoveries=2, switches=3, most_faults=0).to_end()

    assert explore(run) > 500


@KINDS
def test_one_writer_needs_no_decision(mariadb: bool) -> None:
    def run(choices: Choices) -> None:
        model = Model(mariadb=mariadb, writers=1)
        Run(model, choices, members=True).to_end()
        assert GTRID not in model.global_.rows

    assert explore(run) > 10


def test_without_faults_the_row_is_deleted_when_all_have_committed() -> None:
    model = Model(mariadb=True)
    actor = Actor("coordinator", model.commit())
    run_to_end(model, actor)
    assert actor.result == protocol.Outcome(True, None, logged=True, left=False)
    assert model.global_.rows == {GTRID: ("commit", "1,2")}
    run_to_end(model, Actor("recovery", model.recover()))
    assert model.global_.rows == {GTRID: ("commit", "1,2")}  # a coordinator may still ask
    model.global_.age = decision_log.KEEP_COMMITTED
    run_to_end(model, Actor("recovery", model.recover()))
    assert model.global_.rows == {}
    model.check(actor.result)


def test_the_model_finds_a_rollback_without_a_tombstone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule that matters most is switched off: the exploration sees it."""

    def hasty(self: Any, gtrid: str, until: Optional[float] = None) -> Any:
        found = yield from self.decision(gtrid, until)
        return found or decision_log.Decision.ABORT

    monkeypatch.setattr("dualdb.coordination.decision_log.DecisionLog.settle", hasty)

    def run(choices: Choices) -> None:
        Run(Model(mariadb=False), choices, recoveries=1, switches=2, most_faults=0).to_end()

    with pytest.raises(AssertionError, match=r"halves|reported"):
        explore(run)


def test_the_model_finds_a_late_decision(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another rule: the decision comes before the commits."""
    decide = protocol._decide

    def late(writers: Any, shards: Any, on: protocol.Coordination) -> Any:
        for part in shards:
            yield from protocol._commit_decided(part, on.until)
        return (yield from decide(writers, shards, on))

    monkeypatch.setattr(protocol, "_decide", late)

    def run(choices: Choices) -> None:
        Run(Model(mariadb=False), choices).to_end()

    with pytest.raises(AssertionError, match=r"halves|reported"):
        explore(run)


@pytest.mark.parametrize("late", [0.0, protocol.SETTLE_WITHIN + 1])
def test_a_coordinator_does_not_say_what_was_decided_long_ago(late: float) -> None:
    """It has lost the answer; recovery commits, and deletes the row after a while."""
    model = Model(mariadb=False, age=decision_log.KEEP_COMMITTED)
    coordinator = Actor("coordinator", model.commit())
    while not is_decision(coordinator.leaves()[0]):
        model.perform(coordinator.leaves()[0])
        coordinator.settle()
    model.perform(coordinator.leaves()[0], REPLY_LOST)
    for _ in range(2):
        run_to_end(model, Actor("recovery", model.recover()))
    assert [shard.applied for shard in model.shards.values()] == [1, 1]
    model.now += late
    run_to_end(model, coordinator)
    # Later the report would be wrong, so the row must stay for longer than that.
    assert coordinator.result.committed is (None if late else False)
    assert protocol.SETTLE_WITHIN < decision_log.KEEP_COMMITTED


def is_decision(leaf: Actor) -> bool:
    return bool(leaf.step.statement.text.startswith("INSERT"))
