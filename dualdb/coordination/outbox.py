"""The outbox: events that are written in the transaction that they are about.

Events of one key are consumed in the order in which their transactions were committed.
AUTO_INCREMENT does not give that order: a number is assigned at INSERT, and the row
appears at COMMIT. So a producer first locks a row of the key, until its COMMIT: of two
transactions with one key, the second inserts after the first has been committed.
"""

import dataclasses
import datetime
import types
import uuid
from typing import Any, Callable, Dict, Generic, List, Mapping, Optional, Tuple, TypeVar

from .. import error_codes, errors
from ..api.transaction_block import BaseTransactionBlock
from ..directory import keys
from ..execution import steps, verbs
from ..sql.identifiers import quoted
from . import json_text

StrR = TypeVar("StrR")  # str

#: The longest topic, in characters, and the longest key, in bytes.
TOPIC_LENGTH = 190
KEY_BYTES = 255

_OWN_TABLES = {
    "dualdb_outbox": """CREATE TABLE IF NOT EXISTS dualdb_outbox (
    seq BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY,
    id CHAR(36) CHARACTER SET ascii COLLATE ascii_bin NOT NULL,
    topic VARCHAR(190) CHARACTER SET utf8mb4 NOT NULL,
    event_key VARBINARY(255) NULL,
    payload LONGTEXT CHARACTER SET utf8mb4 NOT NULL,
    status ENUM('pending', 'published', 'dead') NOT NULL DEFAULT 'pending',
    attempts INT UNSIGNED NOT NULL DEFAULT 0,
    error TEXT CHARACTER SET utf8mb4 NULL,
    created_at TIMESTAMP(6) NOT NULL DEFAULT CURRENT_TIMESTAMP(6),
    published_at TIMESTAMP(6) NULL DEFAULT NULL,
    UNIQUE KEY (id),
    KEY (status, seq),
    KEY (status, published_at)
) ENGINE=InnoDB""",
    "dualdb_outbox_key": """CREATE TABLE IF NOT EXISTS dualdb_outbox_key (
    event_key VARBINARY(255) NOT NULL PRIMARY KEY,
    next_number BIGINT UNSIGNED NOT NULL,
    touched_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP,
    KEY (touched_at)
) ENGINE=InnoDB""",
}

#: The leases: which consumer delivers which part of the keys.
LEASES = "dualdb_outbox_lease"

#: Keys whose next event has failed, and when it is delivered again.
RETRIES = "dualdb_outbox_retry"

_CONSUMER_TABLES = {
    LEASES: f"""CREATE TABLE IF NOT EXISTS {LEASES} (
    outbox VARBINARY(130) NOT NULL,
    part SMALLINT UNSIGNED NOT NULL,
    owner CHAR(32) CHARACTER SET ascii COLLATE ascii_bin NULL,
    lease_until DATETIME(6) NOT NULL,
    PRIMARY KEY (outbox, part)
) ENGINE=InnoDB""",
    RETRIES: f"""CREATE TABLE IF NOT EXISTS {RETRIES} (
    outbox VARBINARY(130) NOT NULL,
    blocked VARBINARY(255) NOT NULL,
    event_id VARBINARY(255) NOT NULL,
    attempts INT UNSIGNED NOT NULL,
    retry_at DATETIME(6) NOT NULL,
    error TEXT CHARACTER SET utf8mb4 NOT NULL,
    PRIMARY KEY (outbox, blocked)
) ENGINE=InnoDB""",
}

_PURPOSES = {
    "dualdb_outbox": "events of the outbox",
    "dualdb_outbox_key": "the order of events with one key",
    LEASES: "who consumes the outbox",
    RETRIES: "events that are delivered again later",
}


def _uuid() -> str:
    return str(uuid.uuid4())


@dataclasses.dataclass(frozen=True)
class OutboxTable:
    """The table of events: this package's own, or an existing one of the application.

    The defaults are ``dualdb_outbox``, which ``dualdb init`` makes in every database.
    For another table name its columns; those that need not be there are None.

    Args:
        table: The table, ``name`` or ``schema.name``.
        id_column: The event's id, unique.
        topic_column: What kind of event it is.
        key_columns: What orders events, the column of ``key=`` last. Columns before it
            are given by ``columns=`` of ``tx.outbox``.
        payload_column: The payload, as JSON.
        order_by: The columns that order the events of one key.
        status_column: How far an event is.
        pending: The statuses of events that are to be delivered, new ones first.
        published: The status of those that have been.
        dead: The status of those that are given up.
        created_at_column: When it was written.
        published_at_column: When it was delivered.
        attempts_column: How often its delivery has failed.
        error_column: What it failed with last.
        sequence_column: A number that counts the events of a key, if the table has one.
        key_table: The table with a row for each key, which producers lock. It has the
            ``key_columns``, with a unique index on them.
        counter_column: Its column with the next number of the key.
        new_id: Makes the id of a new event; None if the database does.

    Raises:
        ValueError: A name is none, or a list is empty.

    Example:
        >>> OutboxTable("app_outbox", topic_column="kind", order_by=("id",))
    """

    table: str = "dualdb_outbox"
    id_column: str = "id"
    topic_column: str = "topic"
    key_columns: Tuple[str, ...] = ("event_key",)
    payload_column: str = "payload"
    order_by: Tuple[str, ...] = ("seq",)
    status_column: str = "status"
    pending: Tuple[str, ...] = ("pending",)
    published: str = "published"
    dead: str = "dead"
    created_at_column: Optional[str] = "created_at"
    published_at_column: Optional[str] = "published_at"
    attempts_column: Optional[str] = "attempts"
    error_column: Optional[str] = "error"
    sequence_column: Optional[str] = None
    key_table: str = "dualdb_outbox_key"
    counter_column: str = "next_number"
    new_id: Optional[Callable[[], Any]] = _uuid

    def __post_init__(self) -> None:
        keys.table_name(self.table, "table")
        keys.table_name(self.key_table, "key_table")
        for name in ("key_columns", "order_by", "pending"):
            value = getattr(self, name)
            if isinstance(value, str) or not value:
                raise ValueError(f"{name} must be a tuple of names, not {value!r}")
            object.__setattr__(self, name, tuple(value))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name.endswith("_column") and value is not None:
                keys.column_name(value, field.name)
        for name in (*self.key_columns, *self.order_by):
            keys.column_name(name, "key_columns and order_by")
        if self.new_id is not None and not callable(self.new_id):
            raise ValueError(f"new_id must be a function or None, not {self.new_id!r}")


def needed_tables(table: OutboxTable) -> Dict[str, Tuple[str, str]]:
    """Return the tables that an outbox needs: purpose and DDL by name."""
    own = {
        name: _OWN_TABLES[name] for name in (table.table, table.key_table) if name in _OWN_TABLES
    }
    return {name: (_PURPOSES[name], ddl) for name, ddl in {**own, **_CONSUMER_TABLES}.items()}


def _lock_key(table: OutboxTable, key: str, columns: Mapping[str, Any]) -> Tuple[str, List[Any]]:
    """Lock the row of a key until COMMIT, and return the next number."""
    counter = quoted(table.counter_column)
    names = ", ".join(quoted(name) for name in table.key_columns)
    marks = ", ".join(["%s"] * len(table.key_columns))
    sql = (
        f"INSERT INTO {keys.quoted(table.key_table)} ({names}, {counter}) VALUES ({marks}, 2) "
        f"ON DUPLICATE KEY UPDATE {counter} = LAST_INSERT_ID({counter}) + 1"
    )
    return sql, [*[columns[name] for name in table.key_columns[:-1]], key]


def _insert(table: OutboxTable, values: Mapping[str, Any]) -> Tuple[str, List[Any]]:
    names = ", ".join(quoted(name) for name in values)
    marks = ", ".join(["%s"] * len(values))
    return f"INSERT INTO {keys.quoted(table.table)} ({names}) VALUES ({marks})", [*values.values()]


@dataclasses.dataclass(frozen=True)
class OutboxEvent:
    """An event that is delivered to a handler.

    Attributes:
        id: The same whenever it is delivered.
        topic: What kind of event it is.
        payload: What was given to ``tx.outbox``.
        key: Events with the same key are delivered in their order; None for none.
        attempt: 1, and one more each time that the handler has failed.
        shard_id: The shard that it was written on; None for the global database.
        created_at: When it was written, by the server's clock in the session's time
            zone; None where the table does not say.
    """

    id: str
    topic: str
    payload: Any
    key: Optional[str] = None
    attempt: int = 1
    shard_id: Optional[int] = None
    created_at: Optional[datetime.datetime] = None


def key_text(key: object) -> Optional[str]:
    """Return the key of an event as text.

    Raises:
        ParameterError: It is no str or int, or too long.
    """
    if key is None:
        return None
    text = str(key) if isinstance(key, int) and not isinstance(key, bool) else key
    if not isinstance(text, str) or not 0 < len(text.encode("utf-8", "replace")) <= KEY_BYTES:
        raise errors.ParameterError(
            f"the key of an event is an int or a str of 1 to {KEY_BYTES} bytes, not {key!r}"
        )
    return text


def publish(
    transaction: BaseTransactionBlock,
    table: OutboxTable,
    topic: str,
    payload: object,
    *,
    key: object = None,
    columns: Optional[Mapping[str, Any]] = None,
) -> steps.Plan[str]:
    """Write an event in a transaction; see ``OutboxProducer.outbox``."""
    if not isinstance(topic, str) or not 0 < len(topic) <= TOPIC_LENGTH:
        raise errors.ParameterError(
            f"the topic of an event is a str of 1 to {TOPIC_LENGTH} characters, not {topic!r}"
        )
    text = key_text(key)
    others = dict(columns or {})
    missing = [name for name in table.key_columns[:-1] if name not in others]
    if missing:
        raise errors.ParameterError(f"columns must have {missing[0]!r}, a part of the event's key")
    if text is None and table.sequence_column is not None:
        raise errors.ParameterError(f"an event of {table.table} needs a key, which counts them")
    values = {
        **others,
        table.topic_column: topic,
        table.key_columns[-1]: text,
        table.payload_column: json_text.encoded(payload, "the payload of an event"),
        table.status_column: table.pending[0],
    }
    if table.new_id is not None:
        values[table.id_column] = table.new_id()
    route = _unrecorded(transaction)
    try:
        if text is not None:
            locked = yield from verbs.execute(route, *_lock_key(table, text, others))
            if table.sequence_column is not None:
                values[table.sequence_column] = 1 if locked == 1 else locked.lastrowid
        inserted = yield from verbs.execute(route, *_insert(table, values))
    except errors.ProgrammingError as error:
        raise _with_hint(error) from error.__cause__
    return str(inserted.lastrowid if table.new_id is None else values[table.id_column])


def _with_hint(error: errors.ProgrammingError) -> errors.ProgrammingError:
    """Add to an error how a missing table is created."""
    if error.errno == error_codes.NO_SUCH_TABLE:
        hint = "dualdb init or db.outbox.create_tables() makes the tables of the outbox"
        error.args = (error.errno, f"{error.message}: {hint}")
    return error


def _unrecorded(transaction: BaseTransactionBlock) -> steps.Route:
    """Return the transaction's route, on which an insert does not become the caller's
    last insert.
    """

    def route(until: Optional[float] = None) -> steps.Plan[steps.Executor]:
        found: steps.Executor = yield from transaction.route(until)
        executor: Any = _Unrecorded(found)
        return executor  # type: ignore[no-any-return]

    return route


class _Unrecorded(types.SimpleNamespace):
    def __init__(self, executor: steps.Executor) -> None:
        super().__init__(executor=executor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.executor, name)

    def record_insert_id(self, lastrowid: int) -> None:
        """Do nothing: it is this package's insert, and not the caller's."""


class OutboxProducer(Generic[StrR]):
    """Mixin for transactions in which events can be written."""

    _run: Callable[..., Any]
    _block: BaseTransactionBlock

    def outbox(
        self,
        topic: str,
        payload: object = None,
        *,
        key: object = None,
        columns: Optional[Mapping[str, Any]] = None,
    ) -> StrR:
        """Write an event, which is delivered if this transaction is committed.

        ``db.outbox.consume`` delivers it, at least once and with the same id. Nothing
        is delivered if the transaction, or the savepoint, is rolled back.

        Args:
            topic: What kind of event it is: 1 to 190 characters.
            payload: What JSON can hold.
            key: An int or a str: events of this database with the same key are
                delivered in the order in which their transactions were committed. Until
                COMMIT other transactions that write an event with this key wait. None
                for an event that needs no order.
            columns: Values of further columns, for a table of the application's.

        Returns:
            The event's id.

        Raises:
            ParameterError: The topic, payload or key is none; nothing was sent.
            ProgrammingError: There is no table; ``dualdb init`` makes it.

        Example:
            >>> with db.shard(2).transaction() as tx:
            ...     tx.execute("UPDATE trades SET quantity = 0 WHERE id = 1")
            ...     event_id = tx.outbox("trade.closed", {"id": 1}, key=7)
        """
        return self._run(self._publish(topic, payload, key, columns))  # type: ignore[no-any-return]

    def _publish(
        self, topic: str, payload: object, key: object, columns: Optional[Mapping[str, Any]]
    ) -> steps.Plan[str]:
        shared = self._block.client.shared
        table = OutboxTable() if shared is None else shared.outbox
        return (yield from publish(self._block, table, topic, payload, key=key, columns=columns))
