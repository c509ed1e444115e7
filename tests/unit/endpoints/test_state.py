"""Which host is tried next, and what is remembered of each."""

from typing import Any, List, Optional

import pytest

from dualdb.endpoints.node import Node, Role
from dualdb.endpoints.profiles import PROFILES
from dualdb.endpoints.state import LONGEST_RETRY, LONGEST_SILENCE, Endpoint, Endpoints
from dualdb.hosts import Address

N1, N2, N3 = (Address(f"n{number}", 3306) for number in (1, 2, 3))


def a_node(role: Role, engine: str = "mysql") -> Node:
    return Node(PROFILES[engine], role, "" if role is Role.PRIMARY else role.value)


PRIMARY, REPLICA, OUT = a_node(Role.PRIMARY), a_node(Role.REPLICA), a_node(Role.OUT)
GALERA = a_node(Role.PRIMARY, "galera")


def hosts(policy: Any = "primary", *nodes: Optional[Node], now: float = 1.0) -> Endpoints:
    """Three hosts, of which some have been connected to."""
    made = Endpoints((N1, N2, N3), policy, spread=lambda: 0.0)
    for endpoint, node in zip(made.all, nodes):
        if node is not None:
            made.judge(endpoint, node, now)
    return made


def names(endpoints: Any) -> List[str]:
    return [each.address.host for each in endpoints]


def test_one_host_and_a_socket() -> None:
    assert not Endpoints((N1,)).several
    assert Endpoints(()).all[0].address is None
    assert hosts().several


def test_before_any_connect_the_hosts_are_searched_in_order_by_one_caller() -> None:
    found = hosts()
    first = found.next_attempt(1.0)
    assert (names(first.candidates), first.searches) == (["n1", "n2", "n3"], True)
    assert found.next_attempt(1.0) == ((), False)
    undecided = [found.undecided]
    found.end_search(first)
    undecided.append(found.undecided)
    assert undecided == [True, False]
    assert found.next_attempt(1.0).searches


@pytest.mark.parametrize(
    ("policy", "node", "used"),
    [
        ("primary", PRIMARY, True),
        ("primary", GALERA, True),
        ("primary", REPLICA, False),
        ("primary", OUT, False),
        ("primary", None, True),
        ("primary_first", REPLICA, False),
        ("any", REPLICA, True),
        ("any", PRIMARY, True),
        ("any", OUT, False),
        ("any", None, True),
    ],
)
def test_which_roles_a_policy_uses(policy: Any, node: Any, used: bool) -> None:
    found = hosts(policy)
    assert (found.judge(found.all[0], node, 1.0) is None) is used


def test_a_known_primary_is_tried_first_and_by_all_callers() -> None:
    found = hosts("primary", REPLICA, PRIMARY)
    for _ in range(2):
        attempt = found.next_attempt(2.0)
        assert (attempt.candidates[0].address, attempt.searches) == (N2, False)
    assert not found.undecided


def test_a_replica_is_waited_for_and_an_outage_is_not() -> None:
    assert hosts("primary", REPLICA).undecided
    assert hosts("primary", OUT).undecided
    assert not hosts("primary").undecided
    assert not hosts("primary", REPLICA, PRIMARY).undecided
    assert not hosts("any", REPLICA).undecided


def test_a_refusal_retires_older_connections_and_begins_a_search_elsewhere() -> None:
    found = hosts("primary", PRIMARY, REPLICA, REPLICA)
    first = found.all[0]
    first.record_refusal(5.0)
    assert first.replace_before == 5.0
    assert found.undecided
    attempt = found.next_attempt(5.01)
    assert (names(attempt.candidates), attempt.searches) == (["n2", "n3"], True)


def test_a_new_primary_retires_the_connections_to_the_others() -> None:
    found = hosts("primary", PRIMARY)
    found.judge(found.all[1], PRIMARY, 7.0)
    assert [each.replace_before for each in found.all] == [7.0, 7.0, 7.0]
    assert names(found.next_attempt(8.0).candidates)[0] == "n2"


def test_a_changed_role_retires_the_connections_that_had_the_other() -> None:
    found = hosts("primary", PRIMARY)
    found.judge(found.all[0], REPLICA, 9.0)
    assert found.all[0].replace_before == 9.0
    found.judge(found.all[0], REPLICA, 10.0)
    assert found.all[0].replace_before == 9.0


def test_a_failed_primary_is_not_preferred_once_another_one_was_found() -> None:
    found = hosts("primary", PRIMARY)
    found.all[0].record_failure("refused", 2.0, 2.0)
    assert names(found.next_attempt(2.0).candidates) == ["n2", "n3"]
    found.judge(found.all[1], PRIMARY, 3.0)
    assert names(found.next_attempt(100.0).candidates) == ["n2", "n1", "n3"]


def test_the_first_node_of_galera_is_preferred_again_when_it_may_be_back() -> None:
    found = hosts("primary", GALERA)
    first, second, _ = found.all
    first.record_failure("refused", 2.0, 2.0)
    found.judge(second, GALERA, 2.0)
    assert names(found.next_attempt(2.0).candidates)[0] == "n2"
    attempt = found.next_attempt(100.0)
    assert (names(attempt.candidates)[0], attempt.searches) == ("n1", True)
    # meanwhile the others use what works
    assert names(found.next_attempt(100.0).candidates) == ["n2"]


def test_any_takes_turns_and_leaves_out_what_failed() -> None:
    found = hosts("any", PRIMARY, REPLICA, REPLICA)
    firsts = [names(found.next_attempt(2.0).candidates)[0] for _ in range(6)]
    assert sorted(firsts) == ["n1", "n1", "n2", "n2", "n3", "n3"]
    found.all[1].record_failure("refused", 2.0, 2.0)
    firsts = [names(found.next_attempt(2.0).candidates)[0] for _ in range(6)]
    assert set(firsts) == {"n1", "n3"}


@pytest.mark.parametrize(
    ("timed_out", "longest"), [(False, LONGEST_RETRY), (True, LONGEST_SILENCE)]
)
def test_pauses_grow_and_are_bounded(timed_out: bool, longest: float) -> None:
    endpoint = Endpoint(N1)
    pauses = []
    for number in range(12):
        now = 10.0 * number
        endpoint.record_failure("no", now, now, timed_out=timed_out)
        pauses.append(round(endpoint.retry_at - now, 3))
    assert pauses[:3] == [0.1, 0.2, 0.4]
    assert pauses[-1] == longest
    endpoint.record_connected(PRIMARY, 200.0)
    assert (endpoint.retry_at, endpoint.failure, endpoint.timeouts) == (0.0, None, 0)


def test_attempts_that_were_made_at_the_same_time_count_as_one() -> None:
    endpoint = Endpoint(N1)
    for _ in range(10):
        endpoint.record_failure("timed out", 1.0, 2.0, timed_out=True)
    assert endpoint.connect_limit(10.0) == 2.0
    endpoint.record_failure("timed out", 2.0, 4.0, timed_out=True)
    assert endpoint.connect_limit(10.0) == 4.0
    assert endpoint.connect_limit(3.0) == 3.0


def test_a_silent_host_is_asked_anew_before_its_idle_connections_are_used() -> None:
    endpoint = Endpoint(N1)
    endpoint.record_connected(PRIMARY, 1.0)
    endpoint.record_silence(5.0)
    assert endpoint.replace_before == 5.0
    endpoint.record_connected(PRIMARY, 6.0)
    assert endpoint.replace_before == 0.0


def test_the_error_names_every_host() -> None:
    found = hosts("primary", REPLICA, OUT)
    found.all[2].record_failure("refused (2003)", 1.0, 1.0)
    assert str(found.no_primary()) == (
        "no primary among n1:3306: replica, n2:3306: out of service, n3:3306: refused (2003)"
    )
    assert found.no_primary().retryable


def test_a_warning_is_given_once_for_each_host() -> None:
    found = hosts()
    assert [found.warn_once(found.all[0]), found.warn_once(found.all[0])] == [True, False]
    assert found.warn_once(found.all[1])
