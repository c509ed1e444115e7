"""Which shard a new key is given."""

import random
import threading
from typing import Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Sequence, Union

from ..errors import ParameterError


class Candidate(NamedTuple):
    """A shard that takes new keys now.

    Attributes:
        shard_id: Which.
        weight: Its share beside the others', from the column ``weight`` of its row; 1
            if there is none.
        keys: How many keys it has, as far as that was counted; 0 for a policy that does
            not need it.
        name: From the column ``shard_name`` of its row, or None.
    """

    shard_id: int
    weight: float = 1.0
    keys: int = 0
    name: Any = None


#: Chooses among the shards that take new keys; may be a coroutine function in asyncio.
PlacementFunction = Callable[[Any, Sequence[Candidate]], Any]
PlacementName = Literal["least_loaded", "weighted", "round_robin"]
Placement = Union[PlacementName, PlacementFunction]

NAMES = ("least_loaded", "weighted", "round_robin")


def check_placement(placement: object) -> None:
    """Raises: ValueError where it is no placement."""
    if placement not in NAMES and not callable(placement):
        raise ValueError(
            f"placement must be one of {', '.join(map(repr, NAMES))} or a function, "
            f"not {placement!r}"
        )


class Rotation:
    """Smooth weighted round robin, as nginx has it: every shard has its share of any
    run of choices, and choices of one shard are spread.

    Each process begins at a random place, lest all begin with the same shard.
    """

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        self._spread = spread
        self._current: Dict[int, float] = {}
        self.forked()

    def forked(self) -> None:
        """As in a process where no other thread holds the lock."""
        self._lock = threading.Lock()
        self._current = {}

    def choose(self, candidates: Sequence[Candidate], *, weighted: bool) -> int:
        """The shard whose turn it is."""
        weights = {each.shard_id: each.weight if weighted else 1.0 for each in candidates}
        total = sum(weights.values())
        with self._lock:
            current = {
                shard_id: self._current.get(shard_id, weight * self._spread()) + weight
                for shard_id, weight in weights.items()
            }
            chosen = max(current, key=lambda shard_id: (current[shard_id], -shard_id))
            current[chosen] -= total
            self._current = current
        return chosen


def least_loaded(
    candidates: Sequence[Candidate], spread: Callable[[], float] = random.random
) -> int:
    """The shard with the fewest keys for its weight; at random among equals."""
    return min(candidates, key=lambda each: (each.keys / each.weight, spread())).shard_id


def check_choice(chosen: object, candidates: Sequence[Candidate]) -> int:
    """What a placement function returned, if it is one of the candidates.

    Raises:
        ParameterError: It is not.
    """
    ids = [each.shard_id for each in candidates]
    if isinstance(chosen, bool) or chosen not in ids:
        raise ParameterError(
            f"placement returned {chosen!r}, which is none of the shards that take new keys: {ids}"
        )
    return ids[ids.index(chosen)]


def spread_buckets(
    owners: Mapping[int, int], buckets: int, weights: Mapping[int, float]
) -> Dict[int, int]:
    """The buckets that must change their shard, so that each shard has its share.

    As few move as can be: only those of shards that are not in ``weights``, those that
    a shard has above its share, and those that have no shard.

    Args:
        owners: The shard of each bucket that has one.
        buckets: How many there are.
        weights: The share of each shard, relative to the others'.

    Returns:
        The new shard of each bucket that changes.

    Raises:
        ParameterError: There are no shards.
    """
    if not weights:
        raise ParameterError("there are no shards to spread the buckets over")
    targets = _shares(buckets, weights, owners)
    held: Dict[int, List[int]] = {shard_id: [] for shard_id in weights}
    homeless: List[int] = []
    for bucket in range(buckets):
        shard_id = owners.get(bucket)
        if shard_id in held and len(held[shard_id]) < targets[shard_id]:
            held[shard_id].append(bucket)
        else:
            homeless.append(bucket)
    room = [
        shard_id
        for shard_id in sorted(weights)
        for _ in range(targets[shard_id] - len(held[shard_id]))
    ]
    return dict(zip(homeless, room))


def _shares(
    buckets: int, weights: Mapping[int, float], owners: Mapping[int, int]
) -> Dict[int, int]:
    """How many buckets each shard is to have; they add up to ``buckets``."""
    total = sum(weights.values())
    exact = {shard_id: buckets * weight / total for shard_id, weight in weights.items()}
    shares = {shard_id: int(share) for shard_id, share in exact.items()}
    has = dict.fromkeys(weights, 0)
    for owner in owners.values():
        has[owner] = has.get(owner, 0) + 1
    # What rounding down leaves goes to those that lost most by it, and among them to
    # those that have it already.
    by_loss = sorted(
        weights,
        key=lambda shard_id: (
            shares[shard_id] - exact[shard_id],
            shares[shard_id] - has[shard_id],
            shard_id,
        ),
    )
    for shard_id in by_loss[: buckets - sum(shares.values())]:
        shares[shard_id] += 1
    return shares
