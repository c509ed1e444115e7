"""A merge of the sorted rows of several shards into one stream, without the I/O."""

import contextlib
import heapq
import re
from abc import ABC
from typing import (
    Any,
    Callable,
    Dict,
    Generic,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
    TypeVar,
    Union,
)

from .. import deadlines, errors
from ..api.stream import BaseStream
from ..errors import ParameterError
from ..execution import steps
from ..results import Described, Row, ScatterResult
from ..sql import identifiers
from . import subquery
from .calls import Shards
from .collation import (
    ASKED,
    ColumnProbe,
    Descending,
    Key,
    Order,
    beyond,
    key,
    probe_terms,
    require_same_kind,
)

StreamT = TypeVar("StreamT", bound="BaseStream[Any]")

#: Up to this limit the unread rows of each shard are read at the end, to keep its
#: connection.
DRAINED = 100

_TERM = re.compile(r"(?is)\s*(-?)\s*(?:`((?:[^`]|``)+)`|([^\s,`]+))(?:\s+(ASC|DESC))?\s*(,|\Z)")


def ordered(terms: Union[str, Sequence[str]], *, what: str, descending: bool = True) -> List[Order]:
    """Parse ``"-px, id"``, ``"px DESC, id"`` or a list of such.

    Args:
        terms: The text or texts.
        what: The name of the argument, for messages.
        descending: Descending order is allowed.

    Raises:
        ParameterError: The syntax is invalid, or descending order is not allowed.
    """
    texts = [terms] if isinstance(terms, str) else terms
    if not isinstance(texts, (list, tuple)) or not all(isinstance(each, str) for each in texts):
        raise ParameterError(
            f"{what} must be a str of columns like 'px, id' or a list of such, not {terms!r}"
        )
    found: List[Order] = []
    for text in texts:
        columns = _columns(text, descending=descending)
        if columns is None:
            like = " like -px, id" if descending else ""
            raise ParameterError(f"{what} must be a list of columns{like}, not {text!r}")
        found += columns
    return found


def _columns(text: str, *, descending: bool) -> Optional[List[Order]]:
    """Return the columns of one text; None if the syntax is invalid."""
    found: List[Order] = []
    position = 0
    more = True
    while more:
        term = _TERM.match(text, position)
        if term is None:
            return None
        sign, quoted, bare, word, comma = term.groups()
        if (sign and word) or (not descending and (sign or word)):
            return None
        column = quoted.replace("``", "`") if quoted else bare
        found.append(Order(column, bool(sign) or (word or "").upper() == "DESC"))
        position = term.end()
        more = bool(comma)
    return found


def most(limit: object) -> Optional[int]:
    """Validate ``limit``.

    Raises:
        ParameterError: It is not a number of rows.
    """
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 0):
        raise ParameterError(f"limit must be an int from 0 up, not {limit!r}")
    return limit


class _Head(NamedTuple):
    """The next row of a shard; the shard id breaks ties, so rows are never compared."""

    keys: Tuple[Any, ...]
    shard_id: int
    row: Row


class BaseMerge(ABC, Generic[StreamT]):
    """The rows of several shards in one order.

    It holds a connection to each shard until it ends: with the last row, with an error,
    when ``close()`` is called, or when the loop over it is left.
    """

    #: The implementation's stream of one shard, made of a route, a statement and a
    #: deadline; its ``read`` is the next row, or None.
    _stream_class: Callable[..., StreamT]

    def __init__(
        self,
        shards: Shards,
        query: subquery.Query,
        order: Sequence[Order],
        limit: Optional[int],
        until: Optional[float],
    ) -> None:
        if not order:
            raise ParameterError("order_by is empty")
        self._shards = shards
        self._query = query
        self._order = tuple(order)
        self._limit = limit
        self._until = until
        columns = [f"q.{identifiers.quoted(each.column)}" for each in order]
        asked = [
            f"{text} AS dualdb_{number}"
            for number, text in enumerate(
                [text for column in columns for text in probe_terms(column)]
            )
        ]
        self._probe = ColumnProbe(["q.*", *asked], query, "", [each.column for each in order])
        self._keys: List[Key] = []
        #: The names of the columns by shard, which may differ in case.
        self._names: Dict[int, List[str]] = {}
        self._streams: Optional[Dict[int, StreamT]] = None
        self._heads: List[_Head] = []
        #: The keys of the last row by shard, to detect that a server sorts otherwise.
        self._before: Dict[int, Tuple[Any, ...]] = {}
        self._last: Optional[int] = None
        self._given = 0
        self._over = limit == 0
        self._errors: Dict[int, errors.Error] = {}

    def __repr__(self) -> str:
        state = "not begun" if self._streams is None else "open"
        return f"<{type(self).__name__}, {'over' if self._over else state}>"

    @property
    def errors(self) -> Mapping[int, errors.Error]:
        """The errors of the shards that failed before their first row and are left out,
        by shard id; only with ``on_error="partial"``.
        """
        return dict(self._errors)

    def close(self) -> None:
        """End the merge, and release its connections."""
        self._over = True
        streams = self._streams or {}
        self._streams = {}
        self._heads = []
        for stream in streams.values():
            stream.close()

    def _next(self) -> steps.Plan[Optional[Row]]:
        """Return the next row; None after the last."""
        if self._over:
            return None
        if self._streams is None:
            yield from self._begin()
        elif self._last is not None:
            shard_id = self._last
            self._last = None
            try:
                row = yield steps.FetchRow(self._streams[shard_id])
            except errors.Error as error:
                raise errors.scatter_error(
                    ScatterResult({}, {shard_id: error}), len(self._streams) + len(self._errors)
                ) from error
            self._put(shard_id, row)
        if not self._heads:
            self.close()
            return None
        head = heapq.heappop(self._heads)
        self._last = head.shard_id
        self._given = self._given + 1
        if self._given == self._limit:
            yield from self._drain()
            self.close()
        return head.row

    def _drain(self) -> steps.Plan[None]:
        """Read the few remaining rows, because abandoning a stream closes its
        connection.
        """
        if self._limit is None or self._limit > DRAINED:
            return
        for stream in (self._streams or {}).values():
            with contextlib.suppress(errors.Error):
                while (yield steps.FetchRow(stream)) is not None:
                    pass

    def _begin(self) -> steps.Plan[None]:
        shards = self._shards
        routes = dict(shards.routes())
        self._until = min(
            [each for each in (self._until, deadlines.deadline_after()) if each is not None],
            default=None,
        )
        probed: ScatterResult = yield from shards.ask(self._probe, self._until, routes)
        self._errors.update(probed.errors)
        self._streams = {}
        if not probed.by_shard:
            return
        self._resolve_types(probed.by_shard)
        statement = self._statement()
        for shard_id in sorted(probed.by_shard):
            route = shards.reading(routes[shard_id])
            self._streams[shard_id] = self._stream_class(route, statement, self._until)
        outcomes = yield steps.Gather(
            tuple([steps.FetchRow(stream) for stream in self._streams.values()]),
            shards.policy.max_concurrency,
        )
        rows = dict(zip(list(self._streams), outcomes))
        for shard_id, outcome in rows.items():
            if isinstance(outcome, errors.Error):
                self._errors[shard_id] = outcome
                del self._streams[shard_id]
            elif isinstance(outcome, BaseException):
                raise outcome
        shards.policy.check(ScatterResult({}, self._errors), len(self._streams))
        for shard_id in self._streams:
            self._put(shard_id, rows[shard_id])

    def _resolve_types(self, probed: Mapping[int, Described]) -> None:
        """Determine how the columns compare, which must be the same on all shards."""
        for number, order in enumerate(self._order):
            found: Dict[int, Key] = {}
            for shard_id, (row, columns) in sorted(probed.items()):
                answers = list(row.values())[len(columns) - ASKED * (len(self._order) - number) :][
                    :ASKED
                ]
                column = next(
                    (each for each in columns if each.name.lower() == order.column.lower()), None
                )
                if column is None:  # the server treats more names as equal than Python
                    raise ParameterError(f"spell the column {order.column!r} as in the result")
                self._names.setdefault(shard_id, []).append(column.name)
                found[shard_id] = key(f"the column {order.column!r}", column, answers)
            require_same_kind(
                f"the column {order.column!r}",
                {shard_id: each.kind for shard_id, each in found.items()},
            )
            self._keys.append(next(iter(found.values())))

    def _statement(self) -> subquery.Subquery:
        columns = [f"q.{identifiers.quoted(each.column)}" for each in self._order]
        terms = [text for each, column in zip(self._keys, columns) for text in each.select(column)]
        what = ", ".join(
            ["q.*", *[f"{text} AS dualdb_{number}" for number, text in enumerate(terms)]]
        )
        sorts = [
            (text.format(column), each.descending)
            for each, by, column in zip(self._order, self._keys, columns)
            for text in by.by
        ]
        by = ", ".join([text + " DESC" * descending for text, descending in sorts])
        return subquery.select(
            what,
            self._query,
            f"ORDER BY {by}" + ("" if self._limit is None else f" LIMIT {self._limit}"),
        )

    def _put(self, shard_id: int, row: Optional[Row]) -> None:
        if row is None:
            return
        keys: List[Any] = []
        for order, each, column in zip(
            reversed(self._order), reversed(self._keys), reversed(self._names[shard_id])
        ):
            beside = [row.popitem()[1] for _ in each.terms][::-1]
            ranked = each.of(row[column], beside)
            keys.insert(0, Descending(ranked) if order.descending else ranked)
        head = _Head(tuple(keys), shard_id, row)
        before = self._before.get(shard_id)
        if (
            before is not None
            and head.keys < before
            and not beyond(head.keys)
            and not beyond(before)
        ):
            raise errors.InternalError(
                f"shard {shard_id} sorts {self._order} in an unexpected order"
            )
        self._before[shard_id] = head.keys
        heapq.heappush(self._heads, head)
