"""``db.coordination``: transactions on several databases, seen and finished."""

from typing import Generic

from ..operations.kinds import Group, KindT


class Coordination(Group[KindT], Generic[KindT]):
    """XA transactions of a service: ``db.coordination``.

    In asyncio every call is awaited.
    """
