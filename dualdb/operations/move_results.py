"""The results of idempotency keys, which go with the tenant that they are of.

A call with such a key may be repeated after the move, and must find its result on the
new shard. Rows of the table are only inserted, and deleted when their time is over.
"""

from typing import FrozenSet, List

from .. import error_codes, errors
from ..coordination.idempotency import DDL, TABLE, tenant_forms
from ..execution import steps
from .places import Session

#: Rows that are read and written at a time.
_ROWS = 200

_KEYS = (
    f"SELECT idempotency_key AS k FROM {TABLE} WHERE tenant IN %s AND expires_at > UTC_TIMESTAMP()"
)
_READ = f"SELECT idempotency_key, result, expires_at, tenant FROM {TABLE} WHERE idempotency_key IN "
_NEWER = ", ".join(
    f"{name} = IF(tenant <=> VALUES(tenant), VALUES({name}), {name})"
    for name in ("result", "expires_at")
)


def carry_results(
    source: Session, target: Session, tenant: bytes, known: FrozenSet[bytes] = frozenset()
) -> steps.Plan[FrozenSet[bytes]]:
    """Copy the results of a tenant's calls to its new shard.

    Args:
        source: A session on the old shard.
        target: One on the new shard.
        tenant: The tenant's key, as the fence has it.
        known: The keys whose results are there.

    Returns:
        The keys whose results are there now.
    """
    try:
        rows = yield from source.query(_KEYS, (tenant_forms(tenant),))
    except errors.Error as error:
        if error.errno == error_codes.NO_SUCH_TABLE:
            return known
        raise
    keys = frozenset([row["k"] for row in rows])
    new = sorted(keys - known)
    if new:
        yield from target.execute(DDL)
    for start in range(0, len(new), _ROWS):
        yield from _copy(source, target, new[start : start + _ROWS])
    return keys


def _copy(source: Session, target: Session, keys: List[bytes]) -> steps.Plan[None]:
    rows = yield from source.query(f"{_READ}({', '.join(['%s'] * len(keys))})", keys)
    if not rows:
        return  # their time was over meanwhile
    marks = ", ".join(["(%s, %s, %s, %s)"] * len(rows))
    yield from target.execute(
        f"INSERT INTO {TABLE} (idempotency_key, result, expires_at, tenant) VALUES {marks} "
        f"ON DUPLICATE KEY UPDATE {_NEWER}",
        [value for row in rows for value in row.values()],
    )
