"""What the directory decides, without a server."""

import math
import subprocess
import sys
import uuid
from collections import Counter
from typing import Any, Callable, Dict, List, Optional

import pytest

from dualdb import Candidate, HashBuckets, KeyFunction, LookupTable, ParameterError, RoutingError
from dualdb.directory import keys, placement, tables
from dualdb.directory.cache import KeyCache, split
from dualdb.directory.explain import RouteReason, explain
from dualdb.directory.keys import KeyKind, key_column
from dualdb.topology.routing import choose
from dualdb.topology.shard_map import Shard, ShardMap, Status, parse_shard_table

# Keys.


@pytest.mark.parametrize(
    ("data_type", "column_type", "kind", "fits", "refused"),
    [
        ("bigint", "bigint(20)", KeyKind.INTEGER, [-(2**63), 2**63 - 1], [2**63, -(2**63) - 1]),
        ("BIGINT", "bigint(20) unsigned", KeyKind.INTEGER, [0, 2**64 - 1], [-1, 2**64]),
        ("int", "int", KeyKind.INTEGER, [-(2**31)], [2**31]),
        ("mediumint", "mediumint unsigned", KeyKind.INTEGER, [2**24 - 1], [2**24]),
        ("smallint", "smallint", KeyKind.INTEGER, [32767], [32768]),
        ("tinyint", "tinyint(1)", KeyKind.INTEGER, [-128, 127], [128, True, "1", 1.0, None]),
        ("varchar", "varchar(3)", KeyKind.TEXT, ["abc", "ÄÖÜ", ""], ["abcd", b"a", 1.0, True]),
        ("char", "char(36)", KeyKind.TEXT, [str(uuid.UUID(int=1))], [None]),
        ("binary", "binary(2)", KeyKind.BINARY, [b"", b"ab"], [b"abc", "ab", 1]),
    ],
)
def test_a_key_fits_its_column(
    data_type: str, column_type: str, kind: KeyKind, fits: List[Any], refused: List[Any]
) -> None:
    length = {"varchar": 3, "char": 36, "binary": 2}.get(data_type)
    column = key_column("k", data_type, column_type, length)
    assert column.kind is kind
    assert [column.stored(key) for key in fits] == fits
    for key in refused:
        with pytest.raises(ParameterError, match="a key of the column k"):
            column.stored(key)


def test_keys_of_other_types_are_stored_as_their_text_or_bytes() -> None:
    text = key_column("k", "varchar", "varchar(40)", 40)
    binary = key_column("k", "binary", "binary(16)", 16)
    key = uuid.UUID(int=7)
    assert (text.stored(7), text.stored(key), binary.stored(key)) == ("7", str(key), key.bytes)


@pytest.mark.parametrize("data_type", ["float", "datetime", "json", "decimal", "enum"])
def test_other_columns_hold_no_keys(data_type: str) -> None:
    with pytest.raises(ParameterError, match="keys are integers, text or bytes"):
        key_column("k", data_type, data_type, None)


def test_a_bucket_is_the_same_for_ever() -> None:
    """These numbers are stored in databases."""
    table: Dict[Any, int] = {7: 3970, "ann": 933, b"\xff": 3985, uuid.UUID(int=7): 809, -1: 230}
    assert {key: keys.bucket_of(key, 4096) for key in table} == table
    assert keys.bucket_of("7", 4096) == keys.bucket_of(7, 4096)
    wrong: List[Any] = [True, None, 1.0, ("a",)]
    for key in wrong:
        with pytest.raises(ParameterError, match="a key is an int, a str, bytes or a UUID"):
            keys.bucket_of(key, 4096)


@pytest.mark.slow
def test_a_bucket_does_not_depend_on_the_hash_seed() -> None:
    program = "from dualdb.directory.keys import bucket_of; print(bucket_of('ann', 4096))"
    for seed in ("0", "1", "42"):
        output = subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
            capture_output=True,
            check=True,
        ).stdout
        assert int(output) == keys.bucket_of("ann", 4096)


def test_keys_are_spread_over_the_buckets() -> None:
    counts = Counter([keys.bucket_of(key, 16) for key in range(16_000)])
    assert len(counts) == 16
    assert all(800 < count < 1200 for count in counts.values()), counts


@pytest.mark.parametrize(
    "options",
    [
        {"table": "a b"},
        {"table": "a.b.c"},
        {"table": ""},
        {"table": "t; DROP TABLE x"},
        {"key_column": "a.b"},
        {"shard_column": "`s`"},
        {"alias_table": None},
        {"placement": "random"},
        {"ttl": -1},
        {"ttl": math.inf},
        {"negative_ttl": math.nan},
        {"cache_size": 0},
    ],
)
def test_a_lookup_table_is_checked(options: Dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        LookupTable(**options)


@pytest.mark.parametrize("ttl", ["1", True, None])
def test_times_of_a_cache_are_numbers(ttl: Any) -> None:
    with pytest.raises(TypeError, match="must be a number of seconds"):
        LookupTable(ttl=ttl)


@pytest.mark.parametrize("buckets", [0, 65_537, -1])
def test_the_number_of_buckets_is_checked(buckets: int) -> None:
    with pytest.raises(ValueError, match="from 1 to 65536"):
        HashBuckets(buckets)


def test_a_function_knows_whether_it_waits() -> None:
    async def waits(key: Any) -> int:
        return 1

    class Waits:
        async def __call__(self, key: Any) -> int:
            return 1

    assert [KeyFunction(each).awaits for each in (waits, Waits(), int)] == [True, True, False]
    assert KeyFunction(int).immediate
    assert not any(
        each.immediate
        for each in (KeyFunction(waits), KeyFunction(int, batched=True), KeyFunction(int, ttl=1))
    )


# The cache.


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> KeyCache:
    return KeyCache(10.0, 2.0, 100, clock)


def shards(cache: KeyCache, *asked: Any) -> List[Any]:
    found = [cache.get(key) for key in asked]
    return [entry if entry is None else (entry.shard_id,) for entry in found]


def test_answers_hold_for_their_time(cache: KeyCache, clock: Clock) -> None:
    cache.put({1: 7, 2: None}, clock.now, cache.version)
    assert shards(cache, 1, 2, 3) == [(7,), (None,), None]
    clock.now += 2.0
    assert shards(cache, 1, 2) == [(7,), None], "that there is none holds for less"
    clock.now += 8.0
    assert shards(cache, 1, 2) == [None, None]
    stale = cache.stale(1)
    assert stale is not None
    assert (stale.shard_id, stale.at) == (7, 100.0)
    assert cache.stale(2) is None


def test_an_answer_is_as_old_as_its_question(cache: KeyCache, clock: Clock) -> None:
    cache.put({1: 7}, clock.now - 9.0, cache.version)
    assert shards(cache, 1) == [(7,)]
    clock.now += 1.0
    assert shards(cache, 1) == [None]


@pytest.mark.parametrize("change", [KeyCache.clear, lambda cache: cache.assigned(5, 1)])
def test_a_lookup_that_was_overtaken_is_not_kept(
    cache: KeyCache, clock: Clock, change: Callable[[KeyCache], None]
) -> None:
    began, version = clock.now, cache.version
    change(cache)
    cache.put({1: 7}, began, version)
    assert shards(cache, 1) == [None]
    cache.put({1: 7}, began, cache.version)
    assert shards(cache, 1) == [(7,)]


def test_a_new_key_ends_what_is_known_to_be_absent(cache: KeyCache, clock: Clock) -> None:
    cache.put({"ann": None, "ANN": None, "bob": 2}, clock.now, cache.version)
    cache.assigned("ann", 1)
    assert shards(cache, "ann", "ANN", "bob") == [(1,), None, (2,)]


def test_the_oldest_are_dropped(clock: Clock) -> None:
    cache = KeyCache(10.0, 2.0, 10, clock)
    for key in range(10):
        cache.put({key: 1}, clock.now, cache.version)
    cache.put({0: 1}, clock.now, cache.version)
    cache.put({10: 1}, clock.now, cache.version)
    assert len(cache) == 9
    assert shards(cache, 1, 2, 0, 10) == [None, None, (1,), (1,)]


def test_what_is_not_known_is_asked_for(cache: KeyCache, clock: Clock) -> None:
    cache.put({1: 7, 2: None}, clock.now, cache.version)
    assert split(cache, [1, 2, 3, 4]) == ({1: 7, 2: None}, [3, 4])


# Placement.


def candidates(*weights: float) -> List[Candidate]:
    return [Candidate(shard_id, weight) for shard_id, weight in enumerate(weights, 1)]


@pytest.mark.parametrize("weights", [(1, 1), (1, 2, 3), (5, 1), (0.5, 0.25, 0.25), (1,)])
def test_ten_thousand_keys_are_placed_by_the_weights(weights: Any) -> None:
    rotation, shares = placement.Rotation(), candidates(*weights)
    counts = Counter([rotation.choose(shares, weighted=True) for _ in range(10_000)])
    for shard_id, weight in enumerate(weights, 1):
        assert abs(counts[shard_id] - 10_000 * weight / sum(weights)) <= len(weights)
    even = Counter([rotation.choose(shares, weighted=False) for _ in range(10_000)])
    assert max(even.values()) - min(even.values()) <= len(weights)


def test_shards_that_come_and_go_have_their_turn() -> None:
    rotation = placement.Rotation()
    for number in range(100):
        rotation.choose(candidates(1, 1) if number % 2 else candidates(1, 1, 1), weighted=True)
    counts = Counter([rotation.choose(candidates(1, 1, 1), weighted=True) for _ in range(300)])
    assert max(counts.values()) - min(counts.values()) <= 3


def test_the_least_loaded_shard_is_that_with_the_fewest_keys_for_its_weight() -> None:
    loads = [Candidate(1, 1.0, 10), Candidate(2, 4.0, 36), Candidate(3, 1.0, 9)]
    assert placement.least_loaded(loads, lambda: 0.0) in (2, 3)
    assert placement.least_loaded(loads[:2]) == 2
    assert {placement.least_loaded(candidates(1, 1, 1)) for _ in range(200)} == {1, 2, 3}


@pytest.mark.parametrize("chosen", [3, None, "1", True, 1.5])
def test_a_choice_beside_the_candidates_is_refused(chosen: Any) -> None:
    with pytest.raises(ParameterError, match="not one of the candidates"):
        placement.check_choice(chosen, candidates(1, 1))


@pytest.mark.parametrize("buckets", [1, 7, 64, 4096])
@pytest.mark.parametrize("shard_count", [1, 2, 4, 5])
def test_buckets_are_spread_and_few_move(buckets: int, shard_count: int) -> None:
    weights = dict.fromkeys(range(1, shard_count + 1), 1.0)
    owners = placement.spread_buckets({}, buckets, weights)
    assert sorted(owners) == list(range(buckets))
    counts = Counter(owners.values())
    assert max(counts.values()) - min(counts.get(key, 0) for key in weights) <= 1
    assert placement.spread_buckets(owners, buckets, weights) == {}
    more = {**weights, 9: 1.0}
    moves = placement.spread_buckets(owners, buckets, more)
    assert set(moves.values()) <= {9}
    assert len(moves) <= math.ceil(buckets / (shard_count + 1))
    fewer = {key: 1.0 for key in weights if key != 1} or {2: 1.0}
    moves = placement.spread_buckets(owners, buckets, fewer)
    assert set(moves) == {bucket for bucket, shard_id in owners.items() if shard_id not in fewer}


def test_shares_follow_the_weights() -> None:
    counts = Counter(placement.spread_buckets({}, 4096, {1: 1.0, 2: 3.0}).values())
    assert counts == {1: 1024, 2: 3072}
    with pytest.raises(ParameterError, match="no shards"):
        placement.spread_buckets({}, 4096, {})


# Statements and rows.


def test_a_lookup_is_one_statement_whatever_the_keys() -> None:
    table = tables.MappingTable("app.homes", "name", "home")
    integer = key_column("name", "bigint", "bigint", None)
    sql, params = table.lookup(integer, [1, 2])
    assert (
        sql
        == "SELECT `name` AS found_key, `home` AS shard_id FROM `app`.`homes` WHERE `name` IN %s"
    )
    assert params == ((1, 2),)
    text = key_column("name", "varchar", "varchar(9)", 9)
    sql, params = table.lookup(text, ["a", "b"])
    assert sql.count("SELECT") == 2
    assert sql.count(" UNION ALL ") == 1
    assert params == ("a", "b")
    assert table.in_schema() == ("app", "homes", "name")
    assert tables.MappingTable("homes", "name", "home").in_schema() == (None, "homes", "name")


def test_rows_are_found_by_their_keys() -> None:
    table = tables.MappingTable("homes", "k", "s")
    integer = key_column("k", "int", "int", None)
    rows: List[Dict[str, Any]] = [
        {"found_key": 2, "shard_id": 9},
        {"found_key": 1, "shard_id": None},
    ]
    assert table.found(integer, [1, 2, 3], rows) == [None, 9, None]
    text = key_column("k", "varchar", "varchar(9)", 9)
    found: List[Optional[int]] = table.found(text, ["a", "b"], [{"found_key": 1, "shard_id": 4}])
    assert found == [None, 4]
    twice = [{"found_key": 1, "shard_id": 4}, {"found_key": 1, "shard_id": 4}]
    assert table.found(text, ["a", "b"], twice) == [None, 4]
    twice[1]["shard_id"] = 5
    by_column: List[Any] = [(integer, [1]), (text, ["a", "b"])]
    for column, names in by_column:
        with pytest.raises(RoutingError, match="homes has rows for shards 4 and 5"):
            table.found(column, names, twice)


@pytest.mark.parametrize(
    ("stored", "kind"),
    [
        (7, KeyKind.INTEGER),
        (-7, KeyKind.INTEGER),
        ("Änn", KeyKind.TEXT),
        (b"\xff\x00", KeyKind.BINARY),
    ],
)
def test_an_alias_keeps_its_key(stored: Any, kind: KeyKind) -> None:
    assert tables.key_of_alias(tables.alias_value(stored), kind) == stored


# The columns of the shard table that placement reads.

ROW = {
    "shard_id": 1,
    "host": "h",
    "port": 1,
    "database_name": "d",
    "username": "u",
    "password": "p",
    "status": "active",
}


@pytest.mark.parametrize(
    ("columns", "weight", "accepts_new"),
    [
        ({}, 1.0, True),
        ({"weight": None, "accepts_new": None}, 1.0, True),
        ({"weight": 2, "accepts_new": 1}, 2.0, True),
        ({"weight": "0.5", "accepts_new": 0}, 0.5, False),
        ({"WEIGHT": 0}, 0.0, True),
    ],
)
def test_weight_and_accepts_new_are_optional(
    columns: Dict[str, Any], weight: float, accepts_new: bool
) -> None:
    from dualdb import DatabaseConfig

    base = DatabaseConfig(database="g", user="u", password="p")
    shard = parse_shard_table([{**ROW, **columns}], base).shards[1]
    assert (shard.weight, shard.accepts_new) == (weight, accepts_new)


@pytest.mark.parametrize("columns", [{"weight": -1}, {"weight": "x"}, {"accepts_new": "x"}])
def test_a_weight_that_is_none_makes_the_row_unusable(columns: Dict[str, Any]) -> None:
    from dualdb import DatabaseConfig

    base = DatabaseConfig(database="g", user="u", password="p")
    assert parse_shard_table([{**ROW, **columns}], base).shards[1].status is Status.INVALID


# Where a call would go.


@pytest.mark.parametrize("status", [None, *Status])
@pytest.mark.parametrize("named", [True, False])
@pytest.mark.parametrize("absent", ["global", "error"])
def test_an_explanation_agrees_with_the_route(
    status: Optional[Status], named: bool, absent: Any
) -> None:
    shard = None if status is None else Shard(1, status, reason="odd")
    shard_map = ShardMap(3, {} if shard is None else {1: shard})
    found = explain(shard, 1, 3, named=named, absent=absent, failure=None)
    try:
        chosen = choose(shard_map, 1, absent=absent, named=named)
        target: Optional[str] = "global" if chosen is None else f"shard {chosen}"
    except RoutingError:
        target = None
    assert found.target == target
    assert (found.shard_id, found.map_version) == (1, 3)


def test_a_shard_that_cannot_be_reached_is_explained() -> None:
    found = explain(Shard(1, Status.ACTIVE), 1, 3, named=True, absent="error", failure="down")
    assert (found.target, found.reason) == ("shard 1", RouteReason.UNREACHABLE)
    assert found.detail == "shard 1 is active, but cannot be reached: down"
