"""Changes of the shard table through the service: validated before a row is written,
and active in this process when the call returns.
"""

import logging
import time
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from pydantic import SecretStr

from .. import deadlines, errors
from ..execution import shutdown, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..protocol import authentication
from ..results import Row
from .lifecycle import ServiceLifecycle
from .manager import DrainingClient
from .shard_map import STATUS_WORDS, Status, status_of

log = logging.getLogger("dualdb.topology")

#: Timeout of auxiliary queries, in seconds.
ADMIN_QUERY_TIMEOUT = 5.0

#: Seconds that a drained shard's sessions are given to end after they were closed.
CLOSING_GRACE = 1.0

_COUNT_SESSIONS = (
    "SELECT COUNT(*) FROM information_schema.PROCESSLIST "
    "WHERE USER = %s AND DB = %s AND ID <> CONNECTION_ID()"
)

#: The privileges an application's account needs in a shard's database.
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "EXECUTE")


class DrainReport(NamedTuple):
    """The result of draining a shard.

    Attributes:
        shard_id: The shard's id.
        finished: Connections of this process that finished their work in time.
        aborted: Connections of this process that were aborted at the timeout.
        remaining: Sessions that the shard's account has on its server in the end: those
            of other processes, which drain within their own refresh intervals, and any
            of this one that the server has not ended yet. None if they could not be
            counted.
    """

    shard_id: int
    finished: int
    aborted: int
    remaining: Optional[int]


def _value(client: object, sql: str, params: Tuple[Any, ...] = ()) -> steps.Plan[Any]:
    return (
        yield from verbs.query_value(
            steps.fixed_route(DetachedExecutor(client)), sql, params, ADMIN_QUERY_TIMEOUT
        )
    )


def add(
    lifecycle: ServiceLifecycle,
    row: Dict[str, Any],
    privileges: Sequence[str],
    *,
    connect: bool = True,
    dry_run: bool = False,
) -> steps.Plan[None]:
    """Connect to the shard, check the account's privileges, insert the row, and
    activate it.

    Args:
        lifecycle: The service's lifecycle.
        row: The columns of the new row.
        privileges: The privileges that the account must have.
        connect: Connect and check the privileges; False if that was done already.
        dry_run: Connect and check, and write nothing.

    Raises:
        ParameterError: The row would be unusable, or exists, or the account lacks a
            privilege.
        ShardUnavailable: Connecting to the shard failed.
        Error: The global database rejected the row.
    """
    global_client = lifecycle.manager.require_open().global_client
    if isinstance(privileges, str):
        raise errors.ParameterError(f"privileges must be a list of str, not {privileges!r}")
    row = {
        **row,
        "status": row["status"].strip().lower()
        if isinstance(row["status"], str)
        else row["status"],
    }
    found = lifecycle.reader.parse([row])
    shard_id = next(iter(found.shards), None)
    if found.problems or shard_id is None:
        raise errors.ParameterError(f"the row would be unusable: {'; '.join(found.problems)}")
    yield from _check_allowed(lifecycle, global_client, row["status"])
    yield from lifecycle.refresh()
    if shard_id in lifecycle.reader.loaded.shards:
        raise errors.ParameterError(f"shard {shard_id} is in the shard table already")
    config = found.shards[shard_id].config
    if config is not None and connect:
        yield from _check(
            lifecycle.manager.new_client(config, f"shard {shard_id}", shard_id), privileges
        )
    if dry_run:
        return
    written = {name: value for name, value in row.items() if value is not None}
    marks = ", ".join(["%s"] * len(written))
    sql = f"INSERT INTO {lifecycle.reader.quoted_table} ({', '.join(written)}) VALUES ({marks})"
    route = steps.fixed_route(DetachedExecutor(global_client))
    try:
        yield from verbs.execute(route, sql, tuple([_plain(each) for each in written.values()]))
    except errors.Error as error:
        authentication.forget_locals(error)  # the password is among the parameters
        raise
    yield from lifecycle.refresh()


def _plain(value: object) -> Any:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _check(client: Any, privileges: Sequence[str]) -> steps.Plan[None]:
    try:
        yield steps.Open(client)
        version = yield from _value(client, "SELECT VERSION()")
        granted: List[Row] = yield from verbs.query(
            steps.fixed_route(client),
            "SELECT PRIVILEGE_TYPE AS p FROM information_schema.USER_PRIVILEGES "
            "WHERE GRANTEE = {me} UNION "
            "SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES "
            "WHERE GRANTEE = {me} AND DATABASE() LIKE TABLE_SCHEMA".format(
                me="CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')"
            ),
            None,
        )
    finally:
        yield steps.Close((client,))
    missing = [
        name for name in privileges if name.upper() not in {row["p"].upper() for row in granted}
    ]
    if missing:
        raise errors.ParameterError(
            f"the account of {client.name} has not been granted {', '.join(missing)} "
            f"on {client.config.address}"
        )
    log.info(
        "%s can be added: %s at %s",
        client.name,
        version,
        client.config.address,
        extra=about("shard_checked", client),
    )


def set_status(
    lifecycle: ServiceLifecycle, shard_id: int, status: str, *, dry_run: bool = False
) -> steps.Plan[None]:
    """Write a shard's status, and activate it.

    Args:
        lifecycle: The service's lifecycle.
        shard_id: The shard's id.
        status: The new status.
        dry_run: Check only.

    Raises:
        ParameterError: The status or the row does not exist, or the type of the status
            column does not allow it.
    """
    word = status_of(status)
    if word is None:
        raise errors.ParameterError(f"status must be one of {', '.join(STATUS_WORDS)}")
    client = lifecycle.manager.require_open().global_client
    text = status.strip().lower()
    yield from _check_allowed(lifecycle, client, text)
    yield from _set_column(lifecycle, client, shard_id, ("status", text), dry_run=dry_run)


def _check_allowed(lifecycle: ServiceLifecycle, client: object, status: str) -> steps.Plan[None]:
    """Check that the column can hold a status, which an older table may not have."""
    kind = yield from _column_type(lifecycle, client, "status")
    if kind is not None and kind.lower().startswith("enum") and f"'{status}'" not in kind.lower():
        reader = lifecycle.reader
        raise errors.ParameterError(
            f"the column status of {reader.table} is {kind} and does not allow {status!r}: "
            f"ALTER TABLE {reader.quoted_table} MODIFY status {kind[:-1]},'{status}') "
            "DEFAULT 'active'"
        )


def _column_type(lifecycle: ServiceLifecycle, client: object, column: str) -> steps.Plan[Any]:
    """The type of a column of the shard table; None if it has no such column."""
    schema, _, table = lifecycle.reader.table.rpartition(".")
    kind = yield from _value(
        client,
        "SELECT COLUMN_TYPE FROM information_schema.COLUMNS "
        "WHERE TABLE_SCHEMA = COALESCE(%s, DATABASE()) AND TABLE_NAME = %s "
        "AND COLUMN_NAME = %s",
        (schema or None, table, column),
    )
    return kind.decode() if isinstance(kind, bytes) else kind


def _set_column(
    lifecycle: ServiceLifecycle,
    client: Any,
    shard_id: int,
    change: Tuple[str, object],
    *,
    dry_run: bool,
) -> steps.Plan[None]:
    """Write a column of a shard's row, and activate it."""
    column, value = change
    table = lifecycle.reader.quoted_table
    count = f"SELECT COUNT(*) FROM {table} WHERE shard_id = %s"
    if not (yield from _value(client, count, (shard_id,))):
        raise errors.ParameterError(f"shard {shard_id} is not in the shard table")
    if dry_run:
        return
    yield from verbs.execute(
        steps.fixed_route(DetachedExecutor(client)),
        f"UPDATE {table} SET {column} = %s WHERE shard_id = %s",
        (value, shard_id),
    )
    yield from lifecycle.refresh()


def resize(
    lifecycle: ServiceLifecycle,
    shard_id: int,
    max_connections: Optional[int],
    *,
    dry_run: bool = False,
) -> steps.Plan[None]:
    """Write a shard's ``max_connections``, and activate it.

    Args:
        lifecycle: The service's lifecycle.
        shard_id: The shard's id.
        max_connections: The limit of its pool in each process; None for none.
        dry_run: Check only.

    Raises:
        ParameterError: The limit is no number from 1 up, or the shard or the column
            does not exist.
    """
    client = lifecycle.manager.require_open().global_client
    if max_connections is not None and (type(max_connections) is not int or max_connections < 1):
        raise errors.ParameterError(
            f"max_connections must be a number from 1 up, or None, not {max_connections!r}"
        )
    if (yield from _column_type(lifecycle, client, "max_connections")) is None:
        raise errors.ParameterError(
            f"{lifecycle.reader.table} has no column max_connections: "
            f"ALTER TABLE {lifecycle.reader.quoted_table} ADD max_connections INT NULL"
        )
    change = ("max_connections", max_connections)
    yield from _set_column(lifecycle, client, shard_id, change, dry_run=dry_run)


class DrainOptions(NamedTuple):
    """The arguments of ``drain_shard``."""

    timeout: float
    others: bool
    dry_run: bool


def drain(
    lifecycle: ServiceLifecycle,
    alone: Callable[[steps.Plan[None]], steps.Step],
    shard_id: int,
    options: DrainOptions,
    clock: Callable[[], float] = time.monotonic,
) -> steps.Plan[DrainReport]:
    """Make a shard inactive, wait for the work in progress on it, and abort the rest.

    Args:
        lifecycle: The service's lifecycle.
        alone: Makes the step that runs a plan under the service's lock.
        shard_id: The shard's id.
        options: How long to wait, and for whom.
        clock: Returns seconds.
    """
    until = clock() + deadlines.seconds(options.timeout)
    yield alone(set_status(lifecycle, shard_id, "inactive", dry_run=options.dry_run))
    if options.dry_run:
        return DrainReport(shard_id, 0, 0, None)
    # Closed just now or before: by a refresh that was quicker, or another drain.
    draining = lifecycle.manager.draining_of(shard_id)
    clients = tuple([each.client for each in draining])
    lifecycle.manager.set_drain_deadline(clients, until)
    in_use = _in_use(draining)
    while _in_use(draining) and clock() < until:
        yield steps.Sleep(0.02)
    aborted = _in_use(draining)
    if aborted:
        yield from shutdown.closing(clients, 0.0)
    ending = clock() + CLOSING_GRACE
    last = max(until, ending) if options.others else ending
    remaining = yield from _sessions(lifecycle, shard_id, last, clock)
    return DrainReport(shard_id, max(0, in_use - aborted), aborted, remaining)


def _in_use(draining: Sequence[DrainingClient]) -> int:
    return sum(each.in_use for each in draining)


def _sessions(
    lifecycle: ServiceLifecycle, shard_id: int, until: float, clock: Callable[[], float]
) -> steps.Plan[Optional[int]]:
    """Count the sessions of the shard's account until there are none: a server takes a
    moment to end one after its connection was closed, and a kill is a session, too.
    """
    config = lifecycle.reader.config_of(shard_id)
    if config is None:
        return None
    client = lifecycle.manager.new_client(config, f"shard {shard_id}", shard_id)
    route = steps.fixed_route(DetachedExecutor(client))
    params = (config.user, config.database)
    found: Optional[int] = None
    try:
        while True:
            failure: Optional[errors.Error] = None
            try:
                found = yield from verbs.query_value(route, _COUNT_SESSIONS, params, 1.0)
            except errors.Error as error:
                found, failure = None, error
            if found == 0 or clock() >= until:
                break
            yield steps.Sleep(0.02)
    finally:
        yield steps.Close((client,))
    if failure is not None:
        log.warning(
            "shard %s: its sessions cannot be counted: %s",
            shard_id,
            failure,
            extra=about("sessions_not_counted"),
        )
    return found


def remove(
    lifecycle: ServiceLifecycle,
    shard_id: int,
    key_counts: Optional[steps.Plan[Mapping[int, int]]],
    *,
    dry_run: bool = False,
) -> steps.Plan[None]:
    """Delete the row of a shard that is out of service.

    Args:
        lifecycle: The service's lifecycle.
        shard_id: The shard's id.
        key_counts: Counts the keys on each shard, of which none may be left; None to
            leave them.
        dry_run: Check only.

    Raises:
        ParameterError: The row does not exist, or its shard is in service: drain it
            first; or keys are on it.
    """
    client = lifecycle.manager.require_open().global_client
    yield from lifecycle.refresh()
    shard = lifecycle.reader.loaded.shards.get(shard_id)
    if shard is None:
        raise errors.ParameterError(f"shard {shard_id} is not in the shard table")
    if shard.in_service or shard.status is Status.MOVING:
        raise errors.ParameterError(
            f"shard {shard_id} is {shard.status.value}: drain it before it is removed"
        )
    counts = {} if key_counts is None else (yield from key_counts)
    kept = counts.get(shard_id, 0)
    if kept:
        keys = "1 key" if kept == 1 else f"{kept} keys"
        raise errors.ParameterError(
            f"the directory has {keys} on shard {shard_id}: move them to other shards first, or "
            "leave them (leave_keys, --leave-keys) to be refused"
        )
    if dry_run:
        return
    yield from verbs.execute(
        steps.fixed_route(DetachedExecutor(client)),
        f"DELETE FROM {lifecycle.reader.quoted_table} WHERE shard_id = %s",
        (shard_id,),
    )
    yield from lifecycle.refresh(force=True)
