"""Placement of new keys on shards."""

import random
import threading
from typing import Any, Callable, Dict, List, Literal, Mapping, NamedTuple, Sequence, Union

from ..errors import ParameterError


class Candidate(NamedTuple):
    """A shard that accepts new keys.

    Attributes:
        shard_id: The shard's id.
        weight: Its share relative to the others, from the column ``weight`` of its row;
            1 if there is none.
        keys: The number of its keys, if it was counted; 0 for a policy that does not
            need it.
        name: The name in the column ``shard_name`` of its row, or None.
    """

    shard_id: int
    weight: float = 1.0
    keys: int = 0
    name: Any = None


#: Chooses a shard for a key among the candidates; in asyncio also a coroutine function.
PlacementFunction = Callable[[Any, Sequence[Candidate]], Any]
PlacementName = Literal["least_loaded", "weighted", "round_robin"]
Placement = Union[PlacementName, PlacementFunction]

NAMES = ("least_loaded", "weighted", "round_robin")


def check_placement(placement: object) -> None:
    """Validate a placement.

    Raises:
        ValueError: It is neither a known name nor a function.
    """
    if placement not in NAMES and not callable(placement):
        raise ValueError(
            f"placement must be one of {', '.join(map(repr, NAMES))} or a function, "
            f"not {placement!r}"
        )


class Rotation:
    """Smooth weighted round robin, as in nginx: every shard gets its share of any
    sequence of choices, evenly spread.

    Each process starts at a random position, so that not all start with the same shard.

    Args:
        spread: Returns a random number from 0 to 1.
    """

    def __init__(self, spread: Callable[[], float] = random.random) -> None:
        self._spread = spread
        self._current: Dict[int, float] = {}
        self.forked()

    def forked(self) -> None:
        """Replace the lock in a forked child."""
        self._lock = threading.Lock()
        self._current = {}

    def choose(self, candidates: Sequence[Candidate], *, weighted: bool) -> int:
        """Return the id of the next shard.

        Args:
            candidates: The candidates.
            weighted: Use their weights, rather than equal shares.
        """
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
    """Return the shard with the fewest keys per weight; ties are broken randomly."""
    return min(candidates, key=lambda each: (each.keys / each.weight, spread())).shard_id


def check_choice(chosen: object, candidates: Sequence[Candidate]) -> int:
    """Validate the result of a placement function.

    Raises:
        ParameterError: It is not one of the candidates.
    """
    ids = [each.shard_id for each in candidates]
    if isinstance(chosen, bool) or chosen not in ids:
        raise ParameterError(
            f"placement returned {chosen!r}, which is not one of the candidates: {ids}"
        )
    return ids[ids.index(chosen)]


def spread_buckets(
    owners: Mapping[int, int], buckets: int, weights: Mapping[int, float]
) -> Dict[int, int]:
    """Compute the fewest bucket moves that give each shard its share.

    Only these move: those of shards that are not in ``weights``, those that
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
    """Return the number of buckets for each shard; the sum is ``buckets``."""
    total = sum(weights.values())
    exact = {shard_id: buckets * weight / total for shard_id, weight in weights.items()}
    shares = {shard_id: int(share) for shard_id, share in exact.items()}
    has = dict.fromkeys(weights, 0)
    for owner in owners.values():
        has[owner] = has.get(owner, 0) + 1
    # The remainder goes to the shards that lost most by rounding down, preferring those
    # that already have the buckets.
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
