"""One sorted stream, and one total, of several shards: what one server says that has
all the rows.
"""

import datetime
import decimal
import gc
import math
import random
from typing import Any, Callable, Dict, List

import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb import (
    Avg,
    Count,
    CrossShardError,
    DeadlineExceeded,
    InterfaceError,
    Max,
    Min,
    OperationalError,
    ParameterError,
    ScatterError,
    ShardReadOnly,
    ShardUnavailable,
    Sum,
)
from dualdb.sql.literals import literal

# By column: its type, of which those are left out that the server does not know, and
# how its values are made.
COLLATIONS = {
    "general": "utf8mb4_general_ci",
    "unicode": "utf8mb4_unicode_ci",
    "bin": "utf8mb4_bin",
    "accents": "utf8mb4_uca1400_as_ci",
    "cases": "utf8mb4_uca1400_as_cs",
    "neither": "utf8mb4_uca1400_ai_ci",
    "unpadded": "utf8mb4_uca1400_nopad_as_cs",
    "unpadded_bin": "utf8mb4_nopad_bin",
    "new": "utf8mb4_0900_as_cs",
    "old": "utf8mb4_0900_ai_ci",
    "czech": "utf8mb4_czech_ci",
    "swedish": "latin1_swedish_ci",
    "german": "latin1_german2_ci",
    "bytes_of_letters": "latin1_bin",
    "chinese": "gbk_chinese_ci",
    "wide": "utf16_unicode_ci",
}
NARROW = [
    "",
    " ",
    "  ",
    "a",
    "A",
    "a ",
    "a  ",
    "b",
    "B",
    "ab",
    "Ab",
    "aB",
    "ab ",
    "a b",
    "a-b",
    "a\t",
    "a\tb",
    "a\x01",
    "zz",
    "Z",
    "0",
    "10",
    "9",
]
LATIN = [*NARROW, "ä", "ae", "Ä", "AE", "ß", "ss", "é", "e", "É", "o", "ö", "oe"]
WIDE = [
    *LATIN,
    "ch",
    "c",
    "d",
    "č",
    "😀",
    "😁",
    "a😀",
    "ﬁ",
    "fi",
    "\u0435",
    "日",
    "\u0451",
    "a\u0301",
    "á",
    "\u00a0",
]
HUGE = 10**26
OTHERS: Dict[str, Any] = {
    "number": ("INT", lambda r: r.choice([-5, -1, 0, 1, 1, 2, 2**31 - 1])),
    "big": ("BIGINT UNSIGNED", lambda r: r.choice([0, 1, 2**63, 2**64 - 1, 2**64 - 2])),
    "exact": ("DECIMAL(12,5)", lambda r: decimal.Decimal(r.randrange(-(10**9), 10**9)) / 10**5),
    "precise": (
        "DECIMAL(48,18)",
        lambda r: decimal.Decimal(f"{r.randrange(-HUGE, HUGE)}.{r.randrange(10**18):018}"),
    ),
    "amount": (
        "DECIMAL(10,2)",
        lambda r: r.choice([decimal.Decimal("1.05"), decimal.Decimal("-2.50"), decimal.Decimal(0)]),
    ),
    "floating": (
        "DOUBLE",
        lambda r: r.choice([0.0, -0.0, 1e300, -1e300, 0.1, 0.1 + 2**-55, 1 / 3, -7.25]),
    ),
    "ratio": ("DOUBLE", lambda r: r.choice([0.0, 0.1, 1 / 3, -7.25])),
    "single": ("FLOAT", lambda r: r.choice([16777216, 16777215, 16777214, 0.1, -3.5, 1e-30])),
    "day": (
        "DATE",
        lambda r: r.choice(
            ["0000-00-00", "2020-00-00", "2020-02-00", "1000-01-01", "2020-02-29", "9999-12-31"]
        ),
    ),
    "at": (
        "DATETIME(3)",
        lambda r: r.choice(
            ["0000-00-00", "2020-01-01", "2020-01-01 00:00:00.5", "2020-01-01 00:00:00.120"]
        ),
    ),
    "stamp": (
        "TIMESTAMP(3) NULL",
        lambda r: r.choice([0, "2020-01-01 00:00:00.001", "2020-01-01", "2037-01-01"]),
    ),
    "span": (
        "TIME(2)",
        lambda r: r.choice(
            ["-838:59:59", "-00:00:00.5", "-00:00:01", "00:00:00", "23:00:00.25", "100:00:00"]
        ),
    ),
    "year": ("YEAR", lambda r: r.choice([1999, 2000, 2155])),
    "member": ("ENUM('z','a','M','10','9')", lambda r: r.choice(["z", "a", "M", "10", "9"])),
    "members": ("SET('z','a','m')", lambda r: r.choice(["", "z", "a", "z,a", "m", "z,m"])),
    "bits": ("BIT(12)", lambda r: r.choice([0, 1, 255, 256, 4095])),
    "raw": ("VARBINARY(20)", lambda r: r.choice([b"", b"a", b"a ", b"A", b"\xff", b"a\0", b"\0"])),
    "fixed": ("BINARY(4)", lambda r: r.choice([b"", b"a", b"a ", b"\xff\xff", b"abcd"])),
    "lump": ("BLOB", lambda r: r.choice([b"", b"x", b"xy", b"X"])),
    "padded": ("CHAR(8)", lambda r: r.choice([*LATIN])),
    "text": ("TEXT", lambda r: r.choice([*WIDE])),
    "document": ("JSON", lambda r: r.choice(['"a"', '{"a": 1}', "7"])),
}
SUMMED = [
    "number",
    "big",
    "exact",
    "precise",
    "amount",
    "ratio",
    "ratio * single",
    "year",
    "number * amount",
    "ROUND(precise / 7, 3)",
    "number IS NULL",
]


class Things:
    """A table of columns of many types, on the shards, and with all their rows on the
    global database.
    """

    def __init__(self, databases: Databases, random: random.Random, count: int) -> None:
        known = {row["Collation"] for row in databases.run("global", "SHOW COLLATION")}
        mysql = "MariaDB" not in databases.value("global", "SELECT VERSION()")
        self.texts = {
            name: collation
            for name, collation in COLLATIONS.items()
            if _cached_decoder(collation, known)
        }
        types = {
            name: f"VARCHAR(20) CHARACTER SET {each.split('_')[0]} COLLATE {each}"
            for name, each in self.texts.items()
        }
        others = {
            name: (type_, make)
            for name, (type_, make) in OTHERS.items()
            if not (mysql and name == "document")
        }
        types.update({name: type_ for name, (type_, _) in others.items()})
        rows = []
        for number in range(count):
            row: Dict[str, Any] = {"id": number}
            for name in types:
                if random.random() < 0.1:
                    row[name] = None
                elif name in self.texts:
                    # MySQL groups no-break spaces at an end apart, and finds them equal
                    # when it sorts or compares.
                    row[name] = random.choice(
                        [
                            text
                            for text in _letters(self.texts[name])
                            if not (mysql and "\xa0" in text)
                        ]
                    )
                else:
                    row[name] = (
                        _for_mysql(others[name][1](random)) if mysql else others[name][1](random)
                    )
            rows.append(row)
        self.columns = list(types)
        self.texts.update(padded="", text="")
        made = (
            "CREATE TABLE things (id INT PRIMARY KEY, "
            + ", ".join([f"`{name}` {type_}" for name, type_ in types.items()])
            + ")"
        )
        parts: Dict[Any, Any] = {"global": rows, 1: rows[::2], 2: rows[1::2]}
        for place, chosen in parts.items():
            values = [
                f"({', '.join([literal(value) for value in row.values()])})" for row in chosen
            ]
            databases.run(
                place,
                "SET sql_mode = ''",
                "DROP TABLE IF EXISTS things",
                made,
                f"INSERT INTO things VALUES {', '.join(values)}",
            )

    def drop(self, databases: Databases) -> None:
        for place in ("global", 1, 2):
            databases.run(place, "DROP TABLE things")


def _cached_decoder(collation: str, known: Any) -> bool:
    # MariaDB lists the newest without their character set.
    return collation in known or collation.partition("_")[2] in known


def _for_mysql(value: Any) -> Any:
    """Its own MIN and MAX of days that are partly zero are 0000-00-00 in a GROUP BY,
    which may also keep the two zeros apart.
    """
    return (
        "2020-02-29"
        if str(value).startswith("2020-0") and "-00" in str(value)
        else value + 0.0
        if isinstance(value, float)
        else value
    )


def _letters(collation: str) -> List[str]:
    return (
        LATIN if collation.startswith("latin1") else NARROW if collation.startswith("gbk") else WIDE
    )


def idle(db: Any) -> bool:
    return all(figures.in_use == 0 for figures in db.stats().values())


def exact(rows: List[Any]) -> List[Any]:
    return [[(name, type(value), value) for name, value in row.items()] for row in rows]


@pytest.fixture
def things(databases: Databases, seed: int) -> Any:
    made = Things(databases, random.Random(seed), 120)
    yield made
    made.drop(databases)


@pytest.mark.slow
def test_a_merge_is_what_one_server_says(db: Any, io: IO, things: Things, seed: int) -> None:
    chance = random.Random(seed + 1)
    orders = [[column] for column in things.columns] + [
        chance.sample(things.columns, chance.randint(2, 4)) for _ in range(40)
    ]
    for columns in orders:
        terms = [f"{name} DESC" if chance.random() < 0.5 else name for name in [*columns, "id"]]
        limit = chance.choice([None, None, 1, 7, 200])
        where, params = chance.choice(
            [("", None), (" WHERE id %% 3 <> %s", (1,)), (" WHERE number > %(n)s", {"n": 0})]
        )
        sql = f"SELECT * FROM things{where}"
        one = io(
            db.query(
                f"{sql} ORDER BY {', '.join(terms)}" + (f" LIMIT {limit}" if limit else ""), params
            )
        )
        assert exact(
            io.collect(db.shards().merge(sql, params, order_by=", ".join(terms), limit=limit))
        ) == exact(one), terms


@pytest.mark.slow
def test_a_total_is_what_one_server_says(db: Any, io: IO, things: Things, seed: int) -> None:
    chance = random.Random(seed + 2)
    ranks = {}
    for name in things.texts:
        rows = io(
            db.query(f"SELECT {name} AS v, DENSE_RANK() OVER (ORDER BY {name}) AS n FROM things")
        )
        ranks[name] = {row["v"]: row["n"] for row in rows}
    # MySQL groups by a TEXT or BLOB and another column by a hash, under which texts
    # that are equal differ.
    mysql = "MariaDB" not in io(db.query_value("SELECT VERSION()"))
    several = [name for name in things.columns if not (mysql and name in ("text", "lump"))]
    groupings = [
        [],
        *[[name] for name in things.columns],
        *[chance.sample(several, chance.randint(2, 3)) for _ in range(20)],
    ]
    for groups in groupings:
        asked: Dict[str, Any] = {"n": Count()}
        sums: Any = (Count, Sum, Avg)
        for kind in sums:
            asked.update(
                {f"{kind.__name__}_{each}".lower(): kind(each) for each in chance.sample(SUMMED, 3)}
            )
        extremes: Any = (Min, Max)
        for kind in extremes:
            asked.update(
                {
                    f"{kind.__name__}_{each}".lower(): kind(each)
                    for each in chance.sample(things.columns, 4)
                }
            )
        where = chance.choice(["", "", " WHERE id < 5", " WHERE FALSE"])
        sql = f"SELECT * FROM things{where}"
        terms = [
            f"{type(each).__name__.upper()}({each.expression}) AS `{name}`"
            for name, each in asked.items()
        ]
        by = f" GROUP BY {', '.join(groups)} ORDER BY {', '.join(groups)}" if groups else ""
        one = io(db.query(f"SELECT {', '.join([*groups, *terms])} FROM ({sql}) AS q{by}"))
        all_of_them = io(db.shards().aggregate(sql, group_by=groups, **asked))
        shown = {
            **{name: name for name in groups},
            **{name: each.expression for name, each in asked.items() if isinstance(each, Min)},
        }

        def translated(rows: Any, shown: Any = shown) -> Any:
            # Of texts that are equal it is the server's choice which one is shown.
            return [
                {
                    name: ranks[shown[name]][value] if shown.get(name) in ranks else value
                    for name, value in row.items()
                }
                for row in rows
            ]

        assert [list(row) for row in all_of_them] == [list(row) for row in one]
        for ours, theirs in zip(translated(all_of_them), translated(one)):
            for name, value in ours.items():
                assert type(value) is type(theirs[name]), (groups, asked, name)
                if isinstance(value, float):
                    assert math.isclose(value, theirs[name], rel_tol=1e-9, abs_tol=1e-6), (
                        groups,
                        name,
                    )
                else:
                    assert (str(value), value) == (str(theirs[name]), theirs[name]), (
                        groups,
                        asked,
                        name,
                    )


@pytest.fixture
def numbers(databases: Databases) -> Any:
    """1000 numbers on each shard, odd ones on shard 1; a text, its collation and a type
    that differ are on shard 2.
    """
    for shard_id in (1, 2):
        databases.run(
            shard_id,
            "DROP TABLE IF EXISTS numbers",
            (
                "CREATE TABLE numbers (n INT PRIMARY KEY, s VARCHAR(9) COLLATE utf8mb4_bin, "
                "e ENUM('a','b'), i VARCHAR(9), x LONGTEXT)"
            ),
            (
                f"INSERT INTO numbers SELECT 2 * seq - {2 - shard_id}, 's', 'b', '1', "
                "REPEAT('x', 1000) FROM seq_1_to_1000"
            )
            if "MariaDB" in databases.value(1, "SELECT VERSION()")
            else "INSERT INTO numbers WITH RECURSIVE r AS (SELECT 1 AS seq UNION ALL SELECT "
            "seq + 1 FROM r WHERE seq < 1000) "
            f"SELECT 2 * seq - {2 - shard_id}, 's', 'b', '1', REPEAT('x', 1000) FROM r",
        )
    yield
    for shard_id in (1, 2):
        databases.run(shard_id, "DROP TABLE numbers")


@pytest.mark.slow
def test_a_merge_goes_one_row_at_a_time_and_frees_its_connections(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    assert [
        row["n"] for row in io.collect(db.shards().merge("SELECT n FROM numbers", order_by="-n"))
    ] == list(range(2000, 0, -1))
    assert [
        row["n"]
        for row in io.collect(db.shards().merge("SELECT n FROM numbers", order_by=["n"], limit=3))
    ] == [1, 2, 3]
    assert idle(db)
    merge = db.shards().merge("SELECT * FROM numbers", order_by="n DESC")
    assert repr(merge) == "<Merge, not begun>"
    assert idle(db)
    assert io.collect(merge, 1)[0]["n"] == 2000
    assert not idle(db)
    assert io.collect(merge, 2)[1]["n"] == 1998, "the loop goes on where it was left"
    merge.close()
    assert repr(merge) == "<Merge, over>"
    assert io.collect(merge) == []
    io.wait_for(lambda: idle(db))
    with io.entered(db.shards().merge("SELECT * FROM numbers", order_by="n")) as merge:
        io.collect(merge, 5)
    io.wait_for(lambda: idle(db))
    io.collect(db.shards().merge("SELECT * FROM numbers", order_by="n"), 5)
    gc.collect()
    io.wait_for(lambda: idle(db))  # it was forgotten
    assert io.collect(db.shards([]).merge("SELECT 1 AS a", order_by="a")) == []
    assert io.collect(db.shards().merge("SELECT nonsense", order_by="a", limit=0)) == []


@pytest.mark.slow
def test_shards_begin_at_the_same_time(db: Any, io: IO) -> None:
    sql = "SELECT NOW(6) AS a, SLEEP(0.3) AS s, SYSDATE(6) AS b"
    seen = io.collect(db.shards().merge(sql, order_by="a"))
    assert max(row["a"] for row in seen) < min(row["b"] for row in seen)


def test_looking_at_the_columns_runs_nothing(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    slow = (
        "SELECT n, COUNT(*) AS c, SLEEP(20) AS s FROM numbers GROUP BY n UNION SELECT 1, 2, "
        "SLEEP(20)"
    )
    with pytest.raises(
        ParameterError, match="no column 'm' in the result; there are 'n', 'c', 's'"
    ):
        io.collect(db.shards().merge(slow, order_by="n, m", timeout=10))
    with pytest.raises(
        ParameterError, match="no column 'm' in the result; there are 'n', 'c', 's'"
    ):
        io(db.shards().aggregate(slow, group_by="m", total=Sum("n"), timeout=10))
    with pytest.raises(ParameterError, match="Unknown column 'm'.*; there are 'n', 'c', 's'"):
        io(db.shards().aggregate(slow, group_by="n", total=Sum("m"), timeout=10))


def test_a_column_may_be_written_otherwise_on_a_shard(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    databases.run(2, "ALTER TABLE numbers CHANGE n N INT")
    rows = io.collect(db.shards().merge("SELECT * FROM numbers", order_by="-n", limit=2))
    assert [row.get("n", row.get("N")) for row in rows] == [2000, 1999]


def test_ties_come_by_shard(db: Any, io: IO, databases: Databases, numbers: None) -> None:
    rows = io.collect(db.shards().merge("SELECT n, s FROM numbers WHERE n < 9", order_by="S"))
    assert [row["n"] % 2 for row in rows] == [1, 1, 1, 1, 0, 0, 0, 0]


def test_the_best_is_on_one_shard_alone(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    databases.run(2, "UPDATE numbers SET s = 'z' WHERE n = 1000")
    databases.run(1, "DELETE FROM numbers")
    assert io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n", limit=1)) == [
        {"n": 2}
    ]
    assert io.collect(db.shards().merge("SELECT s, n FROM numbers", order_by="-s, n", limit=1)) == [
        {"s": "z", "n": 1000}
    ]
    assert io(db.shards().aggregate("SELECT * FROM numbers", top=Max("s"), n=Count())) == [
        {"top": "z", "n": 1000}
    ]


def test_a_shard_that_fails_is_never_left_out(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    for shards in (db.shards(), db.shards(on_error="partial")):
        late = "SELECT n, (SELECT 1 UNION SELECT IF(n < 1900, 1, 2)) AS one FROM numbers"
        merge = shards.merge(late, order_by="n")
        try:
            io.collect(merge)
            failed = merge.errors  # MySQL looks at all rows before it gives the first
        except ScatterError as error:
            failed = error.result.errors
        assert {(type(each), each.errno) for each in failed.values()} == {(OperationalError, 1242)}
        io.wait_for(lambda: idle(db))
    databases.run(2, "DROP TABLE numbers")
    with pytest.raises(ScatterError, match="1 of 2 shards failed: shard 2"):
        io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n"))
    part = db.shards(on_error="partial").merge("SELECT n FROM numbers", order_by="n")
    assert len(io.collect(part)) == 1000
    assert {shard_id: error.errno for shard_id, error in part.errors.items()} == {2: 1146}
    with pytest.raises(ScatterError):
        io(db.shards().aggregate("SELECT n FROM numbers", n=Count()))
    databases.run(2, "CREATE TABLE numbers (n INT)")
    io(db.set_shard_status(1, "maintenance"))
    with pytest.raises(ScatterError, match="1 of 2 shards failed: shard 1: it is in maintenance"):
        io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n"))
    part = db.shards([1, 9], on_error="partial").merge("SELECT n FROM numbers", order_by="n")
    assert io.collect(part) == []
    assert isinstance(part.errors[1], ShardUnavailable)
    assert sorted(part.errors) == [1, 9]


@pytest.mark.slow
def test_a_merge_that_takes_too_long_or_is_interrupted_frees_its_connections(
    db: Any, io: IO
) -> None:
    with pytest.raises(ScatterError) as caught:
        io.collect(
            db.shards().merge("SELECT SLEEP(20) AS a", order_by="a", timeout=0.4, read_only=True),
        )
    assert {type(error) for error in caught.value.result.errors.values()} == {DeadlineExceeded}
    with io.deadline(0.4), pytest.raises(ScatterError):
        io.collect(db.shards().merge("SELECT SLEEP(20) AS a", order_by="a"))
    with pytest.raises(ScatterError):
        io(db.shards().aggregate("SELECT SLEEP(20) AS a", timeout=0.4, n=Sum("a")))
    io.wait_for(lambda: idle(db))
    merge = db.shards().merge("SELECT SLEEP(2) AS a", order_by="a")
    io.interrupted(lambda: io.advance(merge))
    io.wait_for(lambda: idle(db))
    assert io(db.shards().query("SELECT 7 AS n")).rows == [{"n": 7}, {"n": 7}]


def test_shards_that_differ_are_told_apart(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    databases.run(
        2,
        (
            "ALTER TABLE numbers MODIFY s VARCHAR(9) COLLATE utf8mb4_general_ci, MODIFY i "
            "INT, MODIFY e ENUM('x','a','b')"
        ),
    )
    for column, why in (
        ("s", "text in utf8mb4_bin on shard 1, text in utf8mb4_general_ci on shard 2"),
        ("i", "number on shard 2"),
    ):
        with pytest.raises(
            InterfaceError, match=f"the column '{column}' is not the same on all shards.*{why}"
        ):
            io.collect(db.shards().merge("SELECT * FROM numbers", order_by=column))
        with pytest.raises(InterfaceError, match="not the same on all shards"):
            io(db.shards().aggregate("SELECT * FROM numbers", group_by=column, n=Count()))
    for shard_id, type_ in ((1, "DATE"), (2, "DATETIME")):
        databases.run(
            shard_id,
            "DROP TABLE IF EXISTS days",
            f"CREATE TABLE days (d {type_}, t DATETIME({shard_id}))",
        )
        databases.run(shard_id, "INSERT INTO days VALUES ('2024-01-01', '2024-01-01')")
    for column, why in (
        ("d", r"DATE on shard 1, DATETIME\(0\) on shard 2"),
        ("t", r"DATETIME\(1\) on shard 1, DATETIME\(2\) on shard 2"),
    ):
        with pytest.raises(InterfaceError, match=why):
            io(db.shards().aggregate("SELECT * FROM days", group_by=column, n=Count()))
    with pytest.raises(InterfaceError, match="top is not the same on all shards"):
        io(db.shards().aggregate("SELECT * FROM numbers", top=Max("s")))
    with pytest.raises(InterfaceError, match="does not have the same members in the same order"):
        io.collect(db.shards().merge("SELECT * FROM numbers", order_by="e"))
    io.wait_for(lambda: idle(db))


def test_what_has_no_order_here_is_refused(db: Any, io: IO, databases: Databases) -> None:
    mysql = "MariaDB" not in databases.value(1, "SELECT VERSION()")
    for type_ in (
        ["GEOMETRY", "JSON"]
        if mysql
        else ["GEOMETRY", "INET6", "VARCHAR(9) COLLATE latin2_czech_cs"]
    ):
        for shard_id in (1, 2):
            databases.run(shard_id, "DROP TABLE IF EXISTS odd", f"CREATE TABLE odd (a {type_})")
        with pytest.raises(ParameterError, match="whose order is not supported"):
            io.collect(db.shards().merge("SELECT a FROM odd", order_by="a"))
        refused: Any = (
            (ScatterError, "Incorrect arguments")
            if mysql and type_ == "GEOMETRY"
            else (ParameterError, "order is not supported")
        )
        with pytest.raises(refused[0], match=refused[1]):
            io(db.shards().aggregate("SELECT a FROM odd", top=Max("a")))
    for shard_id in (1, 2):
        databases.run(shard_id, "DROP TABLE odd")


@pytest.mark.slow
def test_texts_that_are_longer_than_what_a_server_sorts_by(
    db: Any, io: IO, databases: Databases, seed: int
) -> None:
    """In a long column a server's own order forgets accents and case; beyond
    max_sort_length it forgets everything.
    """
    chance = random.Random(seed)
    rows = [
        (
            number,
            "a" * chance.choice([0, 0, 1, 20])
            + chance.choice(["", "a", "A", "á", "a ", "b", "B", "a\t"]),
        )
        for number in range(100)
    ]
    rows += [(100 + number, "x" * 2000 + chance.choice("abAB")) for number in range(20)]
    known = {row["Collation"] for row in databases.run("global", "SHOW COLLATION")}
    for collation in [
        each
        for each in ("utf8mb4_general_ci", *COLLATIONS.values())
        if _cached_decoder(each, known) and "utf8mb4" in each
    ]:
        for type_ in ("TEXT", "VARCHAR(300)"):
            made = f"CREATE TABLE longs (id INT PRIMARY KEY, s {type_} COLLATE {collation})"
            parts: Dict[Any, Any] = {"global": rows[:100], 1: rows[::2], 2: rows[1::2]}
            for place, chosen in parts.items():
                column = (
                    made.replace(type_, "VARCHAR(30)")
                    if place == "global"
                    else made.replace("(300)", "(3000)")
                )
                values = ", ".join([f"({number}, {literal(text)})" for number, text in chosen])
                databases.run(
                    place,
                    "DROP TABLE IF EXISTS longs",
                    column,
                    f"INSERT INTO longs VALUES {values}",
                )
            one = [row["id"] for row in io(db.query("SELECT id FROM longs ORDER BY s, id"))]
            for limit in (None, 60, 119):
                ours = [
                    row["id"]
                    for row in io.collect(
                        db.shards().merge("SELECT * FROM longs", order_by="s, id", limit=limit),
                    )
                ]
                short = [number for number in ours if number < 100]
                assert short == one[: len(short)], (collation, type_, limit)
                assert len(set(ours)) == (limit or 120)
            descending = io.collect(
                db.shards().merge(
                    "SELECT * FROM longs WHERE id < 100", order_by="-s, id", limit=60
                ),
            )
            assert [row["id"] for row in descending] == [
                row["id"] for row in io(db.query("SELECT id FROM longs ORDER BY s DESC, id"))
            ][:60]
    for place in ("global", 1, 2):
        databases.run(place, "DROP TABLE longs")


def test_totals_of_nothing_of_much_and_of_odd_names(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    shards = db.shards()
    asked: Dict[str, Any] = {
        "n": Count(),
        "some": Count("n"),
        "total": Sum("n"),
        "mean": Avg("n"),
        "low": Min("s"),
    }
    nothing = {"n": 0, "some": 0, "total": None, "mean": None, "low": None}
    assert io(shards.aggregate("SELECT * FROM numbers WHERE FALSE", **asked)) == [nothing]
    assert io(shards.aggregate("SELECT * FROM numbers WHERE FALSE", group_by="s", **asked)) == []
    assert io(db.shards([]).aggregate("SELECT * FROM numbers", **asked)) == [nothing]
    huge = "9" * 40
    (row,) = io(
        shards.aggregate(
            f"SELECT {huge} AS a UNION ALL SELECT 1 FROM numbers WHERE n < %s", (4,), total=Sum("a")
        )
    )
    assert row == {"total": decimal.Decimal(2 * int(huge) + 3)}
    odd = {"a `b` %s": Sum("`x %` % 7"), "100%": Count("'%'")}
    rows = io(
        shards.aggregate(
            "SELECT n AS `x %%`, %s AS `a,b` FROM numbers -- all; of (them",
            ("g",),
            group_by="`a,b`",
            **odd,
        )
    )
    assert rows == [{"a,b": "g", "a `b` %s": decimal.Decimal(6000), "100%": 2000}]
    assert io(shards.aggregate("SELECT n % 2 AS odd FROM numbers;", group_by="ODD")) == [
        {"ODD": 0},
        {"ODD": 1},
    ]


def test_read_only_shards_and_transactions(
    db: Any, io: IO, databases: Databases, numbers: None
) -> None:
    io(db.set_shard_status(2, "readonly"))
    assert len(io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n", limit=4))) == 4
    assert io(db.shards().aggregate("SELECT n FROM numbers", n=Count())) == [{"n": 2000}]
    unsure = "SELECT n, BENCHMARK(1, 1) AS b FROM numbers"
    with pytest.raises(ScatterError) as caught:
        io.collect(db.shards().merge(unsure, order_by="n"))
    assert isinstance(caught.value.result.errors[2], ShardReadOnly)
    assert len(io.collect(db.shards().merge(unsure, order_by="n", limit=4, read_only=True))) == 4
    assert io(db.shards().aggregate(unsure, n=Count(), read_only=True)) == [{"n": 2000}]
    with io.entered(db.transaction()):
        assert (
            len(io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n", limit=4))) == 4
        )
    with io.entered(db.shard(1).transaction()):
        with pytest.raises(CrossShardError):
            io.collect(db.shards().merge("SELECT n FROM numbers", order_by="n"))
        with pytest.raises(CrossShardError):
            io(db.shards().aggregate("SELECT n FROM numbers", n=Count()))


def test_bad_input_is_refused_before_anything_is_sent(
    open_service: Callable[..., Any], io: IO
) -> None:
    db = open_service()
    io(db.close_service())
    shards: Any = db.shards()
    merges: List[Any] = [
        ("SELECT 1 AS a LIMIT 3", {}),
        ("SELECT 1 AS a ORDER BY a", {}),
        ("UPDATE t SET a = 1", {}),
        ("SELECT %s", {"params": ()}),
        ("SELECT 1 AS a", {"order_by": ""}),
        ("SELECT 1 AS a", {"order_by": []}),
        ("SELECT 1 AS a", {"limit": -1}),
        ("SELECT 1 AS a", {"limit": True}),
        ("SELECT 1 AS a", {"timeout": -1}),
    ]
    for sql, options in merges:
        with pytest.raises(ParameterError):
            shards.merge(sql, **{"order_by": "a", **options})
    totals: List[Any] = [
        ("SELECT 1 AS a LIMIT 3", {"n": Count()}),
        ("SELECT 1 AS a", {}),
        ("SELECT 1 AS a", {"n": Count}),
        ("SELECT 1 AS a", {"n": "COUNT(*)"}),
        ("SELECT 1 AS a", {"A": Count(), "group_by": "a"}),
        ("SELECT 1 AS a", {"n": Count(), "group_by": "-a"}),
        ("SELECT 1 AS a", {"n": Count(), "timeout": "1"}),
    ]
    for sql, options in totals:
        with pytest.raises(ParameterError):
            shards.aggregate(sql, **options)
    with pytest.raises(ParameterError, match="partial"):
        db.shards(on_error="partial").aggregate("SELECT 1 AS a", n=Count())


def test_an_hour_that_comes_twice(db: Any, io: IO, databases: Databases) -> None:
    """Moments compare as moments, however a time zone writes them."""
    moments = [1_700_000_000 + hour * 600 for hour in range(12)]
    for shard_id in (1, 2):
        values = ", ".join([f"(FROM_UNIXTIME({each}))" for each in moments[shard_id - 1 :: 2]])
        databases.run(
            shard_id,
            "DROP TABLE IF EXISTS moments",
            "CREATE TABLE moments (at TIMESTAMP)",
            f"INSERT INTO moments VALUES {values}",
        )
    rows = io.collect(
        db.shards().merge("SELECT at, UNIX_TIMESTAMP(at) AS n FROM moments", order_by="at")
    )
    assert [row["n"] for row in rows] == moments
    assert isinstance(rows[0]["at"], datetime.datetime)
    for shard_id in (1, 2):
        databases.run(shard_id, "DROP TABLE moments")
