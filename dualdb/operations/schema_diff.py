"""Differences between the schemas of several databases."""

import fnmatch
from typing import Dict, FrozenSet, Iterator, List, Mapping, Optional, Tuple, Union

from .. import errors
from ..config import DatabaseConfig
from ..execution import steps
from . import rollout, schema
from .places import Databases, Shards
from .reports import Difference, SchemaDiff
from .schema import Attributes, Schema

#: The attribute of an object that is missing.
EXISTS = "exists"


def run(
    databases: Databases,
    reference: Union[int, str, None],
    shards: Shards,
    ignore: FrozenSet[str],
    ignore_tables: Tuple[str, ...],
    *,
    also: Mapping[int, DatabaseConfig],
) -> steps.Plan[SchemaDiff]:
    """Compare schemas; see ``Operations.schema_diff``."""
    places = [databases.even_inactive(each) for each in databases.chosen(shards)]
    places += [databases.place(shard_id, config) for shard_id, config in also.items()]
    right = places[0] if reference is None else databases.one(reference)
    others = [place for place in places if place.name != right.name]
    found = yield from databases.on_each([right, *others], schema.read)
    failed = {
        place.name: rollout.message(each) for place, each in found if isinstance(each, Exception)
    }
    schemas = {place.name: each for place, each in found if not isinstance(each, Exception)}
    expected = schemas.pop(right.name, None)
    if expected is None:
        raise errors.OperationalError(
            f"the reference {right.name} cannot be read: {failed[right.name]}"
        )
    differences: List[Difference] = []
    if "visibility" not in ignore:
        for name, each in [(right.name, expected), *schemas.items()]:
            differences += _invisible(name, each)
    for name, actual in schemas.items():
        differences += differ(name, expected, actual, ignore, ignore_tables)
    return SchemaDiff(right.name, tuple(place.name for place in others), tuple(differences), failed)


def _invisible(name: str, found: Schema) -> Iterator[Difference]:
    for kind, privilege in sorted(found.hidden.items()):
        yield Difference(
            name, "visibility", f"{kind}s", f"privilege {privilege}", "visible", "not visible"
        )


def differ(
    name: str,
    expected: Schema,
    actual: Schema,
    ignore: FrozenSet[str] = frozenset(),
    ignore_tables: Tuple[str, ...] = (),
) -> List[Difference]:
    """What differs in a database from the reference, sorted.

    Args:
        name: The database.
        expected: The reference.
        actual: The database's schema.
        ignore: Kinds and attributes to leave out.
        ignore_tables: Patterns of tables to leave out.
    """
    if expected.is_mariadb != actual.is_mariadb:
        expected = schema.folded(expected)
        actual = schema.folded(actual)
    differences = []
    for key in sorted(expected.objects.keys() | actual.objects.keys()):
        kind, object_name = key
        if kind in ignore or _is_ignored_table(expected, actual, key, ignore_tables):
            continue
        one = expected.objects.get(key)
        other = actual.objects.get(key)
        if _parent_is_missing(expected, actual, key):
            continue
        for attribute, before, after in _attributes(one, other):
            if f"{kind}.{attribute}" not in ignore:
                differences.append(Difference(name, kind, object_name, attribute, before, after))
    return differences


def _is_ignored_table(
    expected: Schema, actual: Schema, key: Tuple[str, str], patterns: Tuple[str, ...]
) -> bool:
    kind, name = key
    table = name.partition(".")[0]
    if kind == "trigger":
        found = expected.objects.get(key) or actual.objects[key]
        table = found["table"] or ""
    elif kind not in ("table", "column", "index", "foreign key", "check", "view"):
        return False
    return any(fnmatch.fnmatchcase(table, pattern) for pattern in patterns)


def _parent_is_missing(expected: Schema, actual: Schema, key: Tuple[str, str]) -> bool:
    """Whether this belongs to a table that only one of them has, which says it all."""
    kind, name = key
    if kind not in ("column", "index", "foreign key", "check"):
        return False
    table = ("table", name.partition(".")[0])
    return (table in expected.objects) != (table in actual.objects)


def _attributes(
    one: Optional[Attributes], other: Optional[Attributes]
) -> Iterator[Tuple[str, Optional[str], Optional[str]]]:
    if one is None or other is None:
        yield EXISTS, _yes(one), _yes(other)
        return
    merged: Dict[str, None] = dict.fromkeys([*one, *other])
    for attribute in merged:
        if one.get(attribute) != other.get(attribute):
            yield attribute, one.get(attribute), other.get(attribute)


def _yes(attributes: Optional[Attributes]) -> str:
    return "no" if attributes is None else "yes"
