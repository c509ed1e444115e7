"""What is known of each host of a database, and which is tried next.

Pure: the time is an argument. The pools ask and report; see ``execution.connect``.
"""

import random
import threading
from typing import Callable, NamedTuple, Optional, Sequence, Set, Tuple

from .. import errors
from ..buffer import Buffer
from ..config import EndpointPolicy
from ..hosts import Address
from .node import Node, Role

#: Seconds between two rounds of a search for the primary.
SEARCH_INTERVAL = 0.1
#: Seconds until a host that refused is tried again while another one works, at first
#: and at most; and at most for one that does not respond, which costs a time limit.
FIRST_RETRY = 0.1
LONGEST_RETRY = 1.0
LONGEST_SILENCE = 5.0
#: The first limit on connecting to one of several hosts, in seconds. It doubles with
#: each attempt in a row that exceeds it, up to ``connect_timeout``.
FIRST_LIMIT = 1.0


class Endpoint:
    """What is known of one host.

    Args:
        address: Where it listens; None for a unix socket.
        position: Its number in the list, from 0.

    Attributes:
        node: What it reported about itself at the last connect; None before.
        role: Its role, as far as it is known now.
        failure: Why it is not used; None if it is.
        retry_at: When it is worth another attempt.
        replace_before: Connections that were opened before are replaced.
    """

    __slots__ = (
        "_failed_at",
        "_heard_at",
        "_retired_at",
        "_silent_at",
        "address",
        "failure",
        "failures",
        "node",
        "position",
        "replace_before",
        "retry_at",
        "role",
        "timeouts",
    )

    def __init__(self, address: Optional[Address] = None, position: int = 0) -> None:
        self.address = address
        self.position = position
        self.node: Optional[Node] = None
        self.role = Role.UNKNOWN
        self.failure: Optional[str] = None
        self.failures = self.timeouts = 0
        self.retry_at = self.replace_before = 0.0
        self._retired_at = self._silent_at = self._heard_at = self._failed_at = 0.0

    def __repr__(self) -> str:
        return f"<Endpoint {self.address}, {self.role.value}>"

    @property
    def many_primaries(self) -> bool:
        """It is of a cluster whose members all accept writes."""
        return self.node is not None and self.node.profile.many_primaries

    def retire(self, at: float) -> None:
        """Replace the connections that were opened before: idle ones at once, the
        others after use.
        """
        self._retired_at = max(self._retired_at, at)
        self._update()

    def record_silence(self, at: float) -> None:
        """Record that a response did not come in time: the host may be frozen, so that
        no idle connection to it is used until a new one has been opened.
        """
        self._silent_at = max(self._silent_at, at)
        self._update()

    def record_connected(self, node: Optional[Node], at: float) -> None:
        """Record that a connection was opened.

        Args:
            node: What the server reported about itself; None if it was not asked.
            at: The time before the attempt.
        """
        self._heard_at = max(self._heard_at, at)
        self.failures = self.timeouts = 0
        self.retry_at = 0.0
        self.failure = None
        self.node = node
        self.role = Role.UNKNOWN if node is None else node.role
        self._update()

    def record_failure(self, why: str, began: float, at: float, *, timed_out: bool = False) -> None:
        """Record that no connection could be opened.

        Args:
            why: The reason.
            began: The time before the attempt. Attempts that were made at the same time
                count as one.
            at: The time.
            timed_out: It did not respond.
        """
        self.failure = why
        if began >= self._failed_at:
            longest = LONGEST_SILENCE if timed_out else LONGEST_RETRY
            self.retry_at = at + min(longest, FIRST_RETRY * 2.0 ** min(self.failures, 16))
            self.failures += 1
            self.timeouts = self.timeouts + 1 if timed_out else 0
        self._failed_at = at
        if not self.many_primaries:
            # Another one may have been elected.
            self.role = Role.UNKNOWN

    def record_refusal(self, at: float) -> None:
        """Record that the server refused a statement because it is not the primary, or
        not in service.
        """
        self.role = Role.OUT
        self.failure = "it refused a statement"
        self.retry_at = at + FIRST_RETRY
        self.retire(at)

    def connect_limit(self, longest: float) -> float:
        """Return the limit on connecting to it, one of several, in seconds.

        Args:
            longest: ``connect_timeout``.
        """
        return min(longest, FIRST_LIMIT * 2.0 ** min(self.timeouts, 16))

    def _update(self) -> None:
        silent = self._silent_at if self._silent_at > self._heard_at else 0.0
        self.replace_before = max(self._retired_at, silent)


#: Of a connection that has not been opened yet.
NOWHERE = Endpoint()


class Attempt(NamedTuple):
    """What to try next.

    Attributes:
        candidates: The hosts, in order; empty while another caller searches and none
            is known to work.
        searches: This caller searches for all, and must call ``end_search``.
    """

    candidates: Tuple[Endpoint, ...]
    searches: bool = False


class Endpoints:
    """The hosts of one database.

    Args:
        addresses: Where they listen, in order of preference; empty for a unix socket.
        policy: Which is used; see ``EndpointPolicy``.
        spread: Returns a random number from 0 to 1.

    Attributes:
        all: What is known of each, in order.
        policy: Which is used.
        buffer: The calls that wait for a primary.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        policy: EndpointPolicy = "primary",
        spread: Callable[[], float] = random.random,
    ) -> None:
        self.policy = policy
        self.all: Tuple[Endpoint, ...] = tuple(
            [Endpoint(address, position) for position, address in enumerate(addresses)]
        ) or (Endpoint(),)
        self.buffer = Buffer()
        self.forget_callers()
        self._warned: Set[Endpoint] = set()
        # Processes that are started together begin at different hosts.
        self._turn = int(spread() * len(self.all))

    def forget_callers(self) -> None:
        """Begin without callers, as in a forked child, which has none of them."""
        self._lock = threading.Lock()
        self._searching = False
        self.buffer.forget_callers()

    @property
    def several(self) -> bool:
        """There is a choice."""
        return len(self.all) > 1

    @property
    def undecided(self) -> bool:
        """None is known to work, and one may be found: hosts respond, of which one may
        be elected, or another caller is trying them.
        """
        return self._searching or (
            not self.working and any(each.role in (Role.REPLICA, Role.OUT) for each in self.all)
        )

    @property
    def working(self) -> Tuple[Endpoint, ...]:
        """The hosts that are used as the policy wants it."""
        return tuple(
            [
                each
                for each in self.all
                if each.failure is None and each.node is not None and self._suits(each.role)
            ]
        )

    def next_attempt(self, now: float) -> Attempt:
        """Choose what to try next.

        One caller at a time tries them all: while none is known to work, or a better
        one than those that do may be back.

        Args:
            now: The time.
        """
        working = self.working
        order = self._order(now)
        if order[0] in working:
            return Attempt(order)
        with self._lock:
            if self._searching:
                return Attempt(tuple([each for each in order if each in working]))
            self._searching = True
        due = tuple([each for each in order if each.retry_at <= now])
        return Attempt(due or order, searches=True)

    def end_search(self, attempt: Attempt) -> None:
        """End the search of an attempt, if it was one, for which others may wait.

        Takes no lock, because a plan that is garbage-collected calls it in any place.
        """
        if attempt.searches:
            self._searching = False
            if self.working:
                self.buffer.wake()

    def is_full(self, queued: int, size: int) -> bool:
        """Return whether no more callers may wait for a primary.

        Args:
            queued: Callers that wait for those who wait.
            size: The most that wait.
        """
        return self.several and self.undecided and queued + self.buffer.waiting >= size

    def judge(self, endpoint: Endpoint, node: Optional[Node], at: float) -> Optional[str]:
        """Record that a connection to one of several hosts was opened, and decide
        whether it is used.

        Args:
            endpoint: The host.
            node: What it reported about itself.
            at: The time before the attempt.

        Returns:
            Why it is not used; None if it is.
        """
        before = endpoint.role
        endpoint.record_connected(node, at)
        if endpoint.role is not before:
            endpoint.retire(at)
        if self._suits(endpoint.role):
            self._retire_others(endpoint, at)
            return None
        why = node.why if node is not None and node.why else endpoint.role.value
        endpoint.failure = why
        endpoint.retry_at = at + SEARCH_INTERVAL / 2
        return why

    def accept_replica(self, endpoint: Endpoint) -> None:
        """Use a replica, because there is no primary and the policy allows it."""
        endpoint.failure = None

    def no_primary(self) -> errors.NoPrimary:
        """Make the error that names every host and why it is not used."""
        reasons = [f"{each.address}: {each.failure or 'not tried'}" for each in self.all]
        what = "host in service" if self.policy == "any" else "primary"
        return errors.NoPrimary(f"no {what} among {', '.join(reasons)}")

    def warn_once(self, endpoint: Endpoint) -> bool:
        """Return True once for each host, for a warning about it."""
        known = endpoint in self._warned
        self._warned.add(endpoint)
        return not known

    def retire(self, at: float) -> None:
        """Replace the connections to every host that were opened before."""
        for each in self.all:
            each.retire(at)

    def _suits(self, role: Role) -> bool:
        if role is Role.OUT:
            return False
        return role is not Role.REPLICA or self.policy == "any"

    def _retire_others(self, primary: Endpoint, at: float) -> None:
        """Replace the connections to the last primary, where there is one at a time."""
        if self.policy == "any":
            return
        for each in self.all:
            if each is not primary:
                each.retire(at)
                if each.role is Role.PRIMARY and not primary.many_primaries:
                    each.role = Role.UNKNOWN

    def _order(self, now: float) -> Tuple[Endpoint, ...]:
        if self.policy == "any":
            with self._lock:
                self._turn += 1
                turn = self._turn
            count = len(self.all)
            return tuple(
                sorted(
                    self.all,
                    key=lambda each: (
                        each.retry_at > now or each.role is Role.OUT,
                        (each.position - turn) % count,
                    ),
                )
            )
        return tuple(sorted(self.all, key=lambda each: (_rank(each, now), each.position)))


def _rank(endpoint: Endpoint, now: float) -> int:
    """Return how likely a host is the primary; the smaller, the more."""
    if endpoint.retry_at > now:
        return 3
    if endpoint.role is Role.PRIMARY:
        return 0
    return 1 if endpoint.role is Role.UNKNOWN else 2
