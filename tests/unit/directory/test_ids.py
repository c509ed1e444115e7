"""Ids without a server: their bits, their order, and who has which number."""

import random
from typing import Any, Dict, List

import pytest

from dualdb import IdLayout, ParameterError
from dualdb.directory.ids import AHEAD_MS, EPOCH_MS, IdParts, IdSequence, choose_worker

NOW = EPOCH_MS + 1_000_000


@pytest.mark.parametrize("layout", [IdLayout(), IdLayout(5, 10), IdLayout(1, 1), IdLayout(20, 1)])
def test_an_id_has_its_parts(layout: IdLayout, seed: int) -> None:
    chance = random.Random(seed)
    for _ in range(200):
        parts = IdParts(
            EPOCH_MS + chance.randrange(1 << 41),
            chance.randrange(1 << layout.sequence_bits),
            chance.randrange(layout.workers),
            chance.randrange(layout.shards),
        )
        value = layout.pack(*parts)
        assert 0 <= value < 1 << 63
        assert layout.unpack(value) == parts


def test_the_standard_layout_is_stored_in_databases() -> None:
    assert IdLayout().pack(EPOCH_MS + 1, 2, 3, 4) == (1 << 22) + (2 << 17) + (3 << 9) + 4
    assert (IdLayout().workers, IdLayout().shards, IdLayout().sequence_bits) == (256, 512, 5)


@pytest.mark.parametrize("bits", [(0, 9), (8, 0), (12, 10), (True, 9), (8.0, 9), (21, 1)])
def test_a_layout_is_checked(bits: Any) -> None:
    with pytest.raises(ValueError, match="_bits must be"):
        IdLayout(*bits).checked()


@pytest.mark.parametrize("value", [-1, 1 << 63, True, "7", None, 1.0])
def test_what_is_no_id_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="an id is"):
        IdLayout().unpack(value)


def test_ids_grow_whatever_the_clock_does(seed: int) -> None:
    chance, layout = random.Random(seed), IdLayout()
    sequence, now, made = IdSequence(layout, 7, NOW), NOW, []
    for _ in range(20_000):
        now += chance.choice([0, 0, 0, 0, 1, 3, -2])
        taken = sequence.take(now, chance.randrange(512))
        if type(taken) is int:
            made.append(taken)
            assert layout.unpack(taken).ms <= now + AHEAD_MS
        else:
            assert taken > 0
            now += 1
    assert len(made) > 10_000
    assert made == sorted(set(made))


def test_a_burst_waits_for_the_clock() -> None:
    sequence = IdSequence(IdLayout(), 7, NOW)
    burst = [sequence.take(NOW, 1) for _ in range(1000)]
    made = [each for each in burst if type(each) is int]
    assert len(made) == AHEAD_MS * 32
    assert burst[-1] == 0.001
    assert type(sequence.take(NOW + 1, 1)) is int


def test_a_clock_that_was_set_back_is_waited_for() -> None:
    sequence = IdSequence(IdLayout(), 7, NOW)
    sequence.take(NOW, 1)
    waits = sequence.take(NOW - 5000, 1)
    assert type(waits) is float
    assert waits == pytest.approx(5.0, abs=0.01)


def row(worker: int, *, expired: bool, last_ms: int = NOW - 1) -> Dict[str, Any]:
    return {"worker": worker, "expired": int(expired), "last_ms": last_ms}


@pytest.mark.parametrize(
    ("rows", "possible"),
    [
        ([], {0, 1, 2, 3}),
        ([row(1, expired=False), row(3, expired=True)], {0, 2}),
        ([row(n, expired=n == 2) for n in range(4)], {2}),
        ([row(n, expired=True, last_ms=NOW - n) for n in range(4)], {1, 2, 3}),
        ([*[row(n, expired=False) for n in range(4)], row(9, expired=True)], {None}),
    ],
)
def test_a_number_is_free_when_its_ids_are_in_the_past(rows: List[Any], possible: Any) -> None:
    assert {choose_worker(rows, 4, NOW, number.__mod__) for number in range(4)} == possible
