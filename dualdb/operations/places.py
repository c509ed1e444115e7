"""Which databases an operation is for, and one session on each."""

import re
from typing import Any, Callable, Iterable, List, NamedTuple, Optional, Set, Tuple, TypeVar, Union

from .. import errors
from ..api.identity import database_name
from ..api.interfaces import internals_of
from ..config import DatabaseConfig
from ..execution import execute, steps
from ..execution.execute import execute_statement
from ..observability.observers import NOBODY
from ..protocol.statements import AnyStatement, Statement
from ..results import ResultSet, Row, RowCount, row_count
from ..sql.parameters import Params
from ..topology import routing
from ..topology.shard_map import Status

T = TypeVar("T")

#: ``"all"`` shards, ``"global"``, ``"everything"`` (the global database, then all
#: shards), a shard id, or several of these: ``["global", 1, 3]`` or ``"global,1,3"``.
Shards = Union[str, int, Iterable[Union[int, str]]]


def name_of(shard_id: Optional[int]) -> str:
    """Return a database's name in reports: ``"global"`` or the shard id as text."""
    return "global" if shard_id is None else str(shard_id)


class Place(NamedTuple):
    """A database that an operation is performed on.

    Attributes:
        name: ``"global"`` or the shard id as text.
        shard_id: None for the global database.
        config: How it is reached; None if its row in the shard table cannot be used, or
            it is inactive.
        reason: Why there is none.
    """

    name: str
    shard_id: Optional[int]
    config: Optional[DatabaseConfig]
    reason: str = ""

    @property
    def label(self) -> str:
        """``"global"`` or ``"shard 2"``."""
        return database_name(self.shard_id)

    def usable(self) -> DatabaseConfig:
        """How it is reached.

        Raises:
            ShardUnavailable: Its row cannot be used, or it is inactive.
        """
        if self.config is None:
            assert self.shard_id is not None  # the global database has no row
            raise errors.shard_unavailable(self.shard_id, self.reason)
        return self.config


class Databases:
    """The databases of a service, for operations.

    Operations use connections of their own: they do not take part in a transaction of
    the caller's, and a statement may take longer than ``read_timeout``.

    Args:
        service: The open service.
        user: The account to use in place of the configured ones.
        password: Its password.

    Attributes:
        service: As given.
        internals: What it consists of.
    """

    def __init__(
        self, service: Any, user: Optional[str] = None, password: Optional[str] = None
    ) -> None:
        self.service = service
        self.internals = internals_of(service)
        changes = {"read_timeout": None, "pool_size": 1, "max_overflow": 0, "warm_up": 1}
        self._changes = {**changes, "max_lifetime": None, "max_rows": None}
        if user is not None:
            account = {"user": user, "password": password or ""}
            # for the checks of the model, which model_copy does not make
            made = service.global_config.model_validate(
                {**service.global_config.model_dump(), **account}
            )
            self._changes.update(user=made.user, password=made.password)

    def chosen(self, shards: Shards) -> List[Place]:
        """The databases that ``shards`` names, in its order, each once. All shards are
        those that are not inactive. One whose row cannot be used is among them, so that
        it is reported and not left out in silence.

        Raises:
            ParameterError: It names nothing, or a shard that is not in the shard table.
        """
        known = self.internals.lifecycle.require_open().shard_map.shards
        ids = sorted(
            number for number, shard in known.items() if shard.status is not Status.INACTIVE
        )
        places: List[Place] = []
        for shard_id in _ids(shards, ids):
            place = self._place(shard_id, known)
            if place not in places:
                places.append(place)
        return places

    def one(self, database: Union[int, str], *, inactive: bool = False) -> Place:
        """The one database that is named.

        Args:
            database: A shard id or ``"global"``.
            inactive: It may be a shard that is inactive.

        Raises:
            ParameterError: It names not one, or a shard that is not in the shard table.
            ShardUnavailable: Its row cannot be used.
        """
        found = self.chosen(database)
        if len(found) != 1:
            raise errors.ParameterError(f"{database!r} is not one database")
        place = self.even_inactive(found[0]) if inactive else found[0]
        place.usable()
        return place

    def even_inactive(self, place: Place) -> Place:
        """A database as it is reached even if it is inactive: after a drain, somebody
        looks at the sessions that are left.
        """
        if place.config is not None or place.shard_id is None:
            return place
        config = self.internals.lifecycle.reader.config_of(place.shard_id)
        return place if config is None else self.place(place.shard_id, config)

    def _place(self, shard_id: Optional[int], known: Any) -> Place:
        if shard_id is None:
            return self.place(None, self.service.global_config)
        shard = known.get(shard_id)
        if shard is None:
            raise errors.ParameterError(f"shard {shard_id} is not in the shard table")
        if shard.config is None:
            reason = shard.reason or f"it is {shard.status.value}"
            return Place(str(shard_id), shard_id, None, reason)
        return self.place(shard_id, shard.config)

    def place(self, shard_id: Optional[int], config: DatabaseConfig) -> Place:
        """The database of a configuration, which need not be in the shard table."""
        return Place(name_of(shard_id), shard_id, config.model_copy(update=self._changes))

    def session(self, place: Place, work: "Callable[[Session], steps.Plan[T]]") -> steps.Plan[T]:
        """Perform a plan on one connection, which nobody else uses and which is closed
        at its end.
        """
        client = self.internals.new_client(place.usable(), place.label, place.shard_id)
        held: List[Tuple[Any, Any]] = []
        try:
            _, connection = yield from execute.check_out(steps.fixed_route(client), into=held)
            return (yield from work(Session(client, connection, place)))
        finally:
            for _, connection in held:
                connection.dirty = True
                client.pool.release(connection)
            yield steps.Close((client,))

    def on_each(
        self,
        places: List[Place],
        work: "Callable[[Session], steps.Plan[T]]",
        max_concurrency: int = 8,
    ) -> steps.Plan[List[Tuple[Place, Union[T, Exception]]]]:
        """Perform a plan on several databases at the same time.

        Gives what it gave, or its error, for each.
        """
        members = tuple(steps.RunPlan(self.session(place, work)) for place in places)
        found: List[Any] = yield steps.Gather(members, max_concurrency)
        for error in found:
            if isinstance(error, Exception) and not isinstance(error, errors.Error):
                raise error
        return list(zip(places, found))


def _ids(shards: Shards, every: List[int]) -> List[Optional[int]]:
    if isinstance(shards, int):
        return [routing.shard_id_of(shards)]
    if isinstance(shards, str):
        shards = [part.strip() for part in shards.split(",")]
    found: List[Optional[int]] = []
    for each in shards:
        if each == "global":
            found.append(None)
        elif each == "all":
            found.extend(every)
        elif each == "everything":
            found.extend([None, *every])
        elif isinstance(each, str) and each.isascii() and each.isdigit():
            found.append(int(each))
        elif isinstance(each, int):
            found.append(routing.shard_id_of(each))
        else:
            raise errors.ParameterError(
                f"shards are 'all', 'global', 'everything' or shard ids, not {each!r}"
            )
    if not found:
        raise errors.ParameterError("there is no shard to work on")
    return found


class SessionStatement(Statement):
    """A statement that may be about its session, which is nobody else's."""

    __slots__ = ()

    def check_outside_transaction(self) -> None:
        """The next statement gets the same session."""


class Session:
    """One connection to a place, for statements that belong together."""

    read_only = False
    reads_only = False
    refresh_on_miss = None
    replica = None
    write_refusal = None

    def __init__(self, client: Any, connection: Any, place: Place) -> None:
        self.client = client
        self._connection = connection
        self.place = place
        self.name = client.name
        self.shard_id = client.shard_id
        self.observers = NOBODY

    @property
    def is_mariadb(self) -> bool:
        """The server is a MariaDB."""
        return "MariaDB" in self.server_version

    @property
    def server_version(self) -> str:
        """As the server gives it."""
        version: str = self._connection.server_version
        # MariaDB puts this before its own, for the sake of old replicas
        return re.sub(r"^5\.5\.5-(?=\d+\.)", "", version)

    def run_statement(self, statement: AnyStatement, until: Optional[float] = None) -> Any:
        return self.client.run_on(self._connection, statement, until)

    def record_insert_id(self, lastrowid: int) -> None:
        """It is nobody's insert."""

    def take_retry_token(self) -> bool:
        """Return False: a session cannot be replaced."""
        return False

    def current_transaction(self) -> None:
        """Return None: what it begins is its own."""

    def results(self, sql: str, params: Params = None) -> steps.Plan[List[ResultSet]]:
        """Every result set of a statement."""
        found: List[ResultSet] = yield from execute_statement(
            steps.fixed_route(self), SessionStatement(sql, params)
        )
        return found

    def query(self, sql: str, params: Params = None) -> steps.Plan[List[Row]]:
        """The rows of the first result set."""
        return (yield from self.results(sql, params))[0].rows

    def value(self, sql: str, params: Params = None) -> steps.Plan[Any]:
        """The first column of the first row, or None."""
        rows = yield from self.query(sql, params)
        return next(iter(rows[0].values())) if rows else None

    def execute(self, sql: str, params: Params = None) -> steps.Plan[RowCount]:
        """The number of affected rows."""
        return row_count((yield from self.results(sql, params))[0])


def servers(places: Iterable[Place]) -> List[Place]:
    """The first place of each server."""
    seen: Set[Any] = set()
    found = []
    for place in places:
        config = place.config
        address = place.name if config is None else (config.unix_socket, config.hosts)
        if address not in seen:
            seen.add(address)
            found.append(place)
    return found


def text_of(value: object) -> str:
    """Return a text of information_schema, which some servers give as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
