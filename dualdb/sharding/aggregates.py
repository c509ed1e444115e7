"""Counts, sums, averages and extremes over several shards. Pure.

Each shard aggregates its own rows by group; here the partial results are combined.
"""

import decimal
import math
from fractions import Fraction
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .. import deadlines, errors
from ..errors import ParameterError
from ..execution import steps
from ..results import Column, Described, Row, ScatterResult
from ..sql import identifiers
from . import subquery
from .collation import (
    ASKED,
    DECIMALS,
    FLOATS,
    ColumnProbe,
    Key,
    key,
    probe_terms,
    require_same_kind,
)
from .merge import ordered

#: Python's own context rounds to 28 digits, and a server's DECIMAL has 65.
_EXACT = decimal.Context(prec=1000, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)


class Part(NamedTuple):
    """One aggregate: what each shard selects, and how its results are combined.

    Attributes:
        kind: A description of the type, which must be the same on all shards.
        terms: The SQL expressions to select.
        total: Combines the values of ``terms``, given one sequence for each shard.
    """

    kind: str
    terms: List[str]
    total: Callable[[List[Sequence[Any]]], Any]


class Aggregate:
    """Base of ``Count``, ``Sum``, ``Avg``, ``Min`` and ``Max``.

    Args:
        expression: An SQL expression over the columns of a query.

    Raises:
        ParameterError: It is not one expression, or has DISTINCT or a placeholder.
    """

    def __init__(self, expression: str) -> None:
        self.expression = subquery.expression(expression)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.expression!r})"

    def _probe(self) -> List[str]:
        """Return the SQL expressions whose types and values ``_part`` needs."""
        return []

    def _part(
        self, what: str, columns: Sequence[Column], answers: Sequence[Any], increment: int
    ) -> Part:
        """Return its part of the query.

        Args:
            what: The aggregate's name, for messages.
            columns: The definitions of the columns of ``_probe``.
            answers: The values of these columns.
            increment: The server's ``div_precision_increment``.
        """
        raise NotImplementedError


class Count(Aggregate):
    """``COUNT(*)`` or ``COUNT(expression)``, as an int."""

    def __init__(self, expression: str = "*") -> None:
        self.expression = "*" if expression == "*" else subquery.expression(expression)

    def _part(
        self, what: str, columns: Sequence[Column], answers: Sequence[Any], increment: int
    ) -> Part:
        return Part(
            "a number",
            [f"COUNT({self.expression})"],
            lambda parts: sum([part[0] for part in parts]),
        )


class Sum(Aggregate):
    """``SUM(expression)``: a Decimal for exact types, a float for others, None without
    values.
    """

    def _probe(self) -> List[str]:
        return [f"SUM({self.expression})"]

    def _part(
        self, what: str, columns: Sequence[Column], answers: Sequence[Any], increment: int
    ) -> Part:
        return Part(
            _numeric(what, columns[0]),
            [f"SUM({self.expression})"],
            lambda parts: _sum([part[0] for part in parts]),
        )


class Avg(Aggregate):
    """``AVG(expression)``: a Decimal with the server's number of digits, or a float;
    None without values.
    """

    def _probe(self) -> List[str]:
        return [f"AVG({self.expression})", f"SUM({self.expression})"]

    def _part(
        self, what: str, columns: Sequence[Column], answers: Sequence[Any], increment: int
    ) -> Part:
        mean, total = columns
        kind = _numeric(what, mean)

        def average(parts: List[Sequence[Any]]) -> Any:
            whole = _sum([part[0] for part in parts])
            number = sum([part[1] for part in parts])
            if whole is None or not number:
                return None
            return (
                whole / number
                if isinstance(whole, float)
                else quotient(whole, number, total.scale, mean.scale, increment)
            )

        if kind != "floating point":
            kind = f"{kind} with {mean.scale} digits after the point"
        return Part(kind, [f"SUM({self.expression})", f"COUNT({self.expression})"], average)


class Min(Aggregate):
    """``MIN(expression)``; texts compare by their collation. None without values."""

    _function = "MIN"
    _best: Callable[..., Any] = staticmethod(min)

    def _probe(self) -> List[str]:
        best = f"{self._function}({self.expression})"
        return [best, *probe_terms(best)]

    def _part(
        self, what: str, columns: Sequence[Column], answers: Sequence[Any], increment: int
    ) -> Part:
        best = f"{self._function}({self.expression})"
        by = key(what, columns[0], answers[1:], of_minimum=True)

        def extreme(parts: List[Sequence[Any]]) -> Any:
            values = [part for part in parts if part[0] is not None]
            return (
                self._best(values, key=lambda part: by.of(part[0], part[1:]))[0] if values else None
            )

        return Part(by.kind, [best, *by.select(best)], extreme)


class Max(Min):
    """``MAX(expression)``; texts compare by their collation. None without values."""

    _function = "MAX"
    _best = staticmethod(max)


def _numeric(what: str, column: Column) -> str:
    if column.type in DECIMALS:
        return "exact"
    if column.type in FLOATS:
        return "floating point"
    raise ParameterError(f"{what} has a type that cannot be summed")


def _sum(values: List[Any]) -> Any:
    known = [value for value in values if value is not None]
    if not known:
        return None
    if isinstance(known[0], float):
        try:
            return math.fsum(known)
        except OverflowError:
            raise errors.DataError(
                1690, "DOUBLE value is out of range in a sum over all shards"
            ) from None
    total = known[0]
    for value in known[1:]:
        total = _EXACT.add(total, value)
    return total


def quotient(
    total: decimal.Decimal, number: int, total_scale: int, scale: int, increment: int
) -> decimal.Decimal:
    """Return ``total / number`` as a server's AVG computes it: truncated to whole words
    of nine digits, and then rounded half up.

    Args:
        total: The sum.
        number: The number of values.
        total_scale: The digits after the decimal point of the sum.
        scale: The digits after the decimal point of the result.
        increment: The server's ``div_precision_increment``.
    """
    words = -(-total_scale // 9) * 9
    kept = -(-(words + max(0, increment - (words - total_scale))) // 9) * 9
    exact = Fraction(total) / number
    digits = math.floor(abs(exact) * 10**kept)
    if kept > scale:
        digits = (digits + 5 * 10 ** (kept - scale - 1)) // 10 ** (kept - scale)
    return _EXACT.scaleb(decimal.Decimal(-digits if exact < 0 else digits), -min(kept, scale))


class AggregateQuery:
    """Aggregates of a query over several shards, optionally by groups.

    Args:
        query: The query.
        group_by: The columns that form the groups.
        aggregates: The aggregates, by their names in the result.
    """

    def __init__(
        self,
        query: subquery.Query,
        group_by: Union[str, Sequence[str]],
        aggregates: Mapping[str, Any],
    ) -> None:
        self._query = query
        self._aggregates = aggregates
        self._groups = (
            [each.column for each in ordered(group_by, what="group_by", descending=False)]
            if group_by != ""
            else []
        )
        if not self._groups and not aggregates:
            raise ParameterError("pass at least one aggregate, such as n=Count(), or group_by=")
        for name, aggregate in aggregates.items():
            if not isinstance(aggregate, Aggregate) or type(aggregate) is Aggregate:
                raise ParameterError(
                    f"{name} must be a Count(), Sum(...), Avg(...), Min(...) or Max(...), "
                    f"not {aggregate!r}"
                )
        names = [name.lower() for name in (*self._groups, *aggregates)]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ParameterError(f"two columns of the result have the name {twice!r}")
        self._columns = [f"q.{identifiers.quoted(group)}" for group in self._groups]
        what = [text for column in self._columns for text in (column, *probe_terms(column))]
        what += [text for aggregate in aggregates.values() for text in aggregate._probe()]
        self._types = ColumnProbe(
            _named([*what, "@@div_precision_increment"]), query, self._by(), self._groups
        )

    def _by(self) -> str:
        return f"GROUP BY {', '.join(self._columns)}" if self._columns else ""

    def _empty_total(self) -> Row:
        """Return the aggregates of no rows."""
        return {
            name: 0 if isinstance(each, Count) else None for name, each in self._aggregates.items()
        }

    def plan(
        self, ask_all: Callable[..., steps.Plan[ScatterResult]], timeout: Optional[float]
    ) -> steps.Plan[List[Row]]:
        """Query all shards, first for the types and then for their partial results.

        Args:
            ask_all: Makes the plan that runs a statement on all shards.
            timeout: Seconds for both; None for no limit.

        Returns:
            A row for each group, in the order of the groups.
        """
        until = deadlines.deadline_after(timeout)
        probed = yield from ask_all(self._types, until)
        if not probed.by_shard:
            return [] if self._groups else [self._empty_total()]
        keys, parts = self._resolve_types(probed.by_shard)
        terms = [
            text
            for column, each in zip(self._columns, keys)
            for text in (column, *each.select(column))
        ]
        terms += [text for part in parts for text in part.terms]
        answers = yield from ask_all(
            subquery.select(", ".join(_named(terms)), self._query, self._by()), until
        )
        rows = [
            list(row.values())
            for _, results in sorted(answers.by_shard.items())
            for row in results[0].rows
        ]
        return self._total(rows, keys, parts)

    def _resolve_types(self, probed: Mapping[int, Described]) -> Tuple[List[Key], List[Part]]:
        answers = {
            shard_id: (list(row.values()), list(columns))
            for shard_id, (row, columns) in sorted(probed.items())
        }
        keys: List[Key] = []
        at = 0
        for group in self._groups:
            what = f"the column {group!r}"
            found = {
                shard_id: key(what, columns[at], values[at + 1 : at + 1 + ASKED])
                for shard_id, (values, columns) in answers.items()
            }
            require_same_kind(what, {shard_id: each.kind for shard_id, each in found.items()})
            keys += list(found.values())[:1]
            at += 1 + ASKED
        parts: List[Part] = []
        for name, aggregate in self._aggregates.items():
            end = at + len(aggregate._probe())
            each_part = {
                shard_id: aggregate._part(name, columns[at:end], values[at:end], values[-1])
                for shard_id, (values, columns) in answers.items()
            }
            require_same_kind(name, {shard_id: part.kind for shard_id, part in each_part.items()})
            parts += list(each_part.values())[:1]
            at = end
        return keys, parts

    def _total(self, rows: List[List[Any]], keys: List[Key], parts: List[Part]) -> List[Row]:
        groups: Dict[Any, Tuple[List[Any], List[List[Sequence[Any]]]]] = (
            {} if self._groups else {(): ([], [[] for _ in parts])}
        )
        for row in rows:
            ranks: List[Any] = []
            shown: List[Any] = []
            at = 0
            for each in keys:
                end = at + 1 + len(each.terms)
                shown.append(row[at])
                ranks.append(each.of(row[at], row[at + 1 : end]))
                at = end
            _, values_of = groups.setdefault(tuple(ranks), (shown, [[] for _ in parts]))
            for part, values in zip(parts, values_of):
                values.append(row[at : at + len(part.terms)])
                at += len(part.terms)
        names = [*self._groups, *self._aggregates]
        return [
            dict(
                zip(
                    names, [*shown, *[part.total(values) for part, values in zip(parts, values_of)]]
                )
            )
            for _, (shown, values_of) in sorted(groups.items(), key=lambda group: group[0])
        ]


def _named(terms: List[str]) -> List[str]:
    return [f"{text} AS dualdb_{number}" for number, text in enumerate(terms)]
