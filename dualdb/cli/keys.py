"""``locate``, ``route`` and ``keys``: which shard has a key, and where a call goes."""

import uuid
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional, Tuple

import click

from .. import errors
from ..directory.explain import RouteReason
from ..sync_impl import DatabaseService
from .base import PROBLEM, USAGE, Group, State, command, dry_run_option, fail, pass_state, report
from .output import state, write_json, write_table
from .root import root

_KINDS = ("auto", "int", "text", "uuid", "hex")


def key_of(text: str, kind: str) -> Any:
    """A key as the application has it, from an argument.

    Raises:
        click.BadParameter: It is no key of this kind.
    """
    try:
        if kind == "int" or (kind == "auto" and text.lstrip("-").isdecimal()):
            return int(text)
        if kind == "uuid":
            return uuid.UUID(text)
        return bytes.fromhex(text) if kind == "hex" else text
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a key of kind {kind}") from None


def key_type_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--key-type``, for commands that take keys."""
    return click.option(
        "--key-type",
        type=click.Choice(_KINDS),
        default="auto",
        show_default=True,
        help="What the key is; auto takes digits for an int.",
    )(command)


def find_shard(db: DatabaseService, key: object) -> Optional[int]:
    """The shard of a key, or None if it has none."""
    try:
        return db.shard_id_of(key)
    except errors.KeyNotFound:
        return None


def _found(db: DatabaseService, key: object) -> Dict[str, Any]:
    shard_id = find_shard(db, key)
    shown = None if shard_id is None else db.status().shards.get(shard_id)
    return {
        "key": key,
        "shard_id": shard_id,
        "state": None if shown is None else shown.state,
        "address": None if shown is None else shown.address,
    }


def _write_found(current: State, found: List[Dict[str, Any]]) -> None:
    if current.json:
        write_json(found)
        return
    write_table(
        ("key", "shard", "state", "address"),
        [
            [each["key"], each["shard_id"], state(each["state"] or "none"), each["address"] or ""]
            for each in found
        ],
    )


@command(root, "dualdb locate 7\ndualdb locate ann@example.com --alias email")
@click.argument("key")
@click.option("--alias", metavar="KIND", help="The argument is an alias of this kind.")
@key_type_option
@pass_state
@click.pass_context
def locate(
    ctx: click.Context, current: State, key: str, alias: Optional[str], key_type: str
) -> None:
    """Find the shard of a key; exit with 1 if it has none, or one that is unknown."""
    db = current.open()
    value = key_of(key, key_type) if alias is None else db.directory.alias(alias, key)
    if value is None:
        fail(f"no key has the alias {alias} {key!r}", PROBLEM)
    found = _found(db, value)
    if current.json:
        write_json(found)
    elif found["shard_id"] is None:
        click.echo(f"key {value} has no shard")
    elif found["state"] is None:
        click.echo(f"key {value}: shard {found['shard_id']}, which is not in the shard table")
    else:
        where = [f"shard {found['shard_id']}", found["state"], found["address"]]
        click.echo(f"key {value}: {', '.join([part for part in where if part])}")
    if found["shard_id"] is None or found["state"] is None:
        ctx.exit(PROBLEM)


@command(root, "dualdb route --key 7\ndualdb route --session-shard 2 --json")
@click.option("--key", help="As db.key(KEY).")
@click.option("--shard", "shard_id", type=int, help="As db.shard(ID).")
@click.option("--session-shard", type=int, help="As db.session(s), where s has this shard_id.")
@key_type_option
@pass_state
@click.pass_context
def route(
    ctx: click.Context,
    current: State,
    key: Optional[str],
    shard_id: Optional[int],
    session_shard: Optional[int],
    key_type: str,
) -> None:
    """Say where a call would go, and why; exit with 1 if it would be refused."""
    if sum(each is not None for each in (key, shard_id, session_shard)) > 1:
        fail("route takes --key, --shard or --session-shard", USAGE)
    db = current.open()
    value = None if key is None else key_of(key, key_type)
    where = None if value is None else find_shard(db, value)  # it is cached then
    session = None
    if session_shard is not None:
        session = SimpleNamespace(session=SimpleNamespace(shard_id=session_shard))
    found = db.explain_route(session=session, shard_id=shard_id, key=value)
    if found.reason is RouteReason.KEY_NOT_CACHED and where is not None:
        found = db.explain_route(shard_id=where)  # nothing is cached with ttl = 0
    if current.json:
        write_json({**found._asdict(), "reason": found.reason.value})
    else:
        otherwise = "waits" if found.reason is RouteReason.MOVING else "refused"
        click.echo(f"{found.target or otherwise}: {found.detail} ({found.reason.value})")
    if found.target is None:
        ctx.exit(PROBLEM)


@root.group(cls=Group)
def keys() -> None:
    """Find, place and move keys in the directory."""


@command(keys, "dualdb keys get 7 8 9 --json")
@click.argument("names", metavar="KEY...", nargs=-1, required=True)
@key_type_option
@pass_state
@click.pass_context
def get(ctx: click.Context, current: State, names: Tuple[str, ...], key_type: str) -> None:
    """Find the shards of keys; exit with 1 if one has none."""
    db = current.open()
    found = [_found(db, key_of(name, key_type)) for name in names]
    _write_found(current, found)
    if any(each["shard_id"] is None for each in found):
        ctx.exit(PROBLEM)


@command(keys, "dualdb keys assign 7 8 9")
@click.argument("names", metavar="KEY...", nargs=-1, required=True)
@key_type_option
@dry_run_option
@pass_state
def assign(current: State, names: Tuple[str, ...], key_type: str, dry_run: bool) -> None:
    """Give each new key a shard, by the directory's placement.

    A key that has a shard keeps it.
    """
    db = current.open()
    actions = []
    placed = []
    for name in names:
        key = key_of(name, key_type)
        before = find_shard(db, key)
        after = db.directory.assign(key, dry_run=dry_run)
        placed.append({"key": key, "before": before, "shard_id": after})
        if before is not None:
            actions.append(f"leave key {key} on shard {before}")
        elif dry_run:
            actions.append(f"give key {key} a shard by the placement, now shard {after}")
        else:
            actions.append(f"give key {key} shard {after}")
    report(current, actions, dry_run=dry_run, keys=placed)


@command(keys, "dualdb keys set 7 3 --dry-run", "set")
@click.argument("name", metavar="KEY")
@click.argument("shard_id", type=int)
@key_type_option
@dry_run_option
@pass_state
def set_key(current: State, name: str, shard_id: int, key_type: str, dry_run: bool) -> None:
    """Give a key this shard, whatever it had. Its rows are not moved."""
    db = current.open()
    key = key_of(name, key_type)
    before = find_shard(db, key)
    db.directory.set(key, shard_id, dry_run=dry_run)
    was = "no shard" if before is None else f"shard {before}"
    report(
        current,
        [f"give key {key} shard {shard_id} (it has {was}); no rows are moved"],
        dry_run=dry_run,
        key=key,
        before=before,
        shard_id=shard_id,
    )


@command(keys, "dualdb keys forget 7")
@click.argument("name", metavar="KEY")
@key_type_option
@dry_run_option
@pass_state
def forget(current: State, name: str, key_type: str, dry_run: bool) -> None:
    """Remove a key and its aliases from the directory. Its rows stay."""
    db = current.open()
    key = key_of(name, key_type)
    before = find_shard(db, key)
    db.directory.forget(key, dry_run=dry_run)
    was = "no shard" if before is None else f"shard {before}"
    report(current, [f"forget key {key} (it has {was})"], dry_run=dry_run, key=key, before=before)


@command(keys, "dualdb keys set-bucket 17 3", "set-bucket")
@click.argument("bucket", type=int)
@click.argument("shard_id", type=int)
@dry_run_option
@pass_state
def set_bucket(current: State, bucket: int, shard_id: int, dry_run: bool) -> None:
    """Give a hash bucket this shard. No rows are moved."""
    current.open().directory.set_bucket(bucket, shard_id, dry_run=dry_run)
    report(
        current,
        [f"give bucket {bucket} shard {shard_id}; no rows are moved"],
        dry_run=dry_run,
        bucket=bucket,
        shard_id=shard_id,
    )


@command(keys, "dualdb keys move-plan --json | jq length", "move-plan")
@pass_state
def move_plan(current: State) -> None:
    """Say which hash buckets must move for each shard to have its share.

    For directories of buckets. Nothing is changed.
    """
    moves = current.open().directory.bucket_moves()
    if current.json:
        write_json([{"bucket": key, "to": shard_id} for key, shard_id in sorted(moves.items())])
    elif not moves:
        click.echo("each shard has its share")
    else:
        write_table(("bucket", "to shard"), [[*each] for each in sorted(moves.items())])
