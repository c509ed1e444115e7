"""Transactions on several databases: XA with a decision log and recovery, and
best-effort commits.

Decisions only; the implementations do the I/O.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .facade import Coordination
    from .reports import XaList, XaRecovery, XaTransaction

__all__ = ["Coordination", "XaList", "XaRecovery", "XaTransaction"]

# Imported when they are asked for: every service imports this room, and few programs
# need the reports.
_HOMES = {
    "Coordination": "facade",
    "XaList": "reports",
    "XaRecovery": "reports",
    "XaTransaction": "reports",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
