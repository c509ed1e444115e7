"""The list of built-in functions against what the running server has built in."""

from typing import Any, Iterator, List, Set

import pymysql
import pytest
from database_servers import Databases
from io_kinds import IO

from dualdb.sql import functions

#: A stored function was looked for.
NO_FUNCTION, NO_FUNCTION_BY_SPACE = 1305, 1630
SYNTAX = 1064
#: MySQL keeps it for the views of its catalogue.
INTERNAL = 3566
#: A loadable function, which is no built-in one.
LOADABLE = 1123

ARGUMENTS = ("()", "(1)", "(1,2)", "(1,2,3)", "(1,2,3,4)")


@pytest.fixture(scope="module")
def cursor(servers: Any) -> Iterator[Any]:
    config = servers.config
    connection = pymysql.connect(
        host=config.host,
        port=config.port,
        user=config.user,
        password=config.reveal_password(),
        database=config.database,
    )
    with connection, connection.cursor() as made:
        yield made


def answers(cursor: Any, name: str) -> Set[int]:
    """The error codes of calls with up to four arguments; 0 for one that is right."""
    found = set()
    for arguments in ARGUMENTS:
        try:
            cursor.execute("PREPARE s FROM %s", (f"SELECT {name}{arguments}",))
            found.add(0)
        except pymysql.MySQLError as error:
            found.add(error.args[0])
    return found


def is_built_in(codes: Set[int]) -> bool:
    answered = codes - {NO_FUNCTION, NO_FUNCTION_BY_SPACE, SYNTAX}
    return bool(answered) and not answered & {INTERNAL, LOADABLE}


def is_taken_for_stored(codes: Set[int]) -> bool:
    return not is_built_in(codes) and bool(codes & {NO_FUNCTION, NO_FUNCTION_BY_SPACE})


def own_words(servers: Any, cursor: Any) -> List[str]:
    """The server's own lists of its functions, keywords and help topics."""
    words = [row["name"] for row in servers.run("global", "SELECT name FROM mysql.help_topic")]
    lists = ["SELECT WORD FROM information_schema.KEYWORDS"]
    if is_mariadb(cursor):
        lists.append("SELECT FUNCTION FROM information_schema.SQL_FUNCTIONS")
    for each in lists:
        cursor.execute(each)
        words += [row[0] for row in cursor.fetchall()]
    return sorted({word.upper() for word in words if word.replace("_", "a").isalnum()})


def is_mariadb(cursor: Any) -> bool:
    cursor.execute("SELECT VERSION()")
    return "MariaDB" in cursor.fetchone()[0]


def test_no_built_in_function_of_the_server_is_missing(servers: Any, cursor: Any) -> None:
    known = functions.KNOWN_READS | functions.NOT_READS.keys()
    words = own_words(servers, cursor)
    assert len(words) > 1000
    missing = [
        word
        for word in words
        if word not in known
        and is_built_in(answers(cursor, word))
        # Units of time, and a word before DISTINCT's executor.
        and not word.startswith("SQL_TSI_")
        and word != "UNIQUE"
    ]
    assert missing == []


def test_what_is_listed_is_built_in(cursor: Any) -> None:
    own = functions.MARIADB if is_mariadb(cursor) else functions.MYSQL
    listed = sorted(functions.COMMON | own)
    assert [name for name in listed if is_taken_for_stored(answers(cursor, name))] == []


def test_what_is_not_a_function_with_a_space_is_listed(cursor: Any) -> None:
    """With ``now ()`` the server looks for a stored function."""
    found = set()
    for name in functions.COMMON | functions.MARIADB | functions.MYSQL:
        if is_taken_for_stored(answers(cursor, name)):
            continue
        try:
            cursor.execute("PREPARE s FROM %s", (f"SELECT {name} (1)",))
        except pymysql.MySQLError as error:
            if error.args[0] == NO_FUNCTION_BY_SPACE:
                found.add(name)
    assert found - functions.ADJACENT_PARENTHESIS == set()
    assert "NOW" in found


def test_every_listed_read_is_taken_by_a_read_only_shard(
    db: Any, databases: Databases, io: IO
) -> None:
    """As far as a call without arguments, or with one, is right."""
    databases.set_row(1, status="readonly")
    io(db.refresh())
    shard = db.shard(1)
    for call in ("UUID()", "REPLACE('abc', 'b', 'x')", "TO_BASE64('a')", "SCHEMA()", "ROW_COUNT()"):
        assert len(io(shard.query(f"SELECT {call} AS a"))) == 1
