"""The plan of ``pipeline``: the statements of a transaction, many in a command."""

from typing import Any, Iterable, List, Optional, Tuple, Union

from .. import deadlines, errors
from ..protocol.response import completed
from ..protocol.statements import Group, PacketLimit, Statement
from ..results import ResultSet, row_count
from ..sql.bulk import MOST_STATEMENTS, SEPARATOR, can_be_batched
from ..sql.parameters import Params
from .bulk import LONGEST_CHUNK
from .execute import execute_statement
from .steps import Plan, Route

#: A statement without parameters, or with them.
Piped = Union[str, Tuple[str, Params]]


def pipeline(
    route: Route, statements: Iterable[Piped], timeout: Optional[float] = None
) -> Plan[List[Any]]:
    """See ``Transaction.pipeline``."""
    until = deadlines.deadline_after(timeout)
    bound = [_bound(number, each) for number, each in enumerate(statements)]
    limit, _ = yield from execute_statement(route, PacketLimit(), until)
    results: List[Any] = []
    for group in groups(bound, min(limit or LONGEST_CHUNK, LONGEST_CHUNK) - 64):
        statement = group[0] if len(group) == 1 else Group(group)
        try:
            found: List[ResultSet] = yield from execute_statement(route, statement, until)
        except errors.Error as error:
            error.rows = _numbers(error, len(results), len(group))
            raise
        if len(group) == 1:  # of a procedure there may be more
            found = found[:1]
        results += [each.rows if each.columns else row_count(each) for each in found]
    return results


def _numbers(error: errors.Error, first: int, count: int) -> Tuple[int, int]:
    """Return the numbers of the first and the last statement that an error is about."""
    if errors.is_server_error(error):
        number = first + completed(error.driver_error or error)
        return number, number
    return first, first + count - 1


def _bound(number: int, given: Piped) -> Statement:
    sql, params = (given, None) if isinstance(given, str) else _pair(number, given)
    try:
        statement = Statement(sql, params)
    except errors.ParameterError as error:
        raise errors.ParameterError(f"statement {number}: {error.args[0]}") from error.__cause__
    statement.check_in_transaction()
    return statement


def _pair(number: int, given: Any) -> Tuple[Any, Any]:
    if not isinstance(given, (tuple, list)) or len(given) != 2:
        raise errors.ParameterError(
            f"statement {number}: a statement is a str, or a pair of a str and its parameters, "
            f"not {given!r}"
        )
    sql, params = given
    return sql, params


def groups(statements: Iterable[Statement], most_bytes: int) -> List[List[Statement]]:
    """Divide statements into those that are sent together.

    Args:
        statements: The statements, in order.
        most_bytes: The most bytes of a command of several statements.
    """
    made: List[List[Statement]] = []
    room = 0
    for statement in statements:
        # The longest character has four bytes.
        size = (len(statement.text) + len(SEPARATOR)) * 4
        together = can_be_batched(statement.sql)
        if not together or size > room or len(made[-1]) >= MOST_STATEMENTS:
            made.append([])
            room = most_bytes
        made[-1].append(statement)
        room = room - size if together else 0
    return made
