"""All commands, put together."""

from . import (
    checks,
    completion,
    demo,
    initialize,
    jobs,
    keys,
    migrate,
    move,
    outbox,
    processes,
    sandbox,
    shards,
    shell,
    sql,
    status,
    tenant,
    xa,
)
from .root import root as dualdb

__all__ = [
    "checks",
    "completion",
    "demo",
    "dualdb",
    "initialize",
    "jobs",
    "keys",
    "migrate",
    "move",
    "outbox",
    "processes",
    "sandbox",
    "shards",
    "shell",
    "sql",
    "status",
    "tenant",
    "xa",
]
