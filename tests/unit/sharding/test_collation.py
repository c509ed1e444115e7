"""How the values of a column compare as the server compares them."""

import decimal
from typing import Any, List, Tuple

import pymysql
import pytest
from pymysql.constants import FIELD_TYPE, FLAG
from scripted_exchanges import UTF8, run_scripted

from dualdb import InterfaceError, ParameterError
from dualdb.results import Column, ResultSet
from dualdb.sharding.collation import ASKED, ColumnProbe, Descending, Padded, key, probe_terms

D = decimal.Decimal
TRADES = ("SELECT id, px FROM trades", None, False)


def test_the_shorter_of_two_texts_goes_on_in_spaces() -> None:
    a, space, tab, b = b"\0a", b"\0 ", b"\0\t", b"\0b"
    rising = [a + tab, a + tab + b, a, a + space + b, a + b]
    texts = [Padded(weights, space) for weights in rising]
    assert sorted([texts[at] for at in (3, 1, 4, 0, 2)]) == texts
    assert Padded(a + space + space, space) == Padded(a, space)
    assert hash(Padded(a + space, space)) == hash(Padded(a, space))
    assert not Padded(a, space) < Padded(a + space, space)
    assert not Padded(b"", space) < Padded(b"", space)


def test_descending_and_null() -> None:
    number = key("n", Column("n", FIELD_TYPE.LONG, 0, 63, 0), [])
    ranks = [number.of(value, ()) for value in (None, -1, 0, D("0.5"))]
    assert sorted([ranks[at] for at in (2, 0, 3, 1)]) == ranks
    assert [each.value for each in sorted(map(Descending, ranks))] == ranks[::-1]
    assert Descending(1) == Descending(1)
    assert hash(Descending(1)) == hash(Descending(1))


TEXT = ["utf8mb4_general_ci", 1, b"\0 ", b"\0 ", b"\0 ", b"\0 "]
ROUNDS = ["utf8mb4_uca1400_as_cs", 1, b"SEC", b"S", b"E", b"C"]


@pytest.mark.parametrize(
    ("column", "translated", "kind", "terms"),
    [
        (Column("a", FIELD_TYPE.LONGLONG, FLAG.UNSIGNED, 63, 0), [], "number", ()),
        (Column("a", FIELD_TYPE.NEWDECIMAL, 0, 63, 2), [], "number", ()),
        (Column("a", FIELD_TYPE.BIT, 0, 63, 0), [], "number", ()),
        (Column("a", FIELD_TYPE.FLOAT, 0, 63, 31), [], "floating point number", ("{}+0e0",)),
        (Column("a", FIELD_TYPE.TIMESTAMP, 0, 63, 0), [], "timestamp", ("UNIX_TIMESTAMP({})",)),
        (Column("a", FIELD_TYPE.TIME, 0, 63, 0), [], "time", ()),
        (Column("a", FIELD_TYPE.STRING, FLAG.ENUM, 45, 0), TEXT, "ENUM", ("{}+0",)),
        (Column("a", FIELD_TYPE.STRING, FLAG.SET, 45, 0), TEXT, "SET", ("{}+0",)),
        (Column("a", FIELD_TYPE.BLOB, 0, 63, 0), [], "binary text", ()),
        (
            Column("a", FIELD_TYPE.VAR_STRING, 0, 45, 0),
            TEXT,
            "text in utf8mb4_general_ci",
            ("WEIGHT_STRING({})",),
        ),
        (
            Column("a", FIELD_TYPE.VAR_STRING, 0, 45, 0),
            ROUNDS,
            "text in utf8mb4_uca1400_as_cs",
            (
                "WEIGHT_STRING({} /*M! LEVEL 1 */)",
                "WEIGHT_STRING({} /*M! LEVEL 2 */)",
                "WEIGHT_STRING({} /*M! LEVEL 3 */)",
            ),
        ),
    ],
)
def test_how_a_column_compares(column: Column, translated: Any, kind: str, terms: Any) -> None:
    found = key("the column 'a'", column, translated)
    assert (found.kind, found.terms) == (kind, terms)
    assert found.by == (
        tuple([f"RPAD({term}, 512, X'{pad}')" for term, pad in zip(terms, ("53", "45", "43"))])
        if translated is ROUNDS
        else ("{}",)
    )


@pytest.mark.parametrize(
    ("type_code", "translated"),
    [
        (FIELD_TYPE.JSON, TEXT),
        (FIELD_TYPE.GEOMETRY, TEXT),
        (FIELD_TYPE.STRING, ["latin1_swedish_ci", None, None, None, None, None]),
        (FIELD_TYPE.STRING, ["latin2_czech_cs", 1, b"\1\1\1\0", b"\1", b"\1", b"\1"]),
    ],
)
def test_what_has_no_known_order(type_code: int, translated: Any) -> None:
    with pytest.raises(ParameterError, match="the column 'a' has .* whose order is not supported"):
        key("the column 'a'", Column("a", type_code, 0, 45, 0), translated)


def test_members_have_one_number_each() -> None:
    column = Column("a", FIELD_TYPE.STRING, FLAG.ENUM, 45, 0)
    for other in (("x", 1), ("a", 2)):
        enum = key("a", column, TEXT)
        assert enum.of("a", [1]) == (1, 1)
        assert enum.of("", [0]) == (1, 0)
        with pytest.raises(InterfaceError):
            enum.of(other[0], [other[1]])
    members = key("a", Column("a", FIELD_TYPE.STRING, FLAG.SET, 45, 0), TEXT)
    assert members.of("a,b", [3]) < members.of("c", [4])


def probe(term: str, tail: str, wanted: List[str]) -> Tuple[ColumnProbe, bytes]:
    """Return a probe of a query, and the statement that it sends."""
    statement = (
        f"SELECT q.*, {term} FROM (SELECT 1 AS dualdb_one) AS o LEFT JOIN (SELECT * FROM (\n"
        f"{TRADES[0]}\nLIMIT 0\n) AS z LIMIT 0) AS q ON FALSE {tail}"
    )
    return ColumnProbe(["q.*", term], TRADES, tail, wanted), statement.rstrip().encode()


def test_a_probe_names_the_column_that_is_missing() -> None:
    columns = f"SELECT * FROM (\n{TRADES[0]}\nLIMIT 0\n) AS q LIMIT 0".encode()
    unknown = pymysql.err.OperationalError(1054, "Unknown column 'q.qty' in 'field list'")
    found = [ResultSet([], ("id", "px"), 0, 0, 0)]
    named, statement = probe("COLLATION(q.`qty`)", "GROUP BY q.`qty`", ["PX", "qty"])
    with pytest.raises(ParameterError) as caught:
        run_scripted(named.exchange(UTF8), [(statement, unknown), (columns, found)])
    assert str(caught.value) == "no column 'qty' in the result; there are 'id', 'px'"
    inside, statement = probe("SUM(qty)", "", ["px"])
    with pytest.raises(ParameterError, match="Unknown column.*; there are 'id', 'px'"):
        run_scripted(inside.exchange(UTF8), [(statement, unknown), (columns, found)])


def test_other_errors_of_a_probe_are_not_converted() -> None:
    denied = pymysql.err.OperationalError(1142, "SELECT command denied")
    refused, statement = probe("SUM(px)", "", [])
    with pytest.raises(pymysql.err.OperationalError, match="denied"):
        run_scripted(refused.exchange(UTF8), [(statement, denied)])


def test_what_is_probed_of_an_expression() -> None:
    assert probe_terms("q.`a`") == [
        "COLLATION(q.`a`)",
        "COALESCE(q.`a`, 'a') = COALESCE(q.`a`, 'a ')",
        "WEIGHT_STRING(COALESCE(q.`a`, ' '))",
        *[f"WEIGHT_STRING(COALESCE(q.`a`, ' ') /*M! LEVEL {level} */)" for level in (1, 2, 3)],
    ]
    assert len(probe_terms("a")) == ASKED
