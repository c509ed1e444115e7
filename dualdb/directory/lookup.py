"""The plans of a directory: look up, place, move and remove keys."""

import inspect
import logging
import sys
import time
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    List,
    Mapping,
    NamedTuple,
    Optional,
    Sequence,
    Tuple,
)

from .. import deadlines, error_codes, errors
from ..execution import execute, retry, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..protocol.statements import Statement
from ..results import ResultSet, Row
from ..sql.parameters import Params
from ..topology import routing
from . import keys as key_types
from . import placement, tables
from .cache import Entry, KeyCache, split
from .flights import Flight, Flights
from .keys import KeyColumn, StoredKey
from .sources import HashBuckets, KeyFunction, LookupTable, Source

log = logging.getLogger("dualdb.directory")

#: The most attempts to assign a shard to a key while they conflict with others.
PLACE_ATTEMPTS = 10

#: Seconds after which the keys of each shard are counted again; those that this process
#: has assigned since are added.
COUNTS_INTERVAL = 10.0

#: Seconds that a caller waits for another caller's lookup of the same key before it
#: looks for itself.
JOIN_SECONDS = 1.0

#: ER_TABLEACCESS_DENIED_ERROR, also for a table that does not exist.
TABLE_ACCESS_DENIED = 1142

#: The errors of a lookup while the global database is unreachable.
LOOKUP_FAILED = (errors.ConnectionFailed, errors.ConnectionLost, errors.PoolTimeout)


class Environment(NamedTuple):
    """The parts of a service that a directory uses.

    Attributes:
        global_client: Returns the global database's client. Raises ServiceNotOpen.
        candidates: Returns the shards that accept new keys now.
        known_shards: Returns the ids in the shard map.
        awaits: The service is asyncio's, so that coroutines can be awaited.
        max_staleness: Seconds after which an answer must have been confirmed, or None.
    """

    global_client: Callable[[], Any]
    candidates: Callable[[], List[placement.Candidate]]
    known_shards: Callable[[], Iterable[int]]
    awaits: bool
    max_staleness: Optional[float] = None


def key_not_found(key: object, where: str) -> errors.KeyNotFound:
    """Return the error of a call by a key that has no shard."""
    error = errors.KeyNotFound(f"the key {key!r} has no shard in {where}")
    return error.with_context(None, sent=False)


class KeyDirectory:
    """The state of a directory, and its plans."""

    def __init__(
        self,
        source: Source,
        environment: Environment,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if isinstance(source, KeyFunction) and source.awaits and not environment.awaits:
            raise TypeError(
                "shard_of_key is a coroutine function, which only the asyncio service can await"
            )
        self.source = source
        self._environment = environment
        self._clock = clock
        self.cache = self._new_cache()
        self._flights = Flights()
        self._rotation = placement.Rotation()
        self._column: Optional[KeyColumn] = None
        self._unique = False
        self._counts: Dict[int, int] = {}
        self._counted_at = float("-inf")
        self._unreachable = False

    def forked(self) -> None:
        """Replace the locks, which another thread of the parent may have held."""
        self.cache.forked()
        self._flights.forked()
        self._rotation.forked()

    def _new_cache(self) -> KeyCache:
        source = self.source
        most = self._environment.max_staleness
        ttl = source.ttl or 0.0
        negative_ttl = source.negative_ttl if isinstance(source, LookupTable) else ttl
        size = source.buckets if isinstance(source, HashBuckets) else source.cache_size
        if most is not None:
            ttl = min(ttl, most)
            negative_ttl = min(negative_ttl, most)
        return KeyCache(ttl, negative_ttl, size, self._clock)

    # Keys, as they are cached and stored.

    def cached_as(self, key: object) -> Any:
        """Return the key of the cache entry for a key: its bucket, or itself.

        Raises:
            ParameterError: It is not a valid key.
        """
        if isinstance(self.source, HashBuckets):
            return key_types.bucket_of(key, self.source.buckets)
        if isinstance(key, bool) and not isinstance(self.source, KeyFunction):
            raise errors.ParameterError(f"a key is not a bool: {key!r}")
        try:
            hash(key)
        except TypeError as error:
            raise errors.ParameterError(f"a key is hashable: {error}") from None
        return key

    @property
    def where(self) -> str:
        """The name of the source, for messages."""
        return "shard_of_key" if isinstance(self.source, KeyFunction) else self.source.table

    # Looking up.

    def immediate(self, key: object) -> Optional[int]:
        """Return the shard of a key by a plain function; None for any other source."""
        source = self.source
        if not isinstance(source, KeyFunction) or not source.immediate:
            return None
        return _shard_id(source.function(key))

    def cached(self, key: object) -> Optional[Entry]:
        """Return the cache entry of a key, without I/O."""
        return self.cache.get(self.cached_as(key))

    def age(self, key: object) -> float:
        """Seconds since the shard of a key was last read; 0 for a function, which is
        always right.
        """
        if isinstance(self.source, KeyFunction):
            return 0.0
        entry = self.cache.stale(self.cached_as(key))
        return float("inf") if entry is None else self._clock() - entry.at

    def resolve(
        self, keys: Sequence[Any], until: Optional[float] = None, *, fresh: bool = False
    ) -> steps.Plan[Dict[Any, Optional[int]]]:
        """Return the shards of keys, None for a key without one. Those not cached, with
        ``fresh`` all of them, are looked up with one statement.

        Raises:
            ParameterError: One cannot be a key.
            Error: The source cannot be asked, and its last answer is not known.
        """
        names = {key: self.cached_as(key) for key in keys}
        wanted = dict.fromkeys(names.values())
        known, missing = ({}, list(wanted)) if fresh else split(self.cache, wanted)
        if fresh:
            known.update((yield from self._fetch(missing, until)))
        elif missing:
            known.update((yield from self._fetch_together(missing, until)))
        return {key: known[name] for key, name in names.items()}

    def require(
        self, keys: Sequence[Any], until: Optional[float] = None
    ) -> steps.Plan[Dict[Any, int]]:
        """Return the shards of keys, each of which must have one.

        Raises:
            KeyNotFound: One has none.
        """
        found = yield from self.resolve(keys, until)
        required: Dict[Any, int] = {}
        for key, shard_id in found.items():
            if shard_id is None:
                raise key_not_found(key, self.where)
            required[key] = shard_id
        return required

    def _fetch_together(
        self, missing: List[Any], until: Optional[float]
    ) -> steps.Plan[Dict[Any, Optional[int]]]:
        """Look keys up, but wait for those that another caller looks up already."""
        flight = Flight(self.cache.version)
        others = self._flights.join(missing, flight)
        joined = {key for keys in others.values() for key in keys}
        own = [key for key in missing if key not in joined]
        try:
            # another caller's lookup may have ended since the cache was asked
            found, absent = split(self.cache, own)
            if absent:
                found.update((yield from self._fetch(absent, until)))
            flight.found = dict(found)
        finally:
            self._flights.finish(flight, own)
        for other, keys in others.items():
            left = self._join_timeout(until)
            yield steps.AwaitSignal(other.on_end, left)
            if other.found is None:
                found.update((yield from self._fetch(keys, until)))
            else:
                found.update({key: other.found[key] for key in keys})
        return found

    @staticmethod
    def _join_timeout(until: Optional[float]) -> float:
        if until is None:
            return JOIN_SECONDS
        return min(JOIN_SECONDS, max(0.0, until - time.monotonic()))

    def _fetch(
        self, missing: List[Any], until: Optional[float]
    ) -> steps.Plan[Dict[Any, Optional[int]]]:
        began = self._clock()
        version = self.cache.version
        try:
            if isinstance(self.source, KeyFunction):
                found = yield from self._ask_function(self.source, missing)
            else:
                found = yield from self._ask_table(missing, until)
        except LOOKUP_FAILED as error:
            stale = {key: self.cache.stale(key) for key in missing}
            if not all(stale.values()):
                raise
            if not self._unreachable:
                log.warning(
                    "%s cannot be read, so its last answers hold: %s",
                    self.where,
                    error,
                    extra=about("directory_unreadable"),
                )
            self._unreachable = True
            return {key: entry.shard_id for key, entry in stale.items() if entry is not None}
        self._unreachable = False
        self.cache.put(found, began, version)
        return found

    def _ask_function(
        self, source: KeyFunction, keys: List[Any]
    ) -> steps.Plan[Dict[Any, Optional[int]]]:
        if source.batched:
            answer = yield from self._value(source.function(list(keys)))
            return _batch(keys, answer)
        found: Dict[Any, Optional[int]] = {}
        for key in keys:
            found[key] = _shard_id((yield from self._value(source.function(key))))
        return found

    def _value(self, answer: object) -> steps.Plan[Any]:
        """Return the result of an application's function, awaited if necessary."""
        if not inspect.isawaitable(answer):
            return answer
        if not self._environment.awaits:
            if inspect.iscoroutine(answer):
                answer.close()
            raise errors.ParameterError(
                "the function returned an awaitable, which only the asyncio service can await"
            )
        return (yield steps.AwaitUser(answer))

    def _ask_table(
        self, keys: List[Any], until: Optional[float] = None
    ) -> steps.Plan[Dict[Any, Optional[int]]]:
        column = yield from self._learn_column(until)
        table = tables.mapping_table(self.source)
        most = tables.MOST_KEYS[column.kind]
        found: Dict[Any, Optional[int]] = {}
        for first in range(0, len(keys), most):
            part = keys[first : first + most]
            stored = [column.stored(key) for key in part]
            sql, params = table.lookup(column, stored)
            rows = yield from self._rows(sql, params, until)
            found.update(zip(part, table.found(column, stored, rows)))
        return found

    # The global database.

    def _route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The global database, outside of any transaction: what a directory says is
        the same for all processes, and remains valid if the caller's transaction is
        rolled back.
        """
        yield from ()
        return DetachedExecutor(self._environment.global_client())

    def _rows(
        self, sql: str, params: Params = None, until: Optional[float] = None
    ) -> steps.Plan[List[Row]]:
        statement = Statement(sql, params, read_only=True, max_rows=sys.maxsize)
        until = deadlines.earliest(until, deadlines.deadline_after())
        results: List[ResultSet] = yield from execute.execute_statement(
            self._route, statement, until
        )
        return results[0].rows

    def _write(self, sql: str, params: Params = None) -> steps.Plan[Any]:
        """Run a statement that may run twice, and run it again after a conflict."""
        for attempt in range(PLACE_ATTEMPTS):
            try:
                return (yield from verbs.execute(self._route, sql, params, idempotent=True))
            except (errors.Deadlock, errors.LockWaitTimeout):
                if attempt + 1 == PLACE_ATTEMPTS:
                    raise
            yield steps.Sleep(retry.backoff(attempt, base=0.01, cap=0.5))
        raise AssertionError("unreachable")

    def _learn_column(self, until: Optional[float] = None) -> steps.Plan[KeyColumn]:
        """Return the type of the key column, which is queried once."""
        if self._column is None:
            table = tables.mapping_table(self.source)
            rows = yield from self._rows(tables.COLUMNS, table.in_schema(), until)
            if not rows:
                # says what is wrong in the server's own words
                yield from self._rows(table.probe, None, until)
                raise errors.ProgrammingError(f"the column of {table.name} cannot be seen")
            row = rows[0]
            self._column = key_types.key_column(
                table.key_column, row["data_type"], row["column_type"], row["length"]
            )
        return self._column

    def _check_unique(self) -> steps.Plan[None]:
        if self._unique:
            return
        table = tables.mapping_table(self.source)
        if not (yield from self._rows(tables.UNIQUE_INDEXES, table.in_schema())):
            raise errors.ProgrammingError(
                f"{table.name} has no unique index on {table.key_column} alone, "
                "without which two callers can give one key two shards: add it"
            )
        self._unique = True

    # Changing it.

    def get(self, key: object) -> steps.Plan[Optional[int]]:
        """Return the shard of a key, or None."""
        immediate = self.immediate(key)
        if immediate is not None:
            return immediate
        return (yield from self.resolve([key]))[key]

    def shard_id_of(self, key: object) -> steps.Plan[int]:
        """Return the shard of a key.

        Raises:
            KeyNotFound: It has none.
        """
        immediate = self.immediate(key)
        if immediate is not None:
            return immediate
        return (yield from self.require([key]))[key]

    def assign(self, key: object, *, dry_run: bool = False) -> steps.Plan[int]:
        """Give a key a shard unless it has one, or only find which one it would be."""
        self._require_table("assign")
        name = self.cached_as(key)
        found = (yield from self.resolve([key], fresh=True))[key]
        if found is not None:
            self.cache.assigned(name, found)
            return found
        yield from self._check_unique()
        column = yield from self._learn_column()
        table = tables.mapping_table(self.source)
        stored = column.stored(name)
        chosen = yield from self._choose(key)
        if dry_run:
            return chosen
        yield from self._write(table.place, (stored, chosen, chosen))
        found = (yield from self._ask_table([name]))[name]
        if found is None:
            raise errors.InternalError(f"{table.name} does not have the key {key!r} after INSERT")
        self._counts[found] = self._counts.get(found, 0) + 1
        self.cache.assigned(name, found)
        return found

    def set(self, key: object, shard_id: int, *, dry_run: bool = False) -> steps.Plan[None]:
        """Give a key this shard, or only check that it can be done."""
        if not isinstance(self.source, LookupTable):
            raise self._unsupported("set")
        number = self._known_shard(shard_id)
        yield from self._move(self.cached_as(key), number, dry_run=dry_run)

    def switch(
        self, key: object, source: int, target: int, only_if: Tuple[str, Tuple[Any, ...]]
    ) -> steps.Plan[Optional[int]]:
        """Give a key that is on ``source`` the shard ``target``. Gives its shard then,
        which is another one if somebody else has moved it.

        Args:
            key: The key.
            source: The shard it is on.
            target: The shard it is to be on.
            only_if: A condition that the same statement checks, and its parameters.
        """
        name = self.cached_as(key)
        column = yield from self._learn_column()
        table = tables.mapping_table(self.source)
        condition, more = only_if
        params = (target, column.stored(name), source, *more)
        for attempt in range(PLACE_ATTEMPTS):
            try:
                yield from self._write(f"{table.switch} AND {condition}", params)
                return (yield from self._ask_table([name]))[name]
            except LOOKUP_FAILED:
                # it may have been applied: where the key is shows when it answers
                if attempt + 1 == PLACE_ATTEMPTS:
                    raise
            finally:
                self.cache.clear()
            yield steps.Sleep(retry.backoff(attempt))
        raise AssertionError("unreachable")

    def set_bucket(self, bucket: int, shard_id: int, *, dry_run: bool = False) -> steps.Plan[None]:
        """Give a hash bucket this shard, or only check that it can be done."""
        if not isinstance(self.source, HashBuckets):
            raise self._unsupported("set_bucket")
        if isinstance(bucket, bool) or not isinstance(bucket, int):
            raise errors.ParameterError(f"a bucket is an int, not {bucket!r}")
        if not 0 <= bucket < self.source.buckets:
            raise errors.ParameterError(
                f"a bucket is from 0 to {self.source.buckets - 1}, not {bucket}"
            )
        yield from self._move(bucket, self._known_shard(shard_id), dry_run=dry_run)

    def _move(self, name: object, shard_id: int, *, dry_run: bool) -> steps.Plan[None]:
        yield from self._check_unique()
        column = yield from self._learn_column()
        table = tables.mapping_table(self.source)
        stored = column.stored(name)
        if dry_run:
            return
        try:
            yield from self._write(table.move, (stored, shard_id, shard_id))
        finally:
            self.cache.clear()
        self.cache.assigned(name, shard_id)

    def forget(self, key: object, *, dry_run: bool = False) -> steps.Plan[None]:
        """Remove a key and its aliases, or only check that it can be done."""
        if not isinstance(self.source, LookupTable):
            raise self._unsupported("forget")
        name = self.cached_as(key)
        column = yield from self._learn_column()
        table = tables.mapping_table(self.source)
        stored = column.stored(name)
        if dry_run:
            return
        aliases = tables.AliasTable(self.source.alias_table)
        try:
            yield from self._write(aliases.delete_of_key, (tables.alias_value(stored),))
        except errors.ProgrammingError as error:
            if error.errno != error_codes.NO_SUCH_TABLE:
                raise
        except errors.DatabaseError as error:
            if error.errno != TABLE_ACCESS_DENIED:
                raise
            log.warning(
                "the aliases of a forgotten key, if any, are left: %s",
                error,
                extra=about("aliases_kept"),
            )
        try:
            yield from self._write(table.delete, (stored,))
        finally:
            self.cache.clear()

    def create_tables(self) -> steps.Plan[None]:
        """Make the tables that are missing, and spread buckets that have no shard."""
        source = self._require_table("create_tables")
        yield from self._write(tables.ddl_of(source))
        yield from self._write(tables.AliasTable(source.alias_table).ddl)
        yield from self.spread_new_buckets()

    def spread_new_buckets(self) -> steps.Plan[None]:
        """Give hash buckets that have none a shard; nothing for other directories."""
        if isinstance(self.source, HashBuckets):
            yield from self._fill(self.source)
            self.cache.clear()

    def bucket_moves(self) -> steps.Plan[Dict[int, int]]:
        """Return the buckets to be moved for each shard to have its share."""
        if not isinstance(self.source, HashBuckets):
            raise self._unsupported(
                "bucket_moves", "; see operations.rebalance_plan (dualdb rebalance plan)"
            )
        owners = yield from self._owners()
        weights = {each.shard_id: each.weight for each in self._candidates()}
        return placement.spread_buckets(owners, self.source.buckets, weights)

    def _owners(self) -> steps.Plan[Dict[int, int]]:
        rows = yield from self._rows(tables.mapping_table(self.source).all_rows)
        return {int(row["found_key"]): int(row["shard_id"]) for row in rows}

    def _fill(self, source: HashBuckets) -> steps.Plan[None]:
        table = tables.mapping_table(source)
        owners = yield from self._owners()
        if len(owners) >= source.buckets:
            return
        candidates = self._candidates()
        new = {
            bucket: self._rotation.choose(candidates, weighted=True)
            for bucket in range(source.buckets)
            if bucket not in owners
        }
        numbers = sorted(new)
        for first in range(0, len(numbers), 1000):
            part = {bucket: new[bucket] for bucket in numbers[first : first + 1000]}
            yield from self._write(*table.place_many(part))

    # Aliases.

    def alias(self, kind: str, value: str) -> steps.Plan[Any]:
        """Return the key of an alias, or None."""
        source = self._require_table("alias")
        _check_alias(kind, value)
        aliases = tables.AliasTable(source.alias_table)
        rows = yield from self._rows(aliases.lookup, (kind, value))
        if not rows:
            return None
        return tables.key_of_alias(rows[0]["key_value"], (yield from self._alias_kind()))

    def set_alias(self, kind: str, value: str, key: object) -> steps.Plan[None]:
        """Add an alias of a key."""
        source = self._require_table("set_alias")
        _check_alias(kind, value)
        stored = tables.alias_value((yield from self._alias_key(key)))
        if len(stored) > tables.KEY_VALUE_LENGTH:
            raise errors.ParameterError(f"a key with aliases has {tables.KEY_VALUE_LENGTH} bytes")
        aliases = tables.AliasTable(source.alias_table)
        yield from self._write(aliases.insert, (kind, value, stored))
        rows = yield from self._rows(aliases.lookup, (kind, value))
        if not rows or bytes(rows[0]["key_value"]) != stored:
            raise errors.IntegrityError(
                1062, f"the alias {value!r} of kind {kind!r} belongs to another key"
            ).with_context("global", sent=True)

    def remove_alias(self, kind: str, value: str) -> steps.Plan[None]:
        """Remove an alias."""
        source = self._require_table("remove_alias")
        _check_alias(kind, value)
        yield from self._write(tables.AliasTable(source.alias_table).delete, (kind, value))

    def _alias_kind(self) -> steps.Plan[key_types.KeyKind]:
        if isinstance(self.source, HashBuckets):
            yield from ()
            return key_types.KeyKind.TEXT
        return (yield from self._learn_column()).kind

    def _alias_key(self, key: object) -> steps.Plan[StoredKey]:
        if isinstance(self.source, HashBuckets):
            yield from ()
            key_types.bucket_of(key, 1)
            return key if isinstance(key, bytes) else str(key)
        return (yield from self._learn_column()).stored(key)

    # Placement.

    def _choose(self, key: object) -> steps.Plan[int]:
        policy = self.source.placement if isinstance(self.source, LookupTable) else "weighted"
        candidates = self._candidates()
        if callable(policy):
            chosen = yield from self._value(policy(key, candidates))
            return placement.check_choice(chosen, candidates)
        if policy != "least_loaded":
            return self._rotation.choose(candidates, weighted=policy == "weighted")
        counts = yield from self._count()
        return placement.least_loaded(
            [each._replace(keys=counts.get(each.shard_id, 0)) for each in candidates]
        )

    def _candidates(self) -> List[placement.Candidate]:
        candidates = self._environment.candidates()
        if not candidates:
            raise errors.ShardUnavailable(
                "no shard takes new keys: none is active, reachable and open to new keys"
            ).with_context(None, sent=False)
        return candidates

    def _count(self) -> steps.Plan[Dict[int, int]]:
        if self._clock() - self._counted_at >= COUNTS_INTERVAL:
            self._counted_at = self._clock()
            self._counts = yield from self.count()
        return self._counts

    def count(self) -> steps.Plan[Dict[int, int]]:
        """The number of keys, or of hash buckets, on each shard that has any."""
        rows = yield from self._rows(tables.mapping_table(self.source).counts)
        return {
            int(row["shard_id"]): int(row["key_count"])
            for row in rows
            if row["shard_id"] is not None
        }

    def keys_on(self, shard_ids: Sequence[int]) -> steps.Plan[List[Any]]:
        """The keys on these shards; none where keys have no rows of their own."""
        if not shard_ids or not isinstance(self.source, LookupTable):
            return []
        table = tables.mapping_table(self.source)
        rows = yield from self._rows(table.keys_of_shards, (tuple(shard_ids),))
        return [row["found_key"] for row in rows]

    def counts(self) -> steps.Plan[Dict[int, int]]:
        """As ``count``; empty for a function, and where there is no table, or one that
        may not be read.
        """
        if isinstance(self.source, KeyFunction):
            return {}
        try:
            return (yield from self.count())
        except errors.Error as error:
            if error.errno not in (error_codes.NO_SUCH_TABLE, TABLE_ACCESS_DENIED):
                raise
            return {}

    def _known_shard(self, shard_id: object) -> int:
        number = routing.shard_id_of(shard_id)
        if number not in self._environment.known_shards():
            raise errors.ParameterError(f"shard {number} is not in the shard table")
        return number

    def _require_table(self, method: str) -> Any:
        if isinstance(self.source, KeyFunction):
            raise self._unsupported(method)
        return self.source

    def _unsupported(self, method: str, instead: str = "") -> errors.InterfaceError:
        return errors.InterfaceError(
            f"{method} is not possible where keys are found by {type(self.source).__name__}"
            f"{instead}"
        )


def _shard_id(shard_id: object) -> int:
    try:
        return routing.shard_id_of(shard_id)
    except errors.ParameterError:
        raise errors.ParameterError(
            f"shard_of_key gives the shard_id of a key, an int, and not {shard_id!r}"
        ) from None


def _batch(keys: Sequence[Any], answer: object) -> Dict[Any, Optional[int]]:
    """Return the result of a batched function by key; None for an unknown key."""
    if isinstance(answer, Mapping):
        found = [answer.get(key) for key in keys]
    elif isinstance(answer, (list, tuple)) and len(answer) == len(keys):
        found = list(answer)
    else:
        raise errors.ParameterError(
            f"a batched shard_of_key gives a mapping, or a list of {len(keys)} shard ids "
            f"in the order of the keys, and not {type(answer).__name__}"
        )
    return {
        key: None if shard_id is None else _shard_id(shard_id) for key, shard_id in zip(keys, found)
    }


def _check_alias(kind: object, value: object) -> None:
    for what, text, most in (
        ("kind", kind, tables.KIND_LENGTH),
        ("alias", value, tables.ALIAS_LENGTH),
    ):
        if not isinstance(text, str) or not 1 <= len(text) <= most:
            raise errors.ParameterError(
                f"the {what} must be a str of 1 to {most} characters, not {text!r}"
            )
