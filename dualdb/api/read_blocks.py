"""Blocks in which only known reads are sent."""

from contextvars import ContextVar
from typing import Tuple

from .. import blocks, errors
from ..protocol.transaction_commands import TransactionOptions


def limited_to_reads(options: TransactionOptions) -> TransactionOptions:
    """Return the options of a transaction in which only reads are sent."""
    return options._replace(read_only=True, reads_only=True).checked()


class ReadOnlyBlock:
    """A block in which only known reads are sent; see ``read_only``.

    Args:
        owner: Stands for the service.
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner
        self._open = False

    def covers(self, owner: object) -> bool:
        """Return whether it is an open block of the service."""
        return self._open and self._owner is owner

    def __enter__(self) -> "ReadOnlyBlock":
        if self._open:
            raise errors.InterfaceError("a read-only block cannot be entered while it is open")
        self._open = True
        _read_only.set((*_read_only.get(), self))
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._open = False
        _read_only.set(tuple([each for each in _read_only.get() if each._open]))


_read_only: ContextVar[Tuple[ReadOnlyBlock, ...]] = blocks.variable("dualdb_read_only", ())

#: Falsy where the caller is in no such block.
read_only_blocks = _read_only.get


def is_limited_to_reads(owner: object) -> bool:
    """Return whether the caller is in such a block of a service."""
    return any(each.covers(owner) for each in _read_only.get())
