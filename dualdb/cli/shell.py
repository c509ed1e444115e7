"""``shell``: statements typed in, on one database."""

import sys
from typing import Any, List, Optional, Sequence, Tuple

import click
import pymysql.cursors
import pymysql.err

from .. import errors
from ..api.identity import database_name
from ..operations import script
from ..sync_impl import DatabaseService
from .base import USAGE, Failure, State, command, exit_code, fail, one_line, pass_state
from .keys import key_of, key_type_option
from .output import cell, counted, note, write_json_line, write_table
from .root import root

_HELP = """\
A statement ends with ; or, for one row under the other, with \\G.
\\shard 2    go to shard 2
\\global     go to the global database
\\d          the tables; \\d trades is how a table was made
\\status     the shards
\\q          leave, as Ctrl-D"""


class Target:
    """The database that the shell is on, with one connection, so that transactions and
    user variables last.
    """

    def __init__(self, db: DatabaseService, shard_id: Optional[int]) -> None:
        self._db = db
        self.shard_id = shard_id
        self._connection: Any = None
        self.name = database_name(shard_id)

    def connection(self) -> Any:
        """The connection; another one if the last was lost."""
        if self._connection is None:
            target = self._db if self.shard_id is None else self._db.shard(self.shard_id)
            self._connection = target.connection()
        return self._connection

    def close(self) -> None:
        """Give the connection back."""
        connection = self._connection
        self._connection = None
        if connection is not None:
            connection.close()

    def names(self) -> List[str]:
        """The names of tables and columns."""
        try:
            with self.connection().cursor(pymysql.cursors.Cursor) as cursor:
                cursor.execute(_NAMES)
                return [str(row[0]) for row in cursor.fetchall()]
        except pymysql.err.MySQLError:
            self.close()
            return []

    def end_statement(self) -> None:
        """End what the server is doing, after Ctrl-C."""
        if self._connection is None:
            return
        session_id = self._connection.thread_id()
        self.close()
        where: Any = "global" if self.shard_id is None else self.shard_id
        self._db.operations.kill(where, session_id, connection=True)


class Shell:
    """Performs what is typed, and shows the results."""

    def __init__(self, db: DatabaseService, shard_id: Optional[int], state: State, most: int):
        self._db = db
        self._state = state
        self._most = most
        self.target = Target(db, shard_id)

    def perform(self, text: str) -> None:
        """Perform statements or a command.

        Raises:
            EOFError: It is the end.
        """
        stripped = text.strip()
        if stripped.rstrip(";").lower() in ("quit", "exit", "\\q"):
            raise EOFError
        if stripped.startswith("\\"):
            self._command(*stripped.rstrip(";").split())
            return
        vertical = stripped.endswith("\\G")
        for statement in script.split(stripped[:-2] if vertical else text):
            self._statement(statement.text, vertical)

    def _command(self, name: str, *arguments: str) -> None:
        if name == "\\shard" and len(arguments) == 1 and arguments[0].isdecimal():
            self._use_database(int(arguments[0]))
        elif name == "\\global":
            self._use_database(None)
        elif name == "\\d":
            self._statement(
                "SHOW CREATE TABLE `{}`".format(arguments[0].replace("`", "``"))
                if arguments
                else "SHOW TABLES",
                bool(arguments),
            )
        elif name == "\\status":
            status = self._db.status()
            for shard_id, each in status.shards.items():
                click.echo(f"shard {shard_id}: {each.state}, {each.address or ''}")
        else:
            click.echo(_HELP)

    def _use_database(self, shard_id: Optional[int]) -> None:
        found = Target(self._db, shard_id)
        found.connection()  # it can be reached, or an error says that it cannot
        self.target.close()
        self.target = found

    def _statement(self, sql: str, vertical: bool) -> None:
        try:
            with self.target.connection().cursor(pymysql.cursors.Cursor) as cursor:
                cursor.execute(sql)
                while True:
                    self._show(cursor, vertical)
                    if not cursor.nextset():
                        break
        except pymysql.err.MySQLError as error:
            if not errors.is_server_error(_driver_error(error)):
                self.target.close()
            raise

    def _show(self, cursor: Any, vertical: bool) -> None:
        if cursor.description is None:
            if self._state.json:
                write_json_line({"affected": cursor.rowcount, "lastrowid": cursor.lastrowid or 0})
            else:
                note(f"{counted(cursor.rowcount, 'row')} affected")
            return
        columns = [each[0] for each in cursor.description]
        rows: Sequence[Tuple[Any, ...]] = cursor.fetchall()
        if self._state.json:
            write_json_line({"columns": columns, "rows": [list(row) for row in rows]})
            return
        shown = rows[: self._most]
        if vertical:
            _show_vertically(columns, shown)
        elif rows:
            write_table(columns, shown)
        more = f", {self._most} shown" if len(rows) > self._most else ""
        note(f"{counted(len(rows), 'row')}{more}")


def _driver_error(error: BaseException) -> BaseException:
    return getattr(error, "driver_error", None) or error


def _show_vertically(columns: List[str], rows: Sequence[Sequence[Any]]) -> None:
    width = max(len(name) for name in columns)
    for number, row in enumerate(rows, 1):
        click.echo(f"*** row {number}")
        for name, value in zip(columns, row):
            click.echo(f"{name:>{width}}: {cell(value).plain}")


_NAMES = """\
SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()
UNION SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = DATABASE()
LIMIT 5000"""


def _interact(shell: Shell) -> None:
    # It takes half as long to import as all else.
    from .prompt import prompt_session  # noqa: PLC0415

    session = prompt_session(shell.target.names())
    note("\\? for help, Ctrl-D to leave")
    while True:
        try:
            text = session.prompt(f"{shell.target.name}> ")
        except KeyboardInterrupt:
            continue  # what was typed is forgotten
        except EOFError:
            return
        try:
            shell.perform(text)
        except EOFError:
            return
        except KeyboardInterrupt:
            note("interrupted; what the statement was doing is ended, and so is the transaction")
            _quietly(shell.target.end_statement)
        except (pymysql.err.MySQLError, OSError) as error:
            note(f"dualdb: {one_line(_ours(error))}")


def _quietly(function: Any) -> None:
    try:
        function()
    except errors.Error as error:
        note(f"dualdb: {one_line(error)}")


def _ours(error: BaseException) -> BaseException:
    if isinstance(error, errors.Error) or not isinstance(error, pymysql.err.MySQLError):
        return error
    return errors.from_driver(error)


@command(root, "dualdb shell\ndualdb shell --shard 2\necho 'SELECT 1;' | dualdb shell --key 7")
@click.option("--shard", "shard_id", type=int, help="The shard to begin on.")
@click.option("--key", help="Begin on the shard of this key.")
@key_type_option
@click.option(
    "--max-rows",
    type=click.IntRange(1),
    default=1000,
    show_default=True,
    help="The most rows of a result that are shown.",
)
@pass_state
def shell(
    current: State, shard_id: Optional[int], key: Optional[str], key_type: str, max_rows: int
) -> None:
    """Type statements on one database, with history and completion.

    Statements end with ; and may have several lines. Where standard input is not a
    terminal, its statements are performed until one fails.
    """
    if shard_id is not None and key is not None:
        fail("give --shard or --key, not both", USAGE)
    db = current.open()
    if key is not None:
        shard_id = db.shard_id_of(key_of(key, key_type))
    opened = Shell(db, shard_id, current, max_rows)
    try:
        if sys.stdin.isatty():
            _interact(opened)
        else:
            opened.perform(sys.stdin.read())
    except EOFError:
        pass
    except pymysql.err.MySQLError as error:
        found = _ours(error)
        raise Failure(one_line(found), exit_code(found)) from None
    finally:
        opened.target.close()
