"""Fork safety: a forked child discards inherited connections without sending anything
on its parent's sockets.
"""

import os
import weakref
from typing import Any, List

_owners: "weakref.WeakSet[Any]" = weakref.WeakSet()
_kept: List[Any] = []


def register(owner: object) -> None:
    """Call ``owner._forked()`` in every child forked during the owner's lifetime.

    The method discards inherited state. It may return a function that restarts
    something, which is called after all owners have discarded theirs.

    Args:
        owner: The object; only a weak reference to it is kept.
    """
    _owners.add(owner)


def never_finalize(*things: object) -> None:
    """Keep objects alive for the rest of the process.

    Their finalisers might write to an inherited socket, or wait for a lock that no
    thread of this process will release.
    """
    _kept.extend(things)


def close_fd(sock: Any) -> None:
    """Close this process's descriptor of a socket, without shutdown(), TLS close_notify
    or locks, so that the parent's connection is unaffected.
    """
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def _forked() -> None:
    for begin in [owner._forked() for owner in list(_owners)]:
        if begin is not None:
            begin()


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_forked)
