"""Migrations as files, and what is known of them in a database."""

import datetime
import os
import pathlib
import re
from typing import Dict, List, Literal, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

from .. import errors
from ..results import Row
from ..sql import classify
from . import script
from .reports import MigrationState, MigrationStatus

#: The folder of the files, or their texts by name.
Directory = Union[str, "os.PathLike[str]", Mapping[str, str]]

_NAME = re.compile(r"(\d+)_([\w.-]+?)(\.down)?\.sql")

#: First words that a migration may not have: it is not in a transaction of its own, and
#: stays in its database.
_REFUSED = frozenset(
    {"BEGIN", "COMMIT", "LOCK", "RELEASE", "ROLLBACK", "SAVEPOINT", "START", "UNLOCK", "USE", "XA"}
)

#: First words of statements that can be recorded in the transaction that they are in.
_TRANSACTIONAL = frozenset({"INSERT", "UPDATE", "DELETE", "REPLACE"})
#: Those whose effect the schema shows.
_SCHEMA = frozenset({"CREATE", "ALTER", "DROP", "RENAME"})
#: Those that may be performed twice.
_REPEATABLE = frozenset(
    {"ANALYZE", "CHECK", "DESC", "DESCRIBE", "EXPLAIN", "FLUSH", "GRANT", "OPTIMIZE", "REVOKE",
     "SELECT", "SET", "SHOW", "TRUNCATE", "WITH"}
)  # fmt: skip

#: What a statement is for its record.
Category = Literal["transactional", "schema", "repeatable", "other"]

_SEVERAL = re.compile(r"DROP\s+(?:TEMPORARY\s+)?(?:TABLE|VIEW)\b[^;]*,", re.I)
_ACCOUNT = re.compile(r"(?:CREATE|ALTER|DROP)\s+(?:OR\s+REPLACE\s+)?(?:USER|ROLE)\b", re.I)


class MigrationError(errors.ProgrammingError):
    """The files of the migrations, and what was applied of them, do not fit
    together.
    """


def title_of(version: int, name: str) -> str:
    """A migration's number and name: ``001_notes``."""
    return f"{version:03d}_{name}"


class Migration(NamedTuple):
    """One migration.

    Attributes:
        version: The number of its file.
        name: The rest of the file's name.
        up: Its statements.
        down: Those that take it back; None where there is no file for that.
    """

    version: int
    name: str
    up: Tuple[str, ...]
    down: Optional[Tuple[str, ...]] = None

    @property
    def title(self) -> str:
        """Its number and name, as in the name of its file."""
        return title_of(self.version, self.name)

    @property
    def checksum(self) -> str:
        """A hash of its statements."""
        return script.digest(self.up)


class Record(NamedTuple):
    """What a database knows of one migration.

    Attributes:
        state: ``"applying"``, ``"applied"`` or ``"reverting"``.
        checksum: Of the statements as they were when it was begun.
        completed: The number of statements that are performed.
        prefix: A hash of those.
        sent: The hash of the statement that was sent after them, if what became of it
            is not recorded.
        before: The schema's fingerprint before that one.
    """

    version: int
    name: str
    state: str
    checksum: str
    statements: int
    completed: int
    prefix: str
    sent: Optional[str] = None
    before: Optional[str] = None
    applied_at: Optional[datetime.datetime] = None

    @property
    def title(self) -> str:
        """Its number and name, as in the name of its file."""
        return title_of(self.version, self.name)


def record_of(row: Row) -> Record:
    """A record from its row."""
    return Record(*[row[name] for name in Record._fields])


def read(directory: Directory) -> List[Migration]:
    """The migrations of a folder, in the order of their numbers.

    Raises:
        MigrationError: Two have one number, a name or a statement cannot be used, or
            there is none.
    """
    files: Dict[Tuple[int, bool], Tuple[str, Tuple[str, ...]]] = {}
    for name, text in sorted(_texts(directory).items()):
        found = _NAME.fullmatch(name)
        if found is None:
            raise MigrationError(f"{name!r} is not named NNN_name.sql or NNN_name.down.sql")
        key = (int(found[1]), found[3] is not None)
        if key in files:
            raise MigrationError(f"there are two files with the number {key[0]}: {name!r} is one")
        files[key] = (found[2], _statements(name, text))
    migrations = []
    for version, is_down in sorted(files):
        name, statements = files[version, is_down]
        if not is_down:
            down = files.get((version, True))
            migrations.append(
                Migration(version, name, statements, None if down is None else down[1])
            )
        elif (version, False) not in files:
            raise MigrationError(f"{version}_{name}.down.sql takes back what is not there")
    if not migrations:
        raise MigrationError("there is no file NNN_name.sql")
    return migrations


def _texts(directory: Directory) -> Mapping[str, str]:
    if isinstance(directory, Mapping):
        return directory
    folder = pathlib.Path(directory)
    if not folder.is_dir():
        raise MigrationError(f"{str(folder)!r} is not a folder")
    return {path.name: path.read_text(encoding="utf-8") for path in folder.glob("*.sql")}


def _statements(name: str, text: str) -> Tuple[str, ...]:
    try:
        found = script.split(text)
    except errors.ParameterError as error:
        raise MigrationError(f"{name}: {error}") from None
    for each in found:
        word = classify.first_word(each.text)
        block = re.match(r"BEGIN\s+NOT\s+ATOMIC\b", each.text, re.I)
        if word in _REFUSED and block is None:
            raise MigrationError(
                f"{name}, line {each.line}: {word} cannot be in a migration; each statement is "
                "committed by itself"
            )
    if not found:
        raise MigrationError(f"{name} has no statement")
    return tuple(each.text for each in found)


def category(statement: str) -> Category:
    """How it can be known afterwards whether a statement was performed."""
    word = classify.first_word(statement)
    if word in _TRANSACTIONAL:
        return "transactional"
    if word in _REPEATABLE:
        return "repeatable"
    if word in _SCHEMA and not _ACCOUNT.match(statement):
        return "schema"
    return "other"


def is_atomic(statement: str) -> bool:
    """Whether a server performs all of a statement or nothing: MariaDB drops one table
    after the other.
    """
    return not _SEVERAL.match(statement)


def setting(statement: str) -> bool:
    """Whether a statement changes the session, so that the next ones need it."""
    return bool(
        re.match(r"SET\s+(?!GLOBAL\b|PERSIST|PASSWORD|@@GLOBAL|@@PERSIST)", statement, re.I)
    )


def statuses(
    migrations: Sequence[Migration], records: Mapping[int, Record]
) -> List[MigrationStatus]:
    """What is known of every migration, of files and of records."""
    files = {each.version: each for each in migrations}
    return [
        _status(files.get(version), records.get(version))
        for version in sorted(files.keys() | records.keys())
    ]


def _status(migration: Optional[Migration], record: Optional[Record]) -> MigrationStatus:
    if record is None:
        assert migration is not None
        return MigrationStatus(
            migration.version, migration.name, MigrationState.PENDING, 0, len(migration.up)
        )
    if migration is None:
        state = MigrationState.MISSING
    elif record.state != "applied":
        state = MigrationState.BEGUN if record.sent is None else MigrationState.IN_DOUBT
    elif record.checksum != migration.checksum:
        state = MigrationState.CHANGED
    else:
        state = MigrationState.APPLIED
    return MigrationStatus(
        record.version, record.name, state, record.completed, record.statements, record.applied_at
    )


def next_up(
    migrations: Sequence[Migration], records: Mapping[int, Record], to: Optional[int] = None
) -> List[Migration]:
    """The migrations that are still to be applied, or to be completed, in order.

    Raises:
        MigrationError: An applied file was changed or is missing, one was added below
            what is applied, or one is being taken back.
    """
    files = {each.version: each for each in migrations}
    for version, record in sorted(records.items()):
        if version not in files:
            raise MigrationError(f"migration {record.title} is applied, and its file is missing")
        if record.state == "reverting":
            raise MigrationError(
                f"migration {record.title} is being taken back: complete that first"
            )
        if record.state == "applied" and record.checksum != files[version].checksum:
            raise MigrationError(
                f"the file of migration {record.title} was changed after it was applied: "
                "restore it, and write a new one"
            )
    newest = max((each.version for each in records.values()), default=-1)
    todo = []
    for each in migrations:
        done = records.get(each.version)
        if (done is not None and done.state == "applied") or (to is not None and each.version > to):
            continue
        if done is None and each.version < newest:
            raise MigrationError(
                f"migration {each.title} is older than {newest}, which is applied: "
                "give it a number above that"
            )
        todo.append(each)
    return todo


def next_down(
    migrations: Sequence[Migration], records: Mapping[int, Record], to: int
) -> List[Migration]:
    """The migrations that are to be taken back, the newest first.

    Raises:
        MigrationError: One has no file for that, or is being applied.
    """
    files = {each.version: each for each in migrations}
    todo = []
    for version, record in sorted(records.items(), reverse=True):
        if version <= to:
            continue
        found = files.get(version)
        if found is None or found.down is None:
            raise MigrationError(f"there is no file {record.title}.down.sql")
        if record.state == "applying":
            raise MigrationError(f"migration {record.title} is being applied: complete that first")
        todo.append(found)
    return todo


def check_prefix(record: Record, statements: Sequence[str]) -> None:
    """Raise a MigrationError if statements that were performed are not those of the
    file any more. Those after them may have been mended.
    """
    begun = list(statements[: record.completed])
    is_same = len(statements) >= record.completed and script.digest(begun) == record.prefix
    if is_same and record.sent is not None:
        sent = statements[record.completed : record.completed + 1]
        is_same = script.digest(sent) == record.sent
    if not is_same:
        raise MigrationError(
            f"the file of migration {record.title} was changed in statements that were performed"
        )
