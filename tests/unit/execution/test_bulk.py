"""``executemany`` as a plan."""

from typing import Any, Iterator, List, Optional, Tuple

import pytest
from scripted_plans import follow, place, routed

from dualdb.errors import DataError, ParameterError
from dualdb.execution import steps
from dualdb.execution.bulk import LONGEST_CHUNK, executemany
from dualdb.results import ResultSet
from dualdb.sql.literals import LiteralStyle

INSERT = "INSERT INTO t (a) VALUES (%s)"


def plan(rows: Any, **changed: Any) -> Any:
    options = {"chunk_rows": 2, "progress": None, "timeout": None, "idempotent": False}
    return executemany(routed(place), INSERT, rows, **{**options, "awaits": False, **changed})


def written(count: int, *, lastrowid: int = 0, warnings: int = 0) -> Tuple[Any, Any]:
    return steps.Execute, [ResultSet([], (), count, lastrowid, warnings)]


LIMIT = (steps.Execute, (1_000_000, LiteralStyle()))


def test_rows_are_written_in_chunks_and_counted() -> None:
    progress: List[int] = []
    script = [
        LIMIT,
        written(2, lastrowid=5, warnings=1),
        written(2, lastrowid=7, warnings=2),
        written(1),
    ]
    count = follow(plan([(number,) for number in range(5)], progress=progress.append), script)
    assert (count, count.lastrowid, count.warnings) == (5, 7, 3)
    assert progress == [2, 4, 5]


def test_no_rows_are_no_statement() -> None:
    count = follow(plan([]), [LIMIT])
    assert (count, count.lastrowid, count.warnings) == (0, 0, 0)


def test_an_error_has_the_numbers_of_its_chunk_s_rows() -> None:
    error = DataError(1264, "Out of range")
    with pytest.raises(DataError) as caught:
        follow(plan([(1,), (2,), (3,)]), [LIMIT, written(2), (steps.Execute, error)])
    assert caught.value.rows == (2, 2)


@pytest.mark.parametrize(
    ("limit", "length", "chunks"),
    [
        (400, 130, 2),
        (400, 10, 1),
        (None, LONGEST_CHUNK // 2 - 200, 1),
        (None, LONGEST_CHUNK // 2, 2),
        (10 * LONGEST_CHUNK, LONGEST_CHUNK // 2, 2),
    ],
)
def test_a_chunk_is_not_longer_than_the_server_takes_nor_than_is_quick(
    limit: Optional[int], length: int, chunks: int
) -> None:
    rows = [("x" * length,)] * 2
    count = follow(
        plan(rows), [(steps.Execute, (limit, LiteralStyle())), *[written(2 // chunks)] * chunks]
    )
    assert count == 2


@pytest.mark.parametrize(("timeout", "earliest"), [(None, None), (100.0, 0.0)])
def test_the_timeout_is_for_all_chunks(timeout: Optional[float], earliest: Optional[float]) -> None:
    made = plan([(1,), (2,), (3,)], timeout=timeout)
    step, limits = next(made), []
    for response in (LIMIT[1], written(2)[1], written(1)[1]):
        limits.append(step.until)
        try:
            step = made.send(response)
        except StopIteration:
            break
    assert len(limits) == 3
    if earliest is None:
        assert limits == [None] * 3
    else:
        assert max(limits) - min(limits) < 1.0, "each chunk has what is left of the whole"


@pytest.mark.parametrize("chunk_rows", [0, -1, True, 1.5, "2", None])
def test_chunk_rows_is_a_number_from_1_up(chunk_rows: Any) -> None:
    with pytest.raises(
        ParameterError, match=f"^chunk_rows must be .* from 1 up, not {chunk_rows!r}$"
    ):
        next(plan([(1,)], chunk_rows=chunk_rows))


def test_one_row_a_chunk_is_allowed() -> None:
    assert follow(plan([(1,), (2,)], chunk_rows=1), [LIMIT, written(1), written(1)]) == 2


async def rows_to_await() -> Any:
    yield (1,)


async def progress_to_await(count: int) -> None:
    pass


def test_what_is_not_iterable_is_refused() -> None:
    with pytest.raises(ParameterError, match="^rows must be an iterable of parameters, not int$"):
        next(plan(5))


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"rows": rows_to_await()}, "an async iterable of rows"),
        ({"rows": [(1,)], "progress": progress_to_await}, "a coroutine function as progress"),
    ],
)
def test_what_is_awaited_needs_a_loop(options: Any, what: str) -> None:
    with pytest.raises(ParameterError, match=f"^{what} requires the asyncio service$"):
        next(plan(**options))


class Awaited:
    """Rows that are awaited, of which a script gives each."""

    def __aiter__(self) -> "Awaited":
        return self

    def __anext__(self) -> Iterator[Any]:
        return iter(())


def test_rows_and_progress_are_awaited_one_after_the_other() -> None:
    counts: List[int] = []

    class Answer:
        def __await__(self) -> Iterator[Any]:
            return iter(())

    def progress(count: int) -> Answer:
        counts.append(count)
        return Answer()

    script = [
        LIMIT,
        *[(steps.AwaitUser, (number,)) for number in (1, 2, 3)],
        written(2),
        (steps.AwaitUser, None),
        (steps.AwaitUser, StopAsyncIteration()),
        written(1),
        (steps.AwaitUser, None),
    ]
    assert follow(plan(Awaited(), progress=progress, awaits=True), script) == 3
    assert counts == [2, 3]


def test_a_progress_s_value_is_not_awaited_without_a_loop() -> None:
    assert follow(plan([(1,)], progress=lambda count: progress_to_await), [LIMIT, written(1)]) == 1
