"""What a database consists of, as values that can be compared and hashed.

What changes by itself (the next AUTO_INCREMENT value, dates, statistics, definers) is
left out. ``folded`` also leaves out how MySQL and MariaDB spell the same thing
differently.
"""

import hashlib
import re
from typing import Callable, Dict, Iterable, List, Mapping, NamedTuple, Optional, Set, Tuple

from ..execution import steps
from ..results import Row
from .places import Session

#: An attribute's name and its value, of one object.
Attributes = Dict[str, Optional[str]]

#: The tables of this package, which differ between databases by design.
OWN_TABLES = "dualdb_"


class Schema(NamedTuple):
    """A database's objects.

    Attributes:
        database: Its name.
        is_mariadb: Its server is a MariaDB.
        objects: By kind and name: ``("column", "trades.qty")``.
        hidden: The kinds of objects that the account may not see, with the privilege
            that it lacks.
    """

    database: str
    is_mariadb: bool
    objects: Dict[Tuple[str, str], Attributes]
    hidden: Dict[str, str]


_QUERIES = {
    "schemata": "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME "
    "FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = DATABASE()",
    "tables": "SELECT TABLE_NAME, TABLE_TYPE, ENGINE, TABLE_COLLATION, CREATE_OPTIONS, "
    "TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()",
    "columns": "SELECT * FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE() "
    "ORDER BY TABLE_NAME, ORDINAL_POSITION",
    "statistics": "SELECT * FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = DATABASE() "
    "ORDER BY TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX",
    "foreign_keys": "SELECT k.TABLE_NAME, k.CONSTRAINT_NAME, k.COLUMN_NAME, "
    "k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, "
    "r.UPDATE_RULE, r.DELETE_RULE FROM information_schema.KEY_COLUMN_USAGE k "
    "JOIN information_schema.REFERENTIAL_CONSTRAINTS r "
    "ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME "
    "AND r.TABLE_NAME = k.TABLE_NAME "
    "WHERE k.CONSTRAINT_SCHEMA = DATABASE() AND k.REFERENCED_TABLE_NAME IS NOT NULL "
    "ORDER BY k.TABLE_NAME, k.CONSTRAINT_NAME, k.ORDINAL_POSITION",
    "triggers": "SELECT * FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA = DATABASE()",
    "routines": "SELECT * FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()",
    "parameters": "SELECT SPECIFIC_NAME, ROUTINE_TYPE, ORDINAL_POSITION, PARAMETER_MODE, "
    "PARAMETER_NAME, DTD_IDENTIFIER FROM information_schema.PARAMETERS "
    "WHERE SPECIFIC_SCHEMA = DATABASE() ORDER BY SPECIFIC_NAME, ORDINAL_POSITION",
    "views": "SELECT * FROM information_schema.VIEWS WHERE TABLE_SCHEMA = DATABASE()",
    "events": "SELECT * FROM information_schema.EVENTS WHERE EVENT_SCHEMA = DATABASE()",
    "privileges": "SELECT PRIVILEGE_TYPE AS P FROM information_schema.USER_PRIVILEGES "
    "WHERE GRANTEE = {me} UNION SELECT PRIVILEGE_TYPE FROM information_schema.SCHEMA_PRIVILEGES "
    "WHERE GRANTEE = {me} AND DATABASE() LIKE TABLE_SCHEMA".format(
        me="CONCAT('''', REPLACE(CURRENT_USER(), '@', '''@'''), '''')"
    ),
}
_CHECKS = {
    True: "SELECT TABLE_NAME, CONSTRAINT_NAME, CHECK_CLAUSE FROM "
    "information_schema.CHECK_CONSTRAINTS WHERE CONSTRAINT_SCHEMA = DATABASE()",
    False: "SELECT t.TABLE_NAME, c.CONSTRAINT_NAME, c.CHECK_CLAUSE FROM "
    "information_schema.CHECK_CONSTRAINTS c JOIN information_schema.TABLE_CONSTRAINTS t "
    "ON t.CONSTRAINT_SCHEMA = c.CONSTRAINT_SCHEMA AND t.CONSTRAINT_NAME = c.CONSTRAINT_NAME "
    "WHERE c.CONSTRAINT_SCHEMA = DATABASE() AND t.CONSTRAINT_TYPE = 'CHECK'",
}

Found = Mapping[str, List[Row]]


def read(session: Session) -> steps.Plan[Schema]:
    """Read what a session's database consists of."""
    found: Dict[str, List[Row]] = {}
    queries = {**_QUERIES, "checks": _CHECKS[session.is_mariadb]}
    for name, sql in queries.items():
        rows = yield from session.query(sql)
        found[name] = [_plain(row) for row in rows]
    database = yield from session.value("SELECT DATABASE()")
    return build(str(database), session.is_mariadb, found)


def _plain(row: Row) -> Row:
    """A row with lower-case names, and with texts that the server sends as bytes."""
    return {
        name.lower(): value.decode("utf-8", "replace") if isinstance(value, bytes) else value
        for name, value in row.items()
    }


def build(database: str, is_mariadb: bool, found: Found) -> Schema:
    """The schema that the rows of information_schema describe."""
    objects: Dict[Tuple[str, str], Attributes] = {}
    for reader in _READERS:
        objects.update(reader(database, found))
    if is_mariadb:
        for (kind, _), attributes in objects.items():
            if kind == "column" and attributes["default"] == "NULL":
                attributes["default"] = None  # it says so of every column that may be NULL
    own = [key for key in objects if key[1].startswith(OWN_TABLES)]
    for key in own:
        del objects[key]
    return Schema(database, is_mariadb, objects, _hidden(is_mariadb, found))


def fingerprint(schema: Schema) -> str:
    """A hash that changes with every object."""
    text = repr(sorted((key, sorted(value.items())) for key, value in schema.objects.items()))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def _hidden(is_mariadb: bool, found: Found) -> Dict[str, str]:
    granted = {str(row["p"]).upper() for row in found["privileges"]}
    needed = {"trigger": "TRIGGER", "event": "EVENT", "view": "SHOW VIEW"}
    hidden = {kind: name for kind, name in needed.items() if name not in granted}
    if any(row.get("routine_definition") is None for row in found["routines"]):
        hidden["routine"] = "SELECT on mysql.proc" if is_mariadb else "SHOW_ROUTINE"
    return hidden


def _text(value: object) -> Optional[str]:
    return None if value is None else str(value)


def _attributes(row: Row, names: Iterable[str]) -> Attributes:
    return {name: _text(row.get(name)) for name in names}


def _database(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    (row,) = found["schemata"]
    attributes = {
        "charset": _text(row["default_character_set_name"]),
        "collation": _text(row["default_collation_name"]),
    }
    return {("database", "default"): attributes}


def _tables(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    return {
        ("table", row["table_name"]): {
            "engine": _text(row["engine"]),
            "collation": _text(row["table_collation"]),
            "options": " ".join(
                word
                for word in str(row["create_options"] or "").lower().split()
                if not word.startswith("stats_")
            ),
            "comment": _text(row["table_comment"]),
        }
        for row in found["tables"]
        if "VIEW" not in row["table_type"]
    }


def _columns(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    views = {row["table_name"] for row in found["tables"] if "VIEW" in row["table_type"]}
    before: Dict[str, str] = {}
    columns = {}
    for row in found["columns"]:
        table = row["table_name"]
        name = row["column_name"]
        if table in views:
            continue
        columns["column", f"{table}.{name}"] = {
            "type": _text(row["column_type"]),
            "nullable": _text(row["is_nullable"]),
            "default": _text(row["column_default"]),
            "charset": _text(row["character_set_name"]),
            "collation": _text(row["collation_name"]),
            "extra": _text(row["extra"]),
            "generated": _text(row.get("generation_expression") or None),
            "comment": _text(row["column_comment"]),
            "after": before.get(table, ""),
        }
        before[table] = name
    return columns


def _indexes(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    indexes: Dict[Tuple[str, str], Attributes] = {}
    for row in found["statistics"]:
        part = f"({row['expression']})" if row.get("expression") else str(row["column_name"])
        part += f"({row['sub_part']})" if row["sub_part"] else ""
        part += " DESC" if row["collation"] == "D" else ""
        key = ("index", f"{row['table_name']}.{row['index_name']}")
        if key in indexes:
            indexes[key]["columns"] = f"{indexes[key]['columns']}, {part}"
            continue
        visible = row.get("is_visible", "YES") == "YES" and row.get("ignored", "NO") == "NO"
        indexes[key] = {
            "columns": part,
            "unique": "NO" if int(row["non_unique"]) else "YES",
            "type": _text(row["index_type"]),
            "visible": "YES" if visible else "NO",
        }
    return indexes


def _foreign_keys(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    keys: Dict[Tuple[str, str], Attributes] = {}
    for row in found["foreign_keys"]:
        schema = row["referenced_table_schema"]
        there = "" if schema == database else f"{schema}."
        key = ("foreign key", f"{row['table_name']}.{row['constraint_name']}")
        made = keys.setdefault(
            key,
            {
                "columns": "",
                "references": f"{there}{row['referenced_table_name']}",
                "referenced_columns": "",
                "on_update": _rule(row["update_rule"]),
                "on_delete": _rule(row["delete_rule"]),
            },
        )
        for name, column in (
            ("columns", row["column_name"]),
            ("referenced_columns", row["referenced_column_name"]),
        ):
            made[name] = f"{made[name]}, {column}" if made[name] else str(column)
    return keys


def _rule(word: object) -> str:
    # InnoDB treats both alike, and the servers have another default
    return "RESTRICT" if str(word) == "NO ACTION" else str(word)


def _checks(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    return {
        ("check", f"{row['table_name']}.{row['constraint_name']}"): {
            "clause": _text(row["check_clause"])
        }
        for row in found["checks"]
    }


#: What a stored program was made under, and behaves by.
_MADE_UNDER = ("sql_mode", "character_set_client", "collation_connection", "database_collation")


def _triggers(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    return {
        ("trigger", row["trigger_name"]): {
            "table": _text(row["event_object_table"]),
            "when": f"{row['action_timing']} {row['event_manipulation']}",
            "order": _text(row["action_order"]),
            "body": _text(row["action_statement"]),
            **_attributes(row, _MADE_UNDER),
        }
        for row in found["triggers"]
        if not str(row["event_object_table"]).startswith(OWN_TABLES)
    }


def _routines(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    parameters: Dict[Tuple[str, str], List[str]] = {}
    for row in found["parameters"]:
        words = [row["parameter_mode"], row["parameter_name"], row["dtd_identifier"]]
        text = " ".join(str(word) for word in words if word is not None)
        parameters.setdefault((row["routine_type"], row["specific_name"]), []).append(text)
    return {
        (row["routine_type"].lower(), row["routine_name"]): {
            "parameters": ", ".join(
                parameters.get((row["routine_type"], row["specific_name"]), [])
            ),
            "body": _text(row["routine_definition"]),
            "deterministic": _text(row["is_deterministic"]),
            "data_access": _text(row["sql_data_access"]),
            "security": _text(row["security_type"]),
            "comment": _text(row["routine_comment"]),
            **_attributes(row, _MADE_UNDER),
        }
        for row in found["routines"]
    }


def _views(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    return {
        ("view", row["table_name"]): {
            # the server writes the name of the database into it
            "body": str(row["view_definition"] or "").replace(f"`{database}`.", ""),
            "check_option": _text(row["check_option"]),
            "security": _text(row["security_type"]),
        }
        for row in found["views"]
    }


def _events(database: str, found: Found) -> Dict[Tuple[str, str], Attributes]:
    names = ("interval_value", "interval_field", "execute_at", "on_completion", "time_zone")
    return {
        ("event", row["event_name"]): {
            "body": _text(row["event_definition"]),
            "status": _text(row["status"]),
            "comment": _text(row["event_comment"]),
            **_attributes(row, (*names, *_MADE_UNDER)),
        }
        for row in found["events"]
    }


_READERS: Tuple[Callable[[str, Found], Dict[Tuple[str, str], Attributes]], ...] = (
    _database, _tables, _columns, _indexes, _foreign_keys, _checks, _triggers, _routines, _views,
    _events,
)  # fmt: skip


# How MySQL and MariaDB spell the same thing.

_WIDTH = re.compile(r"\b(tinyint|smallint|mediumint|int|bigint|year)\(\d+\)", re.I)
_DEFAULT_COLLATION = re.compile(r"^(utf8mb4)_(?:general_ci|0900_ai_ci|uca1400_ai_ci)$")
_NOW = re.compile(r"\b(?:current_timestamp|now|localtimestamp|localtime)(?:\(\s*\)|\b(?!\())", re.I)
#: A comparison in parentheses that change nothing; MySQL writes them, MariaDB does not.
_COMPARISON = re.compile(r"\(([\w.]+(?:<=|>=|<>|=|<|>)(?:[\w.]+|'[^']*'))\)")
_JSON_CHECK = re.compile(r"^json_valid\((\w+)\)$")


def folded(schema: Schema) -> Schema:
    """A schema without what only tells that its server is a MySQL or a MariaDB."""
    json = _json_columns(schema)
    objects: Dict[Tuple[str, str], Attributes] = {}
    for (kind, name), attributes in schema.objects.items():
        if kind == "check":
            table = name.partition(".")[0]
            clause = _expression(attributes["clause"])
            if _is_json_check(table, clause, json):
                continue
            # the servers name them differently
            objects[kind, f"{table}.{clause}"] = {"clause": clause}
        elif kind == "column":
            objects[kind, name] = _folded_column(
                attributes, schema.is_mariadb, is_json=name in json
            )
        else:
            objects[kind, name] = _folded(attributes)
    return schema._replace(objects=objects)


def _json_columns(schema: Schema) -> Set[str]:
    """The columns that are JSON: in MariaDB a LONGTEXT with a check."""
    found = {
        name
        for (kind, name), attributes in schema.objects.items()
        if kind == "column" and attributes["type"] == "json"
    }
    for (kind, name), attributes in schema.objects.items():
        if kind == "check":
            column = _JSON_CHECK.match(_expression(attributes["clause"]) or "")
            if column is not None:
                found.add(f"{name.partition('.')[0]}.{column[1]}")
    return found


def _is_json_check(table: str, clause: Optional[str], json: Set[str]) -> bool:
    found = _JSON_CHECK.match(clause or "")
    return found is not None and f"{table}.{found[1]}" in json


def _expression(text: Optional[str]) -> Optional[str]:
    """An expression without back quotes, spaces, introducers and outer parentheses."""
    if text is None:
        return None
    plain = re.sub(r"[`\s]|\\(?=')|_utf8mb[34](?=')", "", text.lower())
    plain = _COMPARISON.sub(r"\1", plain)
    while plain.startswith("(") and plain.endswith(")") and _is_pair(plain):
        plain = plain[1:-1]
    return _NOW.sub("current_timestamp", plain)


def _is_pair(text: str) -> bool:
    """Whether the first parenthesis is closed by the last."""
    depth = 0
    for position, character in enumerate(text):
        depth += {"(": 1, ")": -1}.get(character, 0)
        if not depth:
            return position == len(text) - 1
    return False


def _default(column: Attributes, is_mariadb: bool) -> Optional[str]:
    """A default as ``= value`` or as the text of an expression."""
    text = column["default"]
    if text is None or (is_mariadb and text == "NULL"):
        return None
    if is_mariadb and text.startswith("'") and text.endswith("'"):
        return "= " + text[1:-1].replace("''", "'")
    if is_mariadb and re.fullmatch(r"-?[\d.]+(?:e[+-]?\d+)?|b'[01]*'", text, re.I):
        return f"= {text}"
    generated = "DEFAULT_GENERATED" in (column["extra"] or "")
    if is_mariadb or generated or _NOW.match(text):
        return _expression(text)
    return f"= {text}"


def _folded_column(column: Attributes, is_mariadb: bool, *, is_json: bool) -> Attributes:
    made = _folded(column)
    kind = column["type"] or ""
    if "zerofill" not in kind and kind != "tinyint(1)":
        kind = _WIDTH.sub(r"\1", kind)
    extra = (column["extra"] or "").lower().replace("default_generated", "")
    made.update(
        type=kind,
        default=_default(column, is_mariadb),
        extra=_NOW.sub("current_timestamp", " ".join(extra.split())),
        generated=_expression(column["generated"]),
    )
    if is_json:
        made.update(type="json", charset=None, collation=None)
    return made


def _folded(attributes: Attributes) -> Attributes:
    """Those that differ by the server's defaults and manners are made alike."""
    made = dict(attributes)
    for name in ("collation", "collation_connection", "database_collation"):
        if made.get(name):
            made[name] = _DEFAULT_COLLATION.sub(r"\1 default", str(made[name]))
    if "body" in made:
        made["body"] = _expression(made["body"])
    if made.get("parameters"):
        made["parameters"] = _WIDTH.sub(r"\1", str(made["parameters"]))
    # both know modes that the other does not
    made.pop("sql_mode", None)
    made.pop("options", None)
    return made
