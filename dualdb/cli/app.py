"""All commands, put together."""

from . import (
    completion,
    demo,
    initialize,
    keys,
    sandbox,
    shards,
    shell,
    status,
)
from .root import root as dualdb

__all__ = [
    "completion",
    "demo",
    "dualdb",
    "initialize",
    "keys",
    "sandbox",
    "shards",
    "shell",
    "status",
]
