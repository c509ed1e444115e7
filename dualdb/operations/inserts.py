"""Rows as INSERT statements."""

from typing import Sequence

from ..results import Row
from ..sql.identifiers import quoted
from ..sql.literals import literal

#: Rows of one statement.
ROWS = 100


def insert_script(table: str, rows: Sequence[Row]) -> str:
    """INSERT statements for rows that have the same columns, each ended by ``;``."""
    statements = []
    for start in range(0, len(rows), ROWS):
        columns = list(rows[0])
        values = ",\n".join(
            "(" + ", ".join(literal(row[name]) for name in columns) + ")"
            for row in rows[start : start + ROWS]
        )
        names = ", ".join(quoted(name) for name in columns)
        statements.append(f"INSERT INTO {quoted(table)} ({names}) VALUES\n{values};\n")
    return "".join(statements)
