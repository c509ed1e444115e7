"""The verbs of a target as plans."""

from typing import Any, List, Optional, Sequence

from .. import errors
from ..protocol.statements import Call, Statement
from ..results import CallResult, ResultSet, Row, RowCount, row_count
from ..row_mapping import check_kind, takes_tuples, typed
from ..sql.parameters import Params
from .execute import execute_statement
from .steps import Plan, Route


def query(
    route: Route,
    sql: str,
    params: Params,
    timeout: Optional[float] = None,
    *,
    as_: Any = None,
    **declared: Any,
) -> Plan[List[Any]]:
    tuples = False
    if as_ is not None:
        check_kind(as_)
        tuples = takes_tuples(as_)
    results: List[ResultSet] = yield from execute_statement(
        route, Statement(sql, params, tuples=tuples, **declared), timeout
    )
    return results[0].rows if as_ is None else typed(results[0], as_)


def query_one(
    route: Route,
    sql: str,
    params: Params,
    timeout: Optional[float] = None,
    *,
    as_: Any = None,
    strict: bool = False,
    **declared: bool,
) -> Plan[Optional[Any]]:
    tuples = False
    if as_ is not None:
        check_kind(as_)
        tuples = takes_tuples(as_)
    results: List[ResultSet] = yield from execute_statement(
        route, Statement(sql, params, tuples=tuples, **declared), timeout
    )
    if strict and len(results[0].rows) > 1:
        raise errors.TooManyRows(
            f"{len(results[0].rows)} rows came where one at most is asked for"
        ).with_context(None, sent=True)
    first = results[0].rows[:1]
    if as_ is not None:
        first = typed(results[0]._replace(rows=first), as_)
    return first[0] if first else None


def query_value(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool
) -> Plan[Any]:
    row = yield from query_one(route, sql, params, timeout, **declared)
    return next(iter(row.values())) if row else None


def query_column(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: Any
) -> Plan[List[Any]]:
    rows = yield from query(route, sql, params, timeout, **declared)
    return [next(iter(row.values())) for row in rows]


def execute(
    route: Route, sql: str, params: Params, timeout: Optional[float] = None, **declared: bool
) -> Plan[RowCount]:
    results: List[ResultSet] = yield from execute_statement(
        route, Statement(sql, params, **declared), timeout
    )
    return row_count(results[0])


def call(
    route: Route,
    procedure: str,
    params: Sequence[Any],
    timeout: Optional[float] = None,
    **declared: bool,
) -> Plan[CallResult]:
    result: CallResult = yield from execute_statement(
        route, Call(procedure, params, **declared), timeout
    )
    return result


def call_rows(route: Route, procedure: str, params: Sequence[Any]) -> Plan[List[Row]]:
    """The original service's form: the rows of all result sets in one list."""
    result = yield from call(route, procedure, params)
    return result.rows
