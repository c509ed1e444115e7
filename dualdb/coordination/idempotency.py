"""Idempotency keys: a function takes effect once, and every caller gets its result.

The key is a row that is inserted first in the function's transaction. A second caller
waits for that row: if the first one commits, the row has the result, and if it is
rolled back, the key is free. So effect, row and result are committed together or not at
all.
"""

import itertools
import logging
import random
import uuid
from typing import Any, Callable, NamedTuple, Optional, Tuple

from .. import deadlines, error_codes, errors
from ..api.interfaces import block_of, run_in
from ..api.transaction import AnyTransaction
from ..execution import retry, steps, verbs
from ..execution.detached import DetachedExecutor
from ..observability.logs import about
from ..protocol.transaction_commands import TransactionOptions
from . import json_text

log = logging.getLogger("dualdb.coordination")

TABLE = "dualdb_idempotency"

#: Keys are compared byte by byte, as no collation of a text column does.
DDL = f"""CREATE TABLE IF NOT EXISTS {TABLE} (
    idempotency_key VARBINARY(255) NOT NULL PRIMARY KEY,
    result LONGTEXT CHARACTER SET utf8mb4 NULL,
    expires_at DATETIME NOT NULL,
    tenant VARBINARY(255) NULL,
    KEY (expires_at),
    KEY (tenant, expires_at)
) ENGINE=InnoDB"""

#: The longest key, in bytes of UTF-8.
KEY_BYTES = 255

#: One in this many calls also deletes rows whose time is over.
SWEEP_EVERY = 500

#: How often it is begun again after a COMMIT without an answer, or a deadlock over the
#: key between callers that wait for it while its first caller is rolled back.
CLAIM_ATTEMPTS = 50

#: How often it is tried to make the table.
CREATE_ATTEMPTS = 5

_CLAIM = (
    f"INSERT IGNORE INTO {TABLE} (idempotency_key, expires_at, tenant) "
    "VALUES (%s, UTC_TIMESTAMP() + INTERVAL %s SECOND, %s)"
)
# A locking read sees what was committed last, also in a snapshot that is older.
_FOUND = f"SELECT result FROM {TABLE} WHERE idempotency_key = %s LOCK IN SHARE MODE"
_STORE = f"UPDATE {TABLE} SET result = %s WHERE idempotency_key = %s"
_SWEEP = f"DELETE FROM {TABLE} WHERE expires_at < UTC_TIMESTAMP() LIMIT 1000"


class IdempotencyKey(NamedTuple):
    """A checked key.

    Attributes:
        text: The key.
        retention: Seconds that its result is kept.
        tenant: The key of the tenant that it is of, as ``tenant_of`` gives it: the row
            moves with the tenant.
    """

    text: str
    retention: float
    tenant: Optional[bytes] = None

    @property
    def stored(self) -> bytes:
        """The key as it is stored."""
        return self.text.encode()


def tenant_of(key: object) -> Optional[bytes]:
    """Return a tenant's key as stored; None if it has none or a longer one.

    Without the spaces at its end, which columns may ignore.
    """
    if key is None:
        return None
    stored = key if isinstance(key, bytes) else str(key).rstrip(" ").encode("utf-8", "replace")
    return stored if len(stored) <= KEY_BYTES else None


def tenant_forms(held: bytes) -> Tuple[bytes, ...]:
    """Return what ``tenant_of`` may have made of the keys of one tenant: a call does
    not know the columns that hold the key, which may be a UUID's bytes.

    Args:
        held: The tenant's key as its columns hold it.
    """
    forms = (held, held.rstrip(b" "))
    return forms if len(held) != 16 else (*forms, str(uuid.UUID(bytes=held)).encode())


def checked(key: object, retention: float, tenant: object = None) -> IdempotencyKey:
    """Validate an idempotency key.

    Raises:
        ParameterError: It is not a str of 1 to 255 bytes, or the retention is invalid.
    """
    if not isinstance(key, str) or not 0 < len(key.encode("utf-8", "replace")) <= KEY_BYTES:
        raise errors.ParameterError(
            f"idempotency_key must be a str of 1 to {KEY_BYTES} bytes, not {key!r}"
        )
    try:
        key.encode()
    except UnicodeEncodeError:
        raise errors.ParameterError(f"idempotency_key is not valid text: {key!r}") from None
    if not deadlines.seconds(retention):
        raise errors.ParameterError("idempotency_retention must be a number of seconds above 0")
    return IdempotencyKey(key, float(retention), tenant_of(tenant))


def run(
    new_transaction: Callable[[TransactionOptions], Any],
    function: Callable[[Any], Any],
    options: TransactionOptions,
    attempts: int,
    key: Tuple[str, float, object],
    *,
    spread: Callable[[], float] = random.random,
) -> steps.Plan[Any]:
    """Call a function in a transaction unless that has been done with this key; see
    ``Target.run``.

    A COMMIT whose answer was lost is settled by beginning again: the row of the key
    says whether it was applied.

    Args:
        new_transaction: Makes a transaction with options.
        function: The user's; takes the transaction.
        options: How each transaction is opened.
        attempts: The largest number of calls.
        key: The key, the seconds that its result is kept, and the target's key or None.
        spread: Gives a number from 0 to 1; decides about deleting old rows.
    """
    options = options.checked().begun()
    once = _Once(function, checked(*key))
    for attempt in itertools.count():
        try:
            result = yield from retry.run(new_transaction, block_of, once.call, options, attempts)
        except errors.Error as error:
            lacks_table = once.lacks_table(error) and attempt <= CREATE_ATTEMPTS
            if not (lacks_table or once.may_begin_again(error)) or attempt >= CLAIM_ATTEMPTS:
                raise
            if lacks_table and attempt:
                # not the first time: of many callers at once, few make it
                yield from _create(once.detached_route)
            else:
                yield steps.Sleep(retry.backoff(attempt))
        else:
            if spread() * SWEEP_EVERY < 1:
                yield from _sweep(once.detached_route)
            return result
    raise AssertionError("unreachable")


def sweep(route: steps.Route) -> steps.Plan[int]:
    """Delete expired results; return their number."""
    deleted = 0
    while True:
        count = yield from verbs.execute(route, _SWEEP, None, idempotent=True)
        deleted += count
        if count < 1000:
            return deleted


def _create(route: steps.Route) -> steps.Plan[None]:
    try:
        yield from verbs.execute(route, DDL, None)
    except errors.Deadlock as error:
        log.info("%s is made by others, too: %s", TABLE, error, extra=about("table_made_elsewhere"))


def _sweep(route: steps.Route) -> steps.Plan[None]:
    try:
        yield from verbs.execute(route, _SWEEP, None, idempotent=True)
    except errors.Error as error:
        log.warning(
            "old rows of %s cannot be deleted: %s", TABLE, error, extra=about("old_rows_kept")
        )


class _Once:
    """The use of a key, in one transaction after the other."""

    def __init__(self, function: Callable[[Any], Any], key: IdempotencyKey) -> None:
        self._function = function
        self._key = key
        self._client: Any = None
        self._claimed = False
        self._has_result = False
        self._is_inner = False

    def call(self, transaction: AnyTransaction) -> Any:
        """Call the function in a transaction; return its result, or in asyncio a
        coroutine.
        """
        return run_in(transaction, self._within(transaction))

    def may_begin_again(self, error: errors.Error) -> bool:
        """Return whether another transaction resolves the error of the last one.

        It does if the response to COMMIT was lost, or after a deadlock over the key,
        before the function was called.
        """
        if self._is_inner or isinstance(error, errors.DeadlineExceeded):
            return False
        if isinstance(error, errors.OutcomeUnknown):
            return self._has_result
        return isinstance(error, errors.Deadlock) and not self._claimed

    def lacks_table(self, error: errors.Error) -> bool:
        """Return whether the table is missing and can be created: DDL would commit an
        outer transaction.
        """
        missing = error.errno == error_codes.NO_SUCH_TABLE and not self._claimed
        return missing and self._client is not None and not self._is_inner

    def detached_route(self, until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        """The route to the same database, outside the caller's transactions."""
        yield from ()
        return DetachedExecutor(self._client)

    def _within(self, transaction: AnyTransaction) -> steps.Plan[Any]:
        block = block_of(transaction)
        self._client = block.client
        self._is_inner = bool(block.number)
        self._claimed = False
        self._has_result = False
        route = block.route
        params = (self._key.stored, self._key.retention, self._key.tenant)
        self._claimed = bool((yield from verbs.execute(route, _CLAIM, params)))
        if not self._claimed:
            found = yield from self._stored_result(route)
            self._has_result = True
            block.observers.post_coordination(
                "idempotency_hit", self._client.name, self._client.shard_id
            )
            return found
        value = yield steps.CallUser(self._function, transaction)
        if not transaction.is_open:
            return value  # it was rolled back, and the key with it
        text = json_text.encoded(value, "the result of a function with an idempotency_key")
        yield from verbs.execute(route, _STORE, (text, self._key.stored))
        self._has_result = True
        return json_text.decoded(text)

    def _stored_result(self, route: steps.Route) -> steps.Plan[Any]:
        text = yield from verbs.query_value(route, _FOUND, (self._key.stored,))
        if text is None:
            raise errors.OutcomeUnknown(
                f"a call with the idempotency_key {self._key.text!r} was committed by a statement "
                "in its middle (DDL, or a procedure that ends the transaction), and did not "
                "come to its end",
            )
        return json_text.decoded(text)
