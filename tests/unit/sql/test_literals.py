"""Values as SQL: what a subclass says of itself is never written."""

import datetime
import decimal
import enum
import random
import uuid
from typing import Any, Callable, Dict, List, Type

import pytest
from pymysql.converters import escape_item

from dualdb import ParameterError
from dualdb.sql.literals import LiteralStyle, literal, time_zone
from dualdb.sql.parameters import bind, bind_early

UTC = datetime.timezone.utc
INJECTED = "1); DROP TABLE t -- '"

#: Built-in types that can have subclasses, with a value of each and how it is written.
BUILT_IN: Dict[type, Any] = {
    str: ("it's", "'it\\'s'"),
    int: (7, "7"),
    float: (0.5, "0.5e0"),
    decimal.Decimal: ("1.50", "1.50"),
    bytes: (b"a'", "_binary X'6127'"),
    bytearray: (b"a'", "_binary X'6127'"),
    datetime.date: ((2024, 5, 6), "'2024-05-06'"),
    datetime.datetime: ((2024, 5, 6, 7, 8, 9, 10), "'2024-05-06 07:08:09.000010'"),
    datetime.time: ((7, 8, 9, 10), "'07:08:09.000010'"),
    datetime.timedelta: ((1, 2, 3), "'24:00:02.000003'"),
    uuid.UUID: ("00000000-0000-0000-0000-000000000001", "'00000000-0000-0000-0000-000000000001'"),
    tuple: ([1, "a"], "(1,'a')"),
    list: ([1, "a"], "(1,'a')"),
    set: ([1], "(1)"),
    frozenset: ([1], "(1)"),
}

#: Whatever a value could be asked for to write it, beside what makes and compares it.
METHODS = [
    "__str__", "__repr__", "__format__", "__index__", "__int__", "__float__", "__iter__", "__len__",
    "__getitem__", "__bytes__", "__add__", "__mod__", "__bool__", "__abs__", "__complex__",
    "__getnewargs__", "__reduce__", "__copy__", "isoformat", "strftime", "replace", "encode",
    "translate", "hex", "tobytes", "decode", "total_seconds", "date", "time", "timetz", "utcoffset",
    "astimezone", "timetuple", "toordinal", "as_tuple", "adjusted", "is_finite", "is_integer",
    "join", "copy", "pop",
]  # fmt: skip
FIELDS = [
    "year", "month", "day", "hour", "minute", "second", "microsecond", "tzinfo", "days", "seconds",
    "microseconds", "real", "numerator", "hex", "bytes", "fields",
]  # fmt: skip


def made(base: Any, given: Any, cls: Any) -> Any:
    several = isinstance(given, tuple) and base not in (tuple, list, set, frozenset)
    return cls(*given) if several else cls(given)


def hostile(base: Any) -> Any:
    """A subclass that writes itself as SQL wherever it is asked."""
    answers: Dict[str, Any] = {name: lambda self, *args, **named: INJECTED for name in METHODS}
    if base is not uuid.UUID:
        answers.update({name: property(lambda self: INJECTED) for name in FIELDS})
    return type(f"Hostile{base.__name__}", (base,), answers)


@pytest.mark.parametrize("base", BUILT_IN)
def test_a_subclass_is_written_as_its_base(base: Any) -> None:
    given, text = BUILT_IN[base]
    assert literal(made(base, given, base)) == text
    assert literal(made(base, given, type("Sub", (base,), {}))) == text


@pytest.mark.parametrize("base", BUILT_IN)
def test_the_methods_of_a_subclass_write_nothing(base: Any) -> None:
    given, text = BUILT_IN[base]
    value = made(base, given, hostile(base))
    assert literal(value) == text
    assert literal(value, LiteralStyle(backslash_escapes=False)) == text.replace("\\'", "''")


@pytest.mark.parametrize("base", BUILT_IN)
def test_a_value_that_its_base_would_write_otherwise_is_refused(base: Any) -> None:
    given, _ = BUILT_IN[base]
    namespace = {"__eq__": lambda self, other: False, "__hash__": base.__hash__}
    with pytest.raises(ParameterError, match="would be a different value"):
        literal(made(base, given, type("Other", (base,), namespace)))


@pytest.mark.parametrize("base", BUILT_IN)
def test_a_comparison_that_fails_is_a_refusal(base: Any) -> None:
    def fail(self: Any, other: Any) -> bool:
        raise RuntimeError("the truth value is ambiguous")

    given, _ = BUILT_IN[base]
    namespace = {"__eq__": fail, "__hash__": base.__hash__}
    with pytest.raises(ParameterError, match="its own methods failed"):
        literal(made(base, given, type("Failing", (base,), namespace)))


def test_parameters_in_a_subclass_are_counted_and_taken_by_its_base() -> None:
    class Row(tuple):  # type: ignore[type-arg]
        def __iter__(self) -> Any:
            return iter(["another"])

        def __len__(self) -> int:
            return 1

    assert bind("SELECT %s, %s", Row([1, 2])) == "SELECT 1, 2"


class Plain(enum.Enum):
    A = "a'"


class Number(enum.IntEnum):
    A = 3


class Word(str, enum.Enum):
    A = "a"


class Named(str, enum.Enum):
    """Its value is not the text that it is."""

    def __new__(cls, text: str, value: int) -> "Named":
        self = str.__new__(cls, text)
        self._value_ = value
        return self

    A = ("a", 5)


class Bits(enum.Flag):
    A = 1
    B = 2


@pytest.mark.parametrize(
    ("member", "text"),
    [(Plain.A, "'a\\''"), (Number.A, "3"), (Word.A, "'a'"), (Bits.A | Bits.B, "3")],
)
def test_a_member_of_an_enum_is_its_value(member: Any, text: str) -> None:
    assert literal(member) == text


def test_a_member_of_which_it_is_not_clear_what_it_is_is_refused() -> None:
    with pytest.raises(ParameterError, match="would be a different value"):
        literal(Named.A)


def test_an_index_is_an_integer() -> None:
    class Loud(int):
        def __str__(self) -> str:
            return INJECTED

        __repr__ = __str__
        __format__ = __str__  # type: ignore[assignment]

    class Index:
        def __init__(self, number: Any) -> None:
            self.number = number

        def __index__(self) -> Any:
            return self.number

    class Comparing(Index):
        def __eq__(self, other: object) -> bool:
            return False

        __hash__ = None  # type: ignore[assignment]

    assert literal(Index(5)) == "5"
    assert literal(Index(Loud(5))) == "5"
    for value in (Index("1 OR 1"), Index(1.5), Comparing(5)):
        with pytest.raises(ParameterError):
            literal(value)


class TestOfOtherPackages:
    def test_numpy(self) -> None:
        np = pytest.importorskip("numpy")
        assert literal(np.int64(-5)) == "-5"
        assert literal(np.uint64(2**64 - 1)) == str(2**64 - 1)
        assert literal(np.float64(0.1)) == "0.1e0"
        assert literal(np.float32(0.5)) == "0.5e0"
        assert literal(np.bool_(True)) == "1"
        assert literal(np.str_("a'")) == "'a\\''"
        assert literal(np.bytes_(b"a")) == "_binary X'61'"
        assert literal(np.datetime64("2024-05-06T07:08:09")) == "'2024-05-06 07:08:09'"
        assert literal([np.int8(1), np.int16(2)]) == "(1,2)"
        refused = [
            np.datetime64("2024-05-06T07:08:09.000000001"),
            np.datetime64("NaT", "us"),
            np.timedelta64(5, "ns"),
            np.complex128(1),
            np.array([1, 2]),
            np.array([1]),
            np.float32("nan"),
        ]
        for value in refused:
            with pytest.raises(ParameterError):
                literal(value)

    def test_pandas(self) -> None:
        pd = pytest.importorskip("pandas")
        assert literal(pd.Timestamp("2024-05-06 07:08:09.5")) == "'2024-05-06 07:08:09.500000'"
        assert literal(pd.Timedelta(days=-1, seconds=1)) == "'-23:59:59'"
        for value in (pd.NaT, pd.NA, pd.Timestamp(1), pd.Timedelta(1), pd.Series([1])):
            with pytest.raises(ParameterError):
                literal(value)

    def test_pendulum(self) -> None:
        pendulum = pytest.importorskip("pendulum")
        assert literal(pendulum.duration(days=3, hours=1)) == "'73:00:00'"
        assert literal(pendulum.date(2024, 5, 6)) == "'2024-05-06'"
        begin, end = pendulum.datetime(2024, 5, 6), pendulum.datetime(2024, 5, 7, 1)
        assert literal(end - begin) == "'25:00:00'"
        assert literal(begin, LiteralStyle(time_zone=UTC)) == "'2024-05-06 00:00:00'"
        with pytest.raises(ParameterError):
            literal(begin)


MOMENT = datetime.datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_an_aware_datetime_is_converted_to_the_zone_of_the_session() -> None:
    east = LiteralStyle(time_zone=time_zone("+05:30"))
    assert literal(MOMENT, east) == "'2024-01-02 08:34:05'"
    assert (
        literal([MOMENT], LiteralStyle(time_zone=time_zone("-1:00"))) == "('2024-01-02 02:04:05')"
    )
    text, by_style = bind_early("SELECT %s", (MOMENT,))
    assert (text, by_style) == ("SELECT '2024-01-02 03:04:05'", True)
    with pytest.raises(ParameterError, match="time_zone="):
        bind("SELECT %s", (MOMENT,))
    with pytest.raises(ParameterError, match="a time with a time zone"):
        literal(MOMENT.timetz(), east)


class Zone(datetime.tzinfo):
    """A time zone that answers so, or fails so."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    def utcoffset(self, moment: Any) -> Any:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def dst(self, moment: Any) -> Any:
        return None

    def tzname(self, moment: Any) -> Any:
        return None


@pytest.mark.parametrize(
    ("moment", "why"),
    [
        (datetime.datetime.min.replace(tzinfo=datetime.timezone.max), "out of range"),
        (datetime.datetime.max.replace(tzinfo=datetime.timezone.min), "out of range"),
        (datetime.datetime(2024, 1, 2, tzinfo=Zone(RuntimeError("no map"))), "no map"),
        (datetime.datetime(2024, 1, 2, tzinfo=Zone(None)), "does not say its offset"),
        (datetime.datetime(2024, 1, 2, tzinfo=Zone("east")), "utcoffset"),
    ],
)
def test_a_datetime_that_cannot_be_converted_is_refused(moment: Any, why: str) -> None:
    with pytest.raises(ParameterError, match=why):
        literal(moment, LiteralStyle(time_zone=UTC))
    with pytest.raises(ParameterError, match=why):
        bind_early("SELECT %s", (moment,))


@pytest.mark.parametrize("value", [[[]], [(1, 2), ()], ({1}, frozenset()), [[1, []]]])
def test_an_empty_sequence_within_another_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError, match="empty sequence within another"):
        bind("SELECT 1 FROM t WHERE (a, b) IN %s", (value,))


@pytest.mark.parametrize("name", [None, "SYSTEM", "system", "No/Where", "../etc", ""])
def test_time_zones_that_are_not_known(name: Any) -> None:
    assert time_zone(name) is None


def test_time_zones_that_are() -> None:
    assert time_zone("utc") is UTC
    assert time_zone("+14:00") == datetime.timezone(datetime.timedelta(hours=14))
    pytest.importorskip("tzdata")
    berlin = LiteralStyle(time_zone=time_zone("Europe/Berlin"))
    assert literal(MOMENT, berlin) == "'2024-01-02 04:04:05'"
    assert literal(MOMENT.replace(month=7), berlin) == "'2024-07-02 05:04:05'"


@pytest.mark.parametrize(
    "value",
    [
        10**81,
        -(10**81),
        decimal.Decimal("1E+81"),
        decimal.Decimal("1E+999999"),
        decimal.Decimal("0E+999999"),
        decimal.Decimal("1E-1001"),
        decimal.Decimal("sNaN"),
        float("-inf"),
        datetime.timedelta(hours=839),
        datetime.timedelta(hours=-839),
        datetime.timedelta.max,
        datetime.timedelta.min,
    ],
)
def test_what_no_server_reads_is_refused(value: Any) -> None:
    with pytest.raises(ParameterError):
        literal(value)


@pytest.mark.parametrize(
    ("delta", "text"),
    [
        (datetime.timedelta(0), "'00:00:00'"),
        (datetime.timedelta(seconds=-1), "'-00:00:01'"),
        (datetime.timedelta(seconds=-0.5), "'-00:00:00.500000'"),
        (datetime.timedelta(hours=-838, minutes=-59, seconds=-59), "'-838:59:59'"),
        (datetime.timedelta(days=1, microseconds=-1), "'23:59:59.999999'"),
    ],
)
def test_intervals(delta: datetime.timedelta, text: str) -> None:
    assert literal(delta) == text


def moment(spread: random.Random) -> datetime.datetime:
    micro = spread.choice([0, spread.randrange(10**6)])
    day = datetime.date(spread.randint(1, 9999), spread.randint(1, 12), spread.randint(1, 28))
    clock = datetime.time(spread.randrange(24), spread.randrange(60), spread.randrange(60), micro)
    return datetime.datetime.combine(day, clock)


#: Values of exactly these types, which are written as PyMySQL writes them.
SAME_AS_PYMYSQL: Dict[Type[Any], Callable[[random.Random], Any]] = {
    type(None): lambda spread: None,
    bool: lambda spread: spread.random() < 0.5,
    bytes: lambda spread: spread.getrandbits(64).to_bytes(8, "big"),
    int: lambda spread: spread.randint(-(2**70), 2**70),
    float: lambda spread: spread.uniform(-1, 1) * 10 ** spread.randint(-300, 300),
    str: lambda spread: "".join(spread.choices("a'\"\\\0\n\r\x1a%_é🙂 ;-", k=12)),
    decimal.Decimal: lambda spread: decimal.Decimal(spread.randint(-(10**20), 10**20)) / 1000,
    datetime.datetime: moment,
    datetime.date: lambda spread: moment(spread).date(),
    datetime.time: lambda spread: moment(spread).time(),
    datetime.timedelta: lambda spread: datetime.timedelta(
        spread.randrange(30), spread.randrange(86400), spread.choice([0, spread.randrange(10**6)])
    ),
}


@pytest.mark.parametrize("kind", SAME_AS_PYMYSQL)
def test_values_are_written_as_pymysql_writes_them(kind: Any, seed: int) -> None:
    spread = random.Random(seed)
    values: List[Any] = [SAME_AS_PYMYSQL[kind](spread) for _ in range(300)]
    assert [literal(value) for value in values] == [
        escape_item(value, "utf8mb4") for value in values
    ]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT '%s'",
        'SELECT "%s"',
        "SELECT `%s`",
        "SELECT 1 /* %s */",
        "SELECT 1 -- %s",
        "SELECT 'a''%s'",
        "SELECT '%%%s%%'",
        "SELECT '%(a)s'",
    ],
)
def test_within_quotes_only_a_number_is_written(sql: str) -> None:
    params: Any = {"a": "x"} if "(a)" in sql else ("x",)
    numbers: Any = {"a": -5} if "(a)" in sql else (-5,)
    with pytest.raises(ParameterError, match="within quotes or a comment"):
        bind_early(sql, params)
    assert "-5" in bind(sql, numbers)


def test_a_backslash_before_a_quote_is_read_by_the_sessions_mode() -> None:
    plain = LiteralStyle(backslash_escapes=False)
    for sql, escaped_takes_it in (("SELECT 'a\\', %s, 'b'", False), ("SELECT 'a\\'', %s", True)):
        assert bind_early(sql, ("x",))[1] is not escaped_takes_it
        taking, refusing = (LiteralStyle(), plain) if escaped_takes_it else (plain, LiteralStyle())
        assert "'x'" in bind(sql, ("x",), taking)
        with pytest.raises(ParameterError):
            bind(sql, ("x",), refusing)
