"""Reading the shard table: completely each time, parsing only changed rows."""

import logging
import time
from typing import Any, Callable, Dict, Iterator, List, Optional, Set, Tuple

from .. import deadlines, error_codes, errors
from ..config import DatabaseConfig
from ..execution import execute, steps
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..passwords import is_reference
from ..protocol import authentication
from ..protocol.statements import Statement
from ..results import ResultSet, Row
from . import passwords
from .shard_map import EMPTY, MapBuilder, ParsedRow, RowRules, ShardMap, Status, parse_row
from .slices import in_slices

log = logging.getLogger("dualdb.topology")

#: The default of the service's ``max_shards``.
DEFAULT_MAX_SHARDS = 100_000


class TableReader:
    """Reads the shard table, and keeps the last map.

    Args:
        table: The table's name, ``name`` or ``schema.name``.
        rules: The rules for parsing rows.
        max_shards: The most rows; if there are more, reading fails.
        clock: Returns seconds.

    Attributes:
        loaded: The map as last read.
        begun: When the last read began.
        ended: When the last read ended.
        read_at: When the table was last read successfully; None if it never was.
        failure: The error of the last read; None if it succeeded.
        failures: The number of consecutive failed reads.
        warning: Why the rows read last were not accepted; None if they were.
    """

    def __init__(
        self,
        table: str,
        rules: RowRules,
        *,
        max_shards: int = DEFAULT_MAX_SHARDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.table = table
        self.rules = rules
        self._max_shards = max_shards
        self._clock = clock
        self.reset()

    def reset(self) -> None:
        """Reset to the state before the first read."""
        self.loaded = EMPTY
        #: The rows of ``loaded`` by shard id, as far as that is an integer column.
        self._known: Dict[int, Row] = {}
        #: When the last successful read began; kept in a forked child.
        self.confirmed_at = float("-inf")
        self.forget_readings()

    def forget_readings(self) -> None:
        """Reset the state of reads in a forked child; the map is kept."""
        self.begun = self.ended = float("-inf")
        self.read_at: Optional[float] = None
        self.failure: Optional[str] = None
        self.warning: Optional[str] = None
        self.failures = 0

    @property
    def quoted_table(self) -> str:
        """The table's quoted name, for statements."""
        return ".".join([f"`{part}`" for part in self.table.split(".")])

    def read(
        self, client: object, timeout: Optional[float] = None, *, force: bool = False
    ) -> steps.Plan[None]:
        """Read the table into ``loaded``, which is unchanged if the table is.

        The whole table is read: it is small, and MAX(updated_at) misses rows that were
        written earlier but committed later.

        Args:
            client: The global database's client.
            timeout: Seconds; None for no limit.
            force: Accept a table that has lost all its shards.

        Raises:
            Error: The table cannot be read; ``loaded`` is unchanged.
        """
        self.begun = self._clock()
        rows: List[Row] = []
        try:
            rows = list((yield from self.rows(client, timeout)))
            found, known = yield from self._parse(rows)
        except Exception as error:
            rows = []  # they hold passwords, and a traceback shows local variables
            authentication.forget_locals(error)
            self.failures += 1
            if isinstance(error, errors.Error):
                self.failure = errors.reason_of(error)
                raise
            self.failure = f"{type(error).__name__}: {error}"
            raise errors.InternalError(
                f"the shard table {self.table} cannot be read ({self.failure})"
            ) from error
        finally:
            self.ended = self._clock()
        if self.failure is not None:
            log.info("the shard table can be read again", extra=about("map_readable"))
        self.read_at = self._clock()
        self.failure = None
        self.failures = 0
        self.confirmed_at = self.begun
        if self._is_accepted(found, force):
            self._known = known
            self._keep(found)

    def rebase(self, base: DatabaseConfig) -> None:
        """Let shards inherit from another configuration, from the next reading on."""
        self.rules = self.rules._replace(base=base)
        self._known = {}

    def rows(self, client: object, timeout: Optional[float] = None) -> steps.Plan[List[Row]]:
        """Return the unparsed rows.

        Only a missing table means "no shards", and only if the service has seen none
        before: otherwise an error would route the sessions of every shard to the global
        database.

        Raises:
            TooManyRows: There are more than ``max_shards``.
            Error: The table cannot be read.
        """
        statement = Statement(
            f"SELECT * FROM {self.quoted_table} ORDER BY shard_id", max_rows=self._max_shards
        )
        try:
            results: List[ResultSet] = yield from execute.execute_statement(
                steps.fixed_route(DetachedExecutor(client)),
                statement,
                deadlines.deadline_after(timeout),
            )
        except errors.TooManyRows as error:
            raise errors.TooManyRows(
                f"the shard table {self.table} has more than {self._max_shards} rows (max_shards)"
            ) from error
        except errors.ProgrammingError as error:
            if error.errno != error_codes.NO_SUCH_TABLE or self.loaded.shards:
                raise
            if not self.loaded.version:
                log.warning(
                    "there is no shard table %s: the service uses the global database alone",
                    self.table,
                    extra=about("map_absent"),
                )
            return []
        return results[0].rows

    def parse(self, rows: List[Row]) -> ShardMap:
        """Parse rows into a map with the next version, without keeping it."""
        builder = MapBuilder(self.rules.base)
        for number, raw in enumerate(rows, 1):
            builder.add(number, parse_row(raw, self.rules))
        return builder.build(self.loaded.version + 1)

    def _parse(self, rows: List[Row]) -> steps.Plan[Tuple[ShardMap, Dict[int, Row]]]:
        known: Dict[int, Row] = {}
        kept: List[Row] = []
        changed: Set[int] = set()
        columns = {str(name).lower(): name for name in (rows[0] if rows else ())}
        id_column = columns.get("shard_id", "")
        password_column = columns.get("password", "")

        def compare(raw: Row) -> None:
            shard_id: Any = raw.get(id_column)
            is_known = type(shard_id) is int and self._is_unchanged(
                shard_id, raw, raw.get(password_column)
            )
            if is_known:
                raw = self._known[shard_id]
            if type(shard_id) is int:
                known[shard_id] = raw
            if not is_known:
                changed.add(len(kept))
            kept.append(raw)

        yield from in_slices(_consumed(rows), compare, self._clock)
        if (
            self.loaded.version
            and not changed
            and len(kept) == len(known) == len(self.loaded.shards)
        ):
            return self.loaded, known
        builder = MapBuilder(self.rules.base)

        def add(item: Tuple[int, Row]) -> None:
            index, raw = item
            if index in changed:
                parsed = self._same_shard(parse_row(raw, self.rules))
            else:
                parsed = ParsedRow(raw[id_column], self.loaded.shards[raw[id_column]])
            builder.add(index + 1, parsed)

        yield from in_slices(enumerate(kept), add, self._clock)
        return builder.build(self.loaded.version + 1), known

    def _is_unchanged(self, shard_id: int, raw: Row, password: object) -> bool:
        """Return whether the last map has the shard of this row."""
        shard = self.loaded.shards.get(shard_id)
        if shard is None or shard.status is Status.INVALID:
            return False  # a missing variable or file may exist by now
        try:
            if self._known.get(shard_id) != raw:
                return False
            if shard.config is not None and is_reference(password):
                current = passwords.of_row(password, self.rules.references)
                return bool(current == shard.config.password)
        except Exception:
            return False  # a value that cannot be compared, or a dangling reference
        return True

    def config_of(self, shard_id: int) -> Optional[DatabaseConfig]:
        """How a shard is reached, whatever its status, as its row was last read.

        None if there is no row, or if it cannot be used.
        """
        raw = self._known.get(shard_id)
        if raw is None:
            return None
        row = {str(name).lower(): value for name, value in raw.items()}
        shard = parse_row({**row, "status": Status.ACTIVE.value}, self.rules).shard
        return None if shard is None else shard.config

    def _same_shard(self, parsed: ParsedRow) -> ParsedRow:
        """Replace an equal shard by the object of the last map."""
        if parsed.shard_id is None:
            return parsed
        before = self.loaded.shards.get(parsed.shard_id)
        return parsed._replace(shard=before) if before == parsed.shard else parsed

    def _is_accepted(self, found: ShardMap, force: bool) -> bool:
        """Return whether to accept a map: not if it has lost all shards at once."""
        if found.shards or not self.loaded.shards or force:
            self.warning = None
            return True
        if self.warning is None:
            self.warning = (
                f"the shard table {self.table} has no shards any more, so the last map stays "
                "in use: refresh(force=True) or a restart accepts it"
            )
            log.error("%s", self.warning, extra=about("map_not_believed"))
        return False

    def _keep(self, found: ShardMap) -> None:
        before = self.loaded
        if found is before or (before.version and found == before._replace(version=found.version)):
            return
        for problem in _new(found.problems, before.problems):
            log.error("shard table %s: %s", self.table, problem, extra=about("shard_row_unusable"))
        for warning in _new(found.warnings, before.warnings):
            log.warning(
                "shard table %s: %s", self.table, warning, extra=about("shard_row_suspicious")
            )
        self.loaded = found


def read_or_warn(reader: TableReader, refresh: steps.Step, warning: str) -> steps.Plan[None]:
    """Read the shard table in the background: a failure is logged, the first in a row.

    Args:
        reader: The reader.
        refresh: The step that reads the table.
        warning: The text of the log record, with ``%s`` for the error.
    """
    known = reader.failure
    try:
        yield refresh
    except errors.ServiceNotOpen:
        pass
    except errors.Error as error:
        if known is None:
            log.warning(warning, error, extra=about("map_unreadable"))


def _consumed(rows: List[Row]) -> Iterator[Row]:
    """Return each row and forget it: to free very many at once takes long."""
    rows.reverse()
    while rows:
        yield rows.pop()


def _new(found: Tuple[str, ...], before: Tuple[str, ...]) -> List[str]:
    known = set(before)
    return [each for each in found if each not in known]
