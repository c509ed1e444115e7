"""After ``fork()``: the child forgets what is its parent's, without a byte on its
parent's sockets.
"""

import os
import weakref
from typing import Any, List

_owners: "weakref.WeakSet[Any]" = weakref.WeakSet()
_kept: List[Any] = []


def register(owner: object) -> None:
    """Have ``owner._forked()`` called in every child that is forked while the owner
    lives.

    It forgets, and may return a function that begins something anew, which is called
    when everything has been forgotten.
    """
    _owners.add(owner)


def never_finalize(*things: object) -> None:
    """Never finalise these in this process: their finalisers might speak on a socket,
    or wait for a lock that no thread here will free.
    """
    _kept.extend(things)


def close_fd(sock: Any) -> None:
    """Close this process's descriptor of a socket, and nothing else: no shutdown, no
    TLS farewell, no lock.
    """
    descriptor = sock.detach()
    if descriptor >= 0:
        os.close(descriptor)


def _forked() -> None:
    for begin in [owner._forked() for owner in list(_owners)]:
        if begin is not None:
            begin()


os.register_at_fork(after_in_child=_forked)
