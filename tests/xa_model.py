"""Servers and a scheduler in memory, for plans of two-phase commit: every order of the
steps, and every failure between them.
"""

import dataclasses
import itertools
import re
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple

from dualdb import errors
from dualdb.coordination import protocol, recovery
from dualdb.coordination.commands import PinnedExecutor
from dualdb.coordination.decision_log import DecisionLog
from dualdb.coordination.xid import Xid
from dualdb.execution import steps
from dualdb.execution.detached import DetachedExecutor
from dualdb.results import ResultSet

GTRID = "65000000" + "0" * 24
CLUSTER = "c" * 16


class Session:
    """One connection, with a transaction that wrote something."""

    def __init__(self, server: "Server", owner: str = "recovery") -> None:
        self.server = server
        self.owner = owner
        self.alive = True
        #: Of a plain transaction on the global database.
        self.in_transaction = False
        self.own_rows: Dict[str, Tuple[str, str]] = {}


@dataclasses.dataclass
class Branch:
    state: str
    session: Optional[Session]


class Server:
    """A server: its branches, and on the global one the rows of the log."""

    def __init__(self, name: str, shard_id: Optional[int], *, mariadb: bool) -> None:
        self.name = name
        self.shard_id = shard_id
        self.client = self
        self.reads_only = False
        self.replica = self.write_refusal = None
        self.mariadb = mariadb
        self.server = self
        self.sessions: List[Session] = []
        self.branches: Dict[str, Branch] = {}
        self.rows: Dict[str, Tuple[str, str]] = {}
        #: What has become of the application's writes.
        self.applied = 0
        #: Of each row, in seconds.
        self.age = 0.0

    def connect(self, owner: str) -> Session:
        session = Session(self, owner)
        self.sessions.append(session)
        return session

    def end_session(self, session: Session) -> None:
        session.alive = False
        session.in_transaction = False
        for xid, branch in list(self.branches.items()):
            if branch.session is session:
                branch.session = None
                if branch.state != "prepared":
                    del self.branches[xid]

    def crash(self) -> None:
        """Killed and started again."""
        for session in self.sessions:
            self.end_session(session)

    def run(self, session: Session, text: str) -> ResultSet:
        if not session.alive:
            raise lost(self)
        if text.startswith("XA RECOVER"):
            return _rows([_recovered(xid) for xid, b in self.branches.items() if _ready(b)])
        if text.startswith("XA "):
            return self._xa(session, text)
        if text.startswith("BEGIN NOT ATOMIC "):
            for part in text[len("BEGIN NOT ATOMIC ") : -len("; END")].split("; "):
                self._xa(session, part)
            return _rows([])
        if text in ("COMMIT", "ROLLBACK"):
            if text == "COMMIT" and session.in_transaction:
                self.rows.update(session.own_rows)
                self.applied += 1
            session.in_transaction = False
            return _rows([])
        return self._log(session, text)

    def _xa(self, session: Session, text: str) -> ResultSet:
        match = re.fullmatch(r"XA (\w+) ('.*?','.*?',\d+)( ONE PHASE)?", text)
        assert match is not None, text
        word, xid, alone = match[1], match[2], bool(match[3])
        branch = self.branches.get(xid)
        expected = {"END": "active", "PREPARE": "idle"}.get(word)
        if branch is None or (branch.state != "prepared" and branch.session is not session):
            raise refused(self, 1397)
        if expected is not None:
            if branch.state != expected:
                raise refused(self, 1399)
            branch.state = {"END": "idle", "PREPARE": "prepared"}[word]
            if word == "PREPARE" and not self.mariadb:
                branch.session = None  # detached
            return _rows([])
        others = branch.session not in (None, session)
        if branch.state == "prepared" and (others or alone):
            raise refused(self, 1397)
        if branch.state == "active" or (word == "COMMIT" and branch.state == "idle" and not alone):
            raise refused(self, 1399)
        del self.branches[xid]
        if word == "COMMIT":
            self.applied += 1
        return _rows([])

    def _log(self, session: Session, text: str) -> ResultSet:
        gtrid = GTRID
        held = any(
            gtrid in each.own_rows and each.in_transaction and each is not session
            for each in self.sessions
        )
        if text.startswith("INSERT"):
            if held:
                raise refused(self, 1205)
            ignore = "IGNORE" in text
            if gtrid in self.rows:
                if ignore:
                    return _rows([], 0)
                raise refused(self, 1062)
            found = re.search(r"VALUES \('\w+', '(\w+)', '([\d,]*)'\)", text)
            assert found is not None
            if session.in_transaction:
                session.own_rows[gtrid] = (found[1], found[2])
            else:
                self.rows[gtrid] = (found[1], found[2])
            return _rows([], 1)
        if text.startswith("SELECT decision"):
            return _rows([{"decision": self.rows[gtrid][0]}] if gtrid in self.rows else [])
        if text.startswith("SELECT gtrid"):
            return _rows(
                [
                    {"gtrid": key, "decision": decision, "parts": parts, "age": self.age}
                    for key, (decision, parts) in self.rows.items()
                    if decision == "commit"
                ]
            )
        assert text.startswith("DELETE"), text
        if self.rows.get(gtrid, ("", ""))[0] == "commit":
            del self.rows[gtrid]
        return _rows([], 1)


def _ready(branch: Branch) -> bool:
    return branch.state == "prepared"


def _recovered(xid: str) -> Dict[str, Any]:
    gtrid, bqual, number = xid.replace("'", "").split(",")
    return {
        "formatID": int(number),
        "gtrid_length": len(gtrid),
        "bqual_length": len(bqual),
        "data": (gtrid + bqual).encode(),
    }


def _rows(rows: List[Dict[str, Any]], affected: int = 0) -> ResultSet:
    return ResultSet(rows, (), affected, 0, 0)


def refused(server: Server, code: int) -> errors.Error:
    cls = {1205: errors.LockWaitTimeout, 1062: errors.IntegrityError}.get(
        code, errors.OperationalError
    )
    return cls(code, "refused").with_context(server.name, server.shard_id, sent=True)


def lost(server: Server, *, sent: bool = True) -> errors.Error:
    return errors.ConnectionLost(2013, "lost").with_context(server.name, server.shard_id, sent=sent)


class Choices:
    """The decisions of one run: a prefix that is given, then always the first."""

    def __init__(self, prefix: Tuple[int, ...]) -> None:
        self._prefix = prefix
        self.taken: List[Tuple[int, int]] = []

    def choose(self, options: int) -> int:
        number = len(self.taken)
        chosen = self._prefix[number] if number < len(self._prefix) else 0
        self.taken.append((chosen, options))
        return chosen

    def following(self) -> Optional[Tuple[int, ...]]:
        """The next prefix, depth first; None after the last."""
        taken = list(self.taken)
        while taken:
            chosen, options = taken.pop()
            if chosen + 1 < options:
                return (*[each for each, _ in taken], chosen + 1)
        return None


class Actor:
    """A plan that runs, and the plans that it gathers."""

    def __init__(self, name: str, plan: Any) -> None:
        self.name = name
        self.done = False
        self.result: Any = None
        self.error: Optional[BaseException] = None
        self._plan = plan
        self.children: List[Actor] = []
        self._outcomes: List[Any] = []
        self.step: Any = None
        self._advance(lambda: next(plan))

    def leaves(self) -> List["Actor"]:
        """The plans that have a step to do now."""
        if self.children:
            return [leaf for child in self.children for leaf in child.leaves()]
        return [] if self.done else [self]

    def answer(self, value: Any) -> None:
        """Resume this leaf."""
        if isinstance(value, BaseException):
            self._advance(lambda: self._plan.throw(value))
        else:
            self._advance(lambda: self._plan.send(value))

    def settle(self) -> None:
        """Resume what has gathered plans that are all done."""
        for child in self.children:
            child.settle()
        if self.children and all(child.done for child in self.children):
            outcomes = [child.error or child.result for child in self.children]
            self.children = []
            self.answer(outcomes)

    def _advance(self, resume: Callable[[], Any]) -> None:
        try:
            self.step = resume()
        except StopIteration as done:
            self.done = True
            self.result = done.value
            return
        except errors.Error as error:
            self.done = True
            self.error = error
            return
        if isinstance(self.step, steps.Gather):
            self.children = [
                Actor(self.name, member.plan)
                for member in self.step.steps
                if isinstance(member, steps.RunPlan)
            ]
            assert len(self.children) == len(self.step.steps)
            self.settle()


class Fault(NamedTuple):
    """What goes wrong, once."""

    kind: str
    server: Optional[str] = None


NO_FAULT = Fault("none")
CRASH = Fault("the coordinator is killed")
REPLY_LOST = Fault("the reply is lost")
REQUEST_LOST = Fault("the request is lost")


class Model:
    """A coordinator with two shards, and recoveries beside it.

    Args:
        mariadb: The shards are MariaDBs.
        global_part: The global database takes part.
        writers: How many shards have something to commit.
        age: Of every row of the log, in seconds.
    """

    def __init__(
        self, *, mariadb: bool, global_part: bool = False, writers: int = 2, age: float = 0.0
    ) -> None:
        self.global_ = Server("global", None, mariadb=mariadb)
        self.global_.age = age
        self.shards = {n: Server(f"shard {n}", n, mariadb=mariadb) for n in (1, 2)}
        self.servers = [self.global_, *self.shards.values()]
        self.log = DecisionLog("dualdb_xa", lambda: self.global_)
        self.now = 0.0
        self.parts: List[protocol.Part] = []
        self.writers: List[Server] = []
        for number, server in self.shards.items():
            xid = Xid(GTRID, CLUSTER, number)
            session = server.connect("coordinator")
            server.branches[xid.sql] = Branch("active", session)
            self._add(server, session, xid, wrote=number <= writers)
        if global_part:
            session = self.global_.connect("coordinator")
            session.in_transaction = True
            self._add(self.global_, session, None, wrote=True)

    def _add(self, server: Server, session: Session, xid: Optional[Xid], *, wrote: bool) -> None:
        client: Any = server
        connection: Any = session
        executor = PinnedExecutor(client, connection)
        part = protocol.Part(executor, xid, wrote=wrote, compound=server.mariadb)
        self.parts.append(part)
        if wrote:
            self.writers.append(server)

    def commit(self) -> Any:
        on = protocol.Coordination(GTRID, self.log, 0.0, 1000.0, lambda: self.now)
        return protocol.commit(self.parts, on)

    def recover(self) -> Any:
        """The plan of a recovery without any grace."""
        rows = yield from self.log.rows(committed=True)
        servers = {n: (lambda s=server: self._find(s)) for n, server in self.shards.items()}
        found = yield from recovery.find(servers, CLUSTER)
        for branches in recovery.by_transaction(found.branches).values():
            yield from recovery.finish(self.log, found.servers, branches)
        yield from self.log.forget(recovery.deletable(rows, found))

    def _find(self, server: Server) -> Any:
        yield from ()
        return recovery.Server(DetachedExecutor(server), server.mariadb)

    def kill_coordinator(self) -> None:
        for server in self.servers:
            for session in server.sessions:
                if session.owner == "coordinator":
                    server.end_session(session)

    def close_sessions(self) -> None:
        """As the end of the block does: a session that is not as it was is closed."""
        for part in self.parts:
            if part.state is not protocol.PartState.ENDED:
                session: Any = part.executor.connection
                session.server.end_session(session)

    def perform(self, leaf: Actor, fault: Fault = NO_FAULT) -> None:
        """Do a leaf's step, and give it what came of it."""
        step = leaf.step
        if isinstance(step, steps.Sleep):
            self.now += max(1.0, step.seconds)
            leaf.answer(None)
            return
        assert isinstance(step, steps.Execute), step
        server: Server = step.executor.client
        pinned = isinstance(step.executor, PinnedExecutor)
        session = step.executor.connection if pinned else server.connect(leaf.name)  # type: ignore[attr-defined]
        try:
            if fault == REQUEST_LOST:
                raise lost(server)
            result: Any = [server.run(session, step.statement.text)]  # type: ignore[union-attr]
            if fault == REPLY_LOST:
                raise lost(server)
        except errors.Error as error:
            result = error
        if fault in (REQUEST_LOST, REPLY_LOST) or not pinned:
            server.end_session(session)
        leaf.answer(result)

    def check(self, outcome: Optional[protocol.Outcome]) -> None:
        """All or nothing, nothing left, and the caller got the true outcome."""
        applied = [server.applied for server in self.writers]
        assert applied in ([0] * len(applied), [1] * len(applied)), f"halves: {applied}"
        for server in self.servers:
            assert server.branches == {}, f"left on {server.name}: {server.branches}"
        if outcome is not None and outcome.committed is not None:
            assert outcome.committed is bool(applied[0]), f"reported {outcome}, applied {applied}"


def run_to_end(model: Model, actor: Actor) -> None:
    for _ in itertools.count():
        leaves = actor.leaves()
        if not leaves:
            return
        model.perform(leaves[0])
        actor.settle()


def explore(run: Callable[[Choices], None], most: int = 200_000) -> int:
    """Make a run with every sequence of choices; return how many there were."""
    prefix: Optional[Tuple[int, ...]] = ()
    for number in range(most):
        choices = Choices(prefix or ())
        run(choices)
        prefix = choices.following()
        if prefix is None:
            return number + 1
    raise AssertionError(f"more than {most} runs")


def faults(model: Model) -> Iterator[Fault]:
    yield CRASH
    yield REPLY_LOST
    yield REQUEST_LOST
    for server in model.servers:
        yield Fault("the server crashes", server.name)
