"""The sessions on the servers, and ending one."""

from typing import List, Optional, Union

from .. import errors
from ..execution import steps
from . import rollout
from .places import Databases, Session, Shards, servers
from .reports import KillReport, Process, ProcessReport

_NO_SUCH_SESSION = 1094
#: What a session does that waits for a statement, or belongs to the server itself.
_IDLE = frozenset({"Sleep", "Daemon", "Binlog Dump", "Binlog Dump GTID", "Slave_IO"})


def run(databases: Databases, shards: Shards, idle: bool) -> steps.Plan[ProcessReport]:
    """The sessions on the servers; see ``Operations.processes``."""
    places = [databases.even_inactive(each) for each in databases.chosen(shards)]
    found = yield from databases.on_each(servers(places), _sessions)
    failed = {p.name: rollout.message(each) for p, each in found if isinstance(each, Exception)}
    sessions = [
        process
        for _, each in found
        if not isinstance(each, Exception)
        for process in each
        if idle or process.command not in _IDLE
    ]
    sessions.sort(key=lambda process: -process.seconds)
    return ProcessReport(tuple(sessions), failed)


def _sessions(session: Session) -> steps.Plan[List[Process]]:
    """The other sessions of the server."""
    mine = yield from session.value("SELECT CONNECTION_ID()")
    rows = yield from session.query("SHOW FULL PROCESSLIST")
    return [
        Process(
            session.place.name,
            int(row["Id"]),
            str(row["User"] or ""),
            str(row["Host"] or ""),
            row["db"],
            str(row["Command"] or ""),
            float(row["Time"] or 0),
            str(row["State"] or ""),
            row["Info"],
        )
        for row in rows
        if int(row["Id"]) != int(mine)
    ]


def kill(
    databases: Databases,
    database: Union[int, str],
    session_id: int,
    connection: bool,
    dry_run: bool,
) -> steps.Plan[KillReport]:
    """End a statement or a session; see ``Operations.kill``."""
    if not isinstance(session_id, int) or isinstance(session_id, bool) or session_id < 1:
        raise errors.ParameterError(f"the id of a session is a number, not {session_id!r}")
    statement = f"KILL {'CONNECTION' if connection else 'QUERY'} {session_id}"

    def work(session: Session) -> steps.Plan[KillReport]:
        known = {each.id: each for each in (yield from _sessions(session))}
        process: Optional[Process] = known.get(session_id)
        if process is None or dry_run:
            return KillReport(process, statement, False, dry_run)
        try:
            yield from session.execute(statement)
        except errors.Error as error:
            if error.errno != _NO_SUCH_SESSION:
                raise
            return KillReport(None, statement, False)
        return KillReport(process, statement, True)

    return (yield from databases.session(databases.one(database, inactive=True), work))
