"""``shards``: the shard table, seen and changed."""

import sys
from typing import Any, Dict, List, Mapping, Optional, Tuple

import click

from .. import errors
from ..config import DatabaseConfig
from ..observability.health import SUSPENDED
from ..operations import SchemaDiff
from ..passwords import as_secret, is_reference
from ..sync_impl import DatabaseService
from .base import (
    PROBLEM,
    REFUSED,
    USAGE,
    Group,
    State,
    command,
    confirm,
    dry_run_option,
    fail,
    one_line,
    pass_state,
    report,
    yes_option,
)
from .checks import difference_lines
from .output import counted, note, state, write_json, write_table
from .root import root
from .status import as_dict

#: The words of the column ``status``.
STATUSES = ("active", "readonly", "moving", "maintenance", "inactive")

#: Those of shards that take calls.
IN_SERVICE = ("active", "readonly")


@root.group(cls=Group)
def shards() -> None:
    """List, add, check, drain and remove shards."""


@command(shards, "dualdb shards list\ndualdb shards list --json | jq '.[].shard_id'", "list")
@pass_state
def list_shards(current: State) -> None:
    """List the rows of the shard table, without the passwords."""
    found = as_dict(current.open().status())["shards"]
    if current.json:
        write_json([{key: each[key] for key in each if key != "pool"} for each in found])
        return
    write_table(
        ("shard", "name", "state", "address", "reason"),
        [
            [
                each["shard_id"],
                each["name"] or "",
                state(each["state"]),
                each["address"] or "",
                each["reason"] or "",
            ]
            for each in found
        ],
    )


def _password(reference: Optional[str], from_stdin: bool) -> str:
    """What is to be written into the column ``password``: never taken from the
    arguments, which every user of the machine can see.
    """
    if reference is not None and from_stdin:
        fail("give --password-ref or --password-stdin, not both", USAGE)
    if reference is not None:
        if not is_reference(reference):
            fail("--password-ref is env:NAME or file:PATH, and never the password itself", USAGE)
        as_secret(reference).get_secret_value()  # it can be looked up
        return reference
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        fail("the password is needed: give --password-ref or --password-stdin", USAGE)
    return str(click.prompt("Password of the shard's account", hide_input=True, err=True))


@command(
    shards,
    "dualdb shards add 3 --host db3.internal --database app_shard_3 --user app \\\n"
    "    --password-ref env:DUALDB_SHARD_3",
)
@click.argument("shard_id", type=int)
@click.option("--host", required=True)
@click.option("--port", type=int, default=3306, show_default=True)
@click.option("--database", required=True)
@click.option("--user", required=True)
@click.option(
    "--password-ref",
    metavar="REF",
    help="env:NAME or file:PATH. It is written into the table as it stands, and looked up by "
    "each process.",
)
@click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
@click.option("--status", type=click.Choice(STATUSES), default="active", show_default=True)
@click.option("--name", help="For a column shard_name.")
@click.option("--max-connections", type=click.IntRange(1), help="For a column of this name.")
@click.option(
    "--privilege",
    "privileges",
    multiple=True,
    help="What the account must have; the default is what an application needs. May be repeated.",
)
@click.option("--any-schema", is_flag=True, help="Do not compare the schema with another shard's.")
@click.option("--any-privileges", is_flag=True, help="Do not look at the account's privileges.")
@dry_run_option
@pass_state
def add(
    current: State,
    /,
    shard_id: int,
    password_ref: Optional[str],
    password_stdin: bool,
    privileges: Tuple[str, ...],
    any_privileges: bool,
    any_schema: bool,
    dry_run: bool,
    **row: Any,
) -> None:
    """Connect to a new shard, check its account and its schema, and write its row.

    The password is asked for, unless --password-ref or --password-stdin is given. A
    shard that would be in service at once must have the schema of the first one; add
    an empty one with --status maintenance, migrate it, and set it to active.
    """
    row["password"] = _password(password_ref, password_stdin)
    db = current.open()
    if any_privileges:
        row["privileges"] = ()
    elif privileges:
        row["privileges"] = privileges
    config_of(db.global_config, row)
    db.add_shard(shard_id, **row, dry_run=True)
    if not any_schema:
        compare_schema(db, shard_id, row)
    if not dry_run:
        db.add_shard(shard_id, **row, connect=False)
    text = "add shard {} at {host}:{port}/{database} as {user}, {status}".format(shard_id, **row)
    report(current, [text], dry_run=dry_run, shard_id=shard_id)


def compare_schema(db: DatabaseService, shard_id: int, row: Mapping[str, Any]) -> None:
    """Say how a new shard's schema differs from the first one's; end the command if it
    would be in service with it.
    """
    config = config_of(db.global_config, row)
    found = _schema_difference(db, shard_id, {shard_id: config})
    if found is None or found.errors:
        return  # add_shard reports what is wrong with the connection
    for line in difference_lines(found):
        note(line)
    if found.differences and row["status"] in IN_SERVICE:
        fail(
            f"shard {shard_id} has not the schema of shard {found.reference}: add it with "
            "--status maintenance and migrate it, or give --any-schema",
            REFUSED,
        )


def _schema_difference(
    db: DatabaseService, shard_id: int, also: Mapping[int, DatabaseConfig]
) -> Optional[SchemaDiff]:
    """How a shard's schema differs from that of the first in service which can be read;
    None if there is no such shard.

    Args:
        db: The service.
        shard_id: The shard.
        also: How it is reached, if it is not in the shard table.
    """
    for reference, each in db.status().shards.items():
        if reference == shard_id or each.state not in IN_SERVICE:
            continue
        try:
            return db.operations.schema_diff(
                reference=reference,
                shards=reference if also else shard_id,
                ignore=("visibility",),
                also=also,
            )
        except errors.OperationalError:
            continue  # the reference cannot be read
    return None


def config_of(base: DatabaseConfig, row: Mapping[str, Any]) -> DatabaseConfig:
    """How a shard is reached whose row has these fields.

    Raises:
        ValidationError: One of them cannot be.
    """
    fields = {key: row[key] for key in ("host", "port", "database", "user", "password")}
    return base.model_copy(update={**fields, "unix_socket": None})


@command(
    shards,
    "dualdb shards set-status 2 maintenance\ndualdb shards set-status 2 active",
    "set-status",
)
@click.argument("shard_id", type=int)
@click.argument("status_", metavar="STATUS", type=click.Choice(STATUSES))
@click.option("--any-schema", is_flag=True, help="Do not compare the schema with another shard's.")
@dry_run_option
@pass_state
def set_status(
    current: State, shard_id: int, status_: str, any_schema: bool, dry_run: bool
) -> None:
    """Write a shard's status: active, readonly, moving, maintenance or inactive.

    Calls to a shard that is moving wait until it is active again, maybe elsewhere. A
    shard that is put back into service must have the schema of the first one that is;
    where that cannot be compared, a line says so.
    """
    db = current.open()
    before = _state_of(db, shard_id)
    compared = None
    if status_ in IN_SERVICE and before in SUSPENDED and not any_schema:
        compared = _require_same_schema(db, shard_id)
    db.set_shard_status(shard_id, status_, dry_run=dry_run)
    report(
        current,
        [f"set shard {shard_id} from {before} to {status_}"],
        dry_run=dry_run,
        shard_id=shard_id,
        before=before,
        after=status_,
        compared_with=compared,
    )


def _require_same_schema(db: DatabaseService, shard_id: int) -> Optional[int]:
    """Check that a shard which is put back into service has the schema of another one.

    Returns:
        The other one; None if the schemas could not be compared.

    Raises:
        Failure: They differ.
    """
    found = _schema_difference(db, shard_id, {})
    if found is None:
        note(f"the schema of shard {shard_id} is not compared: no other one can be read")
        return None
    if found.errors:
        for error in found.errors.values():
            note(f"the schema of shard {shard_id} is not compared: {error}")
        return None
    for line in difference_lines(found):
        note(line)
    if found.differences:
        fail(
            f"shard {shard_id} has not the schema of shard {found.reference}: `dualdb migrate up "
            f"--shards {shard_id}` migrates it, or give --any-schema",
            REFUSED,
        )
    return int(found.reference)


@command(
    shards,
    "dualdb shards resize 2 20\ndualdb shards resize 2 --unlimited --dry-run",
)
@click.argument("shard_id", type=int)
@click.argument("max_connections", type=click.IntRange(1), required=False)
@click.option("--unlimited", is_flag=True, help="The sizes of each process's configuration.")
@dry_run_option
@pass_state
def resize(
    current: State,
    shard_id: int,
    max_connections: Optional[int],
    unlimited: bool,
    dry_run: bool,
) -> None:
    """Limit the connections of each process to a shard.

    Processes resize their pools when they refresh the shard map, and connections in use
    stay until they come back.
    """
    if (max_connections is None) != unlimited:
        fail("give the most connections, or --unlimited", USAGE)
    db = current.open()
    pool = db.stats().get(shard_id)
    before = None if pool is None else pool.limit
    db.resize_shard(shard_id, max_connections, dry_run=dry_run)
    report(
        current,
        [
            f"set max_connections of shard {shard_id} to {max_connections or 'NULL'}"
            + ("" if before is None else f" (its limit is {before})")
        ],
        dry_run=dry_run,
        shard_id=shard_id,
        before=before,
        after=max_connections,
    )


def _state_of(db: DatabaseService, shard_id: int) -> str:
    """Raises: ParameterError where there is no such shard."""
    found = db.status().shards.get(shard_id)
    if found is None:
        raise errors.ParameterError(f"shard {shard_id} is not in the shard table")
    return found.state


@command(shards, "dualdb shards drain 2 --timeout 60 --yes")
@click.argument("shard_id", type=int)
@click.option(
    "--timeout",
    type=click.FloatRange(0.0),
    default=30.0,
    show_default=True,
    help="Seconds that the sessions on the shard are waited for.",
)
@yes_option
@dry_run_option
@pass_state
@click.pass_context
def drain(
    ctx: click.Context, current: State, shard_id: int, timeout: float, yes: bool, dry_run: bool
) -> None:
    """Make a shard inactive, and wait until the other processes have left it.

    Each process finishes its work in progress by itself; see drain_timeout. Exits with
    1 if there are sessions left in the end, or if they cannot be counted.
    """
    db = current.open()
    before = _state_of(db, shard_id)
    kept = db.operations.key_counts().get(shard_id, 0)
    if kept:
        note(
            f"{counted(kept, 'key')} of the directory on shard {shard_id}: calls by these are "
            "refused until they have moved, which `dualdb rebalance plan --drain "
            f"{shard_id}` or `dualdb keys move-plan` plans"
        )
    if dry_run:
        db.drain_shard(shard_id, timeout, dry_run=True)
        text = f"make shard {shard_id} inactive (it is {before}) and wait {timeout:g} s"
        report(current, [text], dry_run=True, shard_id=shard_id, keys=kept)
        return
    confirm(f"Make shard {shard_id} inactive", yes)
    left = db.drain_shard(shard_id, timeout, others=True).remaining
    report(
        current,
        [
            f"shard {shard_id} is inactive; "
            + (
                "its sessions cannot be counted"
                if left is None
                else f"{counted(left, 'session')} left"
            )
        ],
        dry_run=False,
        shard_id=shard_id,
        left=left,
        keys=kept,
    )
    if left:
        note(
            "other processes use it, or what they run has not ended: see `dualdb ps --idle "
            f"--shards {shard_id}`, and drain it again"
        )
    if left is None or left > 0:
        ctx.exit(PROBLEM)


@command(shards, "dualdb shards remove 2 --yes")
@click.argument("shard_id", type=int)
@click.option("--leave-keys", is_flag=True, help="Although the directory has keys on it.")
@yes_option
@dry_run_option
@pass_state
def remove(current: State, shard_id: int, leave_keys: bool, yes: bool, dry_run: bool) -> None:
    """Delete the row of a shard that has been drained. Its database stays.

    It is refused while the directory has keys on the shard.
    """
    db = current.open()
    db.remove_shard(shard_id, leave_keys=leave_keys, dry_run=True)
    if not dry_run:
        confirm(f"Delete the row of shard {shard_id}", yes)
        db.remove_shard(shard_id, leave_keys=leave_keys)
    report(current, [f"delete the row of shard {shard_id}"], dry_run=dry_run, shard_id=shard_id)


_FACTS = """\
SELECT VERSION() AS version, @@hostname AS host, DATABASE() AS `database`,
    @@character_set_database AS charset, @@collation_database AS collation,
    @@sql_mode AS sql_mode, @@time_zone AS time_zone, @@read_only AS read_only"""


@command(shards, "dualdb shards check\ndualdb shards check 2 --json")
@click.argument("ids", metavar="[SHARD_ID]...", type=int, nargs=-1)
@pass_state
@click.pass_context
def check(ctx: click.Context, current: State, ids: Tuple[int, ...]) -> None:
    """Connect to shards and compare their servers with the global database's.

    Exits with 1 if a shard cannot be used, or differs.
    """
    db = current.open()
    known = db.status().shards
    wanted = sorted(ids or known)
    absent = [each for each in wanted if each not in known]
    if absent:
        raise errors.ParameterError(f"shard {absent[0]} is not in the shard table")
    base = db.query(_FACTS, read_only=True)[0]
    found = [_check_one(db, shard_id, base) for shard_id in wanted]
    if current.json:
        write_json(found)
    else:
        write_table(
            ("shard", "state", "version", "charset", "problems"),
            [
                [
                    each["shard_id"],
                    state(each["state"]),
                    each["facts"].get("version", ""),
                    each["facts"].get("charset", ""),
                    "\n".join(each["problems"]),
                ]
                for each in found
            ],
        )
    if any(each["problems"] for each in found):
        ctx.exit(PROBLEM)


def _check_one(db: DatabaseService, shard_id: int, base: Dict[str, Any]) -> Dict[str, Any]:
    shown = db.status().shards[shard_id]
    facts: Dict[str, Any] = {}
    problems: List[str] = []
    if shown.state in SUSPENDED:
        return {"shard_id": shard_id, "state": shown.state, "facts": facts, "problems": problems}
    try:
        facts = db.shard(shard_id).query(_FACTS, read_only=True)[0]
    except errors.Error as error:
        problems.append(one_line(error))
    for name in ("charset", "collation", "sql_mode", "time_zone"):
        if facts and facts[name] != base[name]:
            problems.append(f"{name} is {facts[name]}, and {base[name]} on the global database")
    if facts and facts["read_only"] not in (0, "OFF") and shown.state == "active":
        problems.append("the server is read-only")
    return {"shard_id": shard_id, "state": shown.state, "facts": facts, "problems": problems}
