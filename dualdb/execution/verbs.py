"""The methods of a target as plans."""

from typing import Any, List, Optional, Sequence, Type

from .. import deadlines, errors
from ..protocol.statements import Call, Statement
from ..results import CallResult, ResultSet, Row, RowCount, row_count
from ..row_mapping import check_kind, takes_tuples, typed
from ..sql.parameters import Params
from .execute import execute_statement
from .steps import Plan, Route


def reading(sql: str, params: Params, as_: Any = None, **declared: Any) -> Statement:
    """Make a statement that returns rows.

    Args:
        sql: The statement.
        params: Its parameters.
        as_: The row type; None for dicts.
        declared: Further arguments of ``Statement``.

    Raises:
        ParameterError: The row type is not supported, or the statement is invalid.
    """
    tuples = False
    if as_ is not None:
        check_kind(as_)
        tuples = takes_tuples(as_)
    return Statement(sql, params, tuples=tuples, **declared)


def rows_of(result: ResultSet, as_: Optional[Type[Any]] = None) -> List[Any]:
    """Return the rows of a result.

    Raises:
        RowError: They do not match ``as_``.
    """
    return result.rows if as_ is None else typed(result, as_)


def first_row(
    result: ResultSet, as_: Optional[Type[Any]] = None, *, strict: bool = False
) -> Optional[Any]:
    """Return the first row of a result, or None.

    Raises:
        TooManyRows: ``strict`` is set, and there are more.
        RowError: The row does not match ``as_``.
    """
    if as_ is None and len(result.rows) < 2:  # most calls
        return result.rows[0] if result.rows else None
    if strict and len(result.rows) > 1:
        raise errors.TooManyRows(f"expected at most one row, got {len(result.rows)}").with_context(
            None, sent=True
        )
    first = rows_of(result._replace(rows=result.rows[:1]), as_)
    return first[0] if first else None


def first_value(result: ResultSet) -> Any:
    """Return the first column of the first row of a result, or None."""
    row = first_row(result)
    return next(iter(row.values())) if row else None


def first_column(result: ResultSet) -> List[Any]:
    """Return the values of the first column of a result."""
    return [next(iter(row.values())) for row in result.rows]


def query(
    route: Route,
    sql: str,
    params: Params,
    timeout: Optional[float] = None,
    *,
    as_: Optional[Type[Any]] = None,
    **declared: Any,
) -> Plan[List[Any]]:
    """See ``Target.query``."""
    until = deadlines.deadline_after(timeout)
    if as_ is None:  # most calls
        statement = Statement(sql, params, **declared)
        results = yield from execute_statement(route, statement, until)
        rows: List[Any] = results[0].rows
        return rows
    results = yield from execute_statement(route, reading(sql, params, as_, **declared), until)
    return rows_of(results[0], as_)


def query_one(
    route: Route,
    sql: str,
    params: Params,
    timeout: Optional[float] = None,
    *,
    as_: Optional[Type[Any]] = None,
    strict: bool = False,
    **declared: bool,
) -> Plan[Optional[Any]]:
    """See ``Target.query_one``."""
    until = deadlines.deadline_after(timeout)
    if as_ is None:  # most calls
        results = yield from execute_statement(route, Statement(sql, params, **declared), until)
    else:
        results = yield from execute_statement(route, reading(sql, params, as_, **declared), until)
    return first_row(results[0], as_, strict=strict)


def query_value(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool
) -> Plan[Any]:
    """See ``Target.query_value``."""
    results = yield from execute_statement(
        route, Statement(sql, params, **declared), deadlines.deadline_after(timeout)
    )
    return first_value(results[0])


def query_column(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: Any
) -> Plan[List[Any]]:
    """See ``Target.query_column``."""
    results = yield from execute_statement(
        route, Statement(sql, params, **declared), deadlines.deadline_after(timeout)
    )
    return first_column(results[0])


def execute(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool
) -> Plan[RowCount]:
    """See ``Target.execute``."""
    results: List[ResultSet] = yield from execute_statement(
        route, Statement(sql, params, **declared), deadlines.deadline_after(timeout)
    )
    return row_count(results[0])


def call(
    route: Route,
    procedure: str,
    params: Sequence[Any],
    timeout: Optional[float] = None,
    **declared: bool,
) -> Plan[CallResult]:
    """See ``Target.call``."""
    result: CallResult = yield from execute_statement(
        route, Call(procedure, params, **declared), deadlines.deadline_after(timeout)
    )
    return result


def call_rows(route: Route, procedure: str, params: Sequence[Any]) -> Plan[List[Row]]:
    """Return the rows of all result sets in one list, as the original service did."""
    result = yield from call(route, procedure, params)
    return result.rows
