"""Interleaving, and what is made of the samples.

In each round everybody runs one short batch, in a random order. What slows a whole
round (another program, a warm processor) slows everybody in it, so that a ratio is
taken within each round, and the median of those is shown.
"""

import random
import statistics
from typing import Any, Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional

from .workers import Refused

#: Of one contestant: a figure for each round.
Samples = List[float]

#: Of one scenario: by contestant.
Table = Mapping[str, Samples]


class Ratio(NamedTuple):
    """The median of the ratios of all rounds, and the quartiles around it."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.median:.2f}"

    @property
    def spread(self) -> str:
        return f"{self.low:.2f} to {self.high:.2f}"


def ratio(table: Table, key: str, against: str) -> Optional[Ratio]:
    """What ``key`` took, of what ``against`` took; None where one of them was not
    measured.
    """
    if not table.get(key) or not table.get(against):
        return None
    return spread([mine / theirs for mine, theirs in zip(table[key], table[against])])


def ratio_above(table: Table, key: str, against: str, floor: str) -> Optional[Ratio]:
    """What ``key`` took above the floor, of what ``against`` took above it.

    A round in which ``against`` was no slower than the floor says nothing and is left
    out; None where no round remains.
    """
    if not table.get(key) or not table.get(against) or not table.get(floor):
        return None
    figures = [
        (mine - least) / (theirs - least)
        for mine, theirs, least in zip(table[key], table[against], table[floor])
        if theirs > least
    ]
    return spread(figures) if figures else None


def quickest(table: Table, keys: Iterable[str]) -> Optional[str]:
    """Whose median is the least; None where nobody was measured."""
    middles = {key: statistics.median(table[key]) for key in keys if table.get(key)}
    return min(middles, key=lambda key: middles[key]) if middles else None


def inverse(found: Optional[Ratio]) -> Optional[Ratio]:
    """Of times, that of throughputs."""
    return found and Ratio(1 / found.median, 1 / found.high, 1 / found.low)


def spread(figures: Samples) -> Ratio:
    if len(figures) == 1:
        return Ratio(figures[0], figures[0], figures[0])
    low, median, high = statistics.quantiles(figures, n=4, method="inclusive")
    return Ratio(median, low, high)


def median(table: Table, key: str) -> Optional[float]:
    return statistics.median(table[key]) if table.get(key) else None


def interleaved(
    keys: Iterable[str],
    rounds: int,
    run: Callable[[str], Dict[str, Any]],
    missing: Dict[str, str],
    order: Optional[random.Random] = None,
) -> Dict[str, List[Dict[str, Any]]]:
    """Every contestant's answers, one for each round.

    Args:
        run: one batch of one contestant. Raises Refused.
        missing: who refused and why is added to it; they have no answers then, because
            ratios need the same rounds of both.
    """
    order = order or random.Random()
    answers: Dict[str, List[Dict[str, Any]]] = {key: [] for key in keys}
    for _ in range(rounds):
        turn = list(answers)
        order.shuffle(turn)
        for key in turn:
            try:
                answers[key].append(run(key))
            except Refused as error:
                missing[key] = str(error)
                del answers[key]
    return answers
