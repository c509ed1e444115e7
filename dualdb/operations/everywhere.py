"""A script on several databases."""

import time
from typing import Callable, List, Literal, NamedTuple, Optional, Tuple, Union

from .. import errors
from ..execution import steps
from ..execution.execute import execute_statement
from ..results import ResultSet
from ..sql import classify
from ..sql.parameters import Params
from . import rollout, script
from .places import Databases, Place, Session, SessionStatement, Shards
from .reports import DatabaseResult, SqlReport, State, StatementResult

#: Whether an error on one database keeps others from beginning.
OnError = Literal["stop", "continue"]


class Options(NamedTuple):
    """The arguments of ``sql``."""

    script: str
    params: Params
    shards: Shards
    canary: Union[bool, int, str]
    max_concurrency: int
    on_error: OnError
    dry_run: bool
    resume: Optional[SqlReport]
    doubtful: Optional[str]
    progress: Optional[Callable[[DatabaseResult], object]]


def run(databases: Databases, options: Options) -> steps.Plan[SqlReport]:
    """Perform a script on several databases; see ``Operations.sql``."""
    statements = tuple(_statements(options))
    texts = tuple(each.sql for each in statements)
    digest = script.digest([each.text for each in statements])
    if options.on_error not in ("stop", "continue"):
        raise errors.ParameterError(
            f"on_error must be 'stop' or 'continue', not {options.on_error!r}"
        )
    places = databases.chosen(options.shards)
    former = _former(options, digest, places)
    completed = {place.name: _completed(former, place, options.doubtful) for place in places}

    def not_begun(place: Place) -> DatabaseResult:
        if place.name in former and former[place.name].state is not State.NOT_BEGUN:
            return former[place.name]
        return DatabaseResult(place.name, State.NOT_BEGUN)

    def work(place: Place) -> steps.Plan[DatabaseResult]:
        return _on_database(databases, place, statements, completed[place.name])

    begun = [place for place in places if completed[place.name] < len(statements)]
    done = {
        place.name: DatabaseResult(place.name, State.DONE, len(statements))
        for place in places
        if place not in begun
    }
    if options.dry_run:
        first, others = rollout.canary_first(places, options.canary)
        planned = [done.get(place.name) or not_begun(place) for place in [*first, *others]]
        return SqlReport(texts, digest, tuple(planned), dry_run=True)
    todo = rollout.Rollout(
        work,
        not_begun,
        lambda result: result.state is State.FAILED,
        stop=options.on_error == "stop",
        progress=options.progress,
    )
    # a canary that a former run has done has proved the script
    canary = options.canary if str(options.canary) not in done else False
    found = (yield from todo.run(begun, canary, options.max_concurrency)) if begun else []
    return SqlReport(texts, digest, (*done.values(), *found))


def _statements(options: Options) -> List[SessionStatement]:
    split = script.split(options.script)
    if not split:
        raise errors.ParameterError("there is no statement in the script")
    if options.params is not None and len(split) > 1:
        raise errors.ParameterError(
            f"params are for one statement, and the script has {len(split)}"
        )
    return [SessionStatement(each.text, options.params) for each in split]


def _former(options: Options, digest: str, places: List[Place]) -> "dict[str, DatabaseResult]":
    if options.resume is None:
        return {}
    if options.resume.digest != digest:
        raise errors.ParameterError(
            "the report to resume is of another script: resume with the same statements"
        )
    return {each.database: each for each in options.resume.databases}


def _completed(former: "dict[str, DatabaseResult]", place: Place, doubtful: Optional[str]) -> int:
    """How many statements are not to be sent again."""
    result = former.get(place.name)
    if result is None:
        return 0
    if not result.in_doubt:
        return result.completed
    if doubtful not in ("repeat", "done"):
        raise errors.ParameterError(
            f"statement {result.completed + 1} on {place.label} may or may not have been "
            f"performed ({result.error}): {rollout.DOUBTFUL}"
        )
    return result.completed + (doubtful == "done")


def _on_database(
    databases: Databases, place: Place, statements: Tuple[SessionStatement, ...], first: int
) -> steps.Plan[DatabaseResult]:
    run_of = _Run(place, first)
    try:
        yield from databases.session(place, lambda session: run_of.perform(session, statements))
    except errors.Error as error:
        return run_of.failed(error)
    return DatabaseResult(place.name, State.DONE, run_of.completed, tuple(run_of.results))


class _Run:
    """How far a script came on one database."""

    def __init__(self, place: Place, first: int) -> None:
        self._place = place
        self.completed = first
        self.results: List[StatementResult] = []
        self._began: Optional[int] = None  # the statement that opened a transaction
        self._current: Optional[SessionStatement] = None

    def perform(
        self, session: Session, statements: Tuple[SessionStatement, ...]
    ) -> steps.Plan[None]:
        for statement in statements[self.completed :]:
            self._current = statement
            before = time.monotonic()
            sets: List[ResultSet] = yield from execute_statement(
                steps.fixed_route(session), statement
            )
            self.results.append(_result(statement, sets, time.monotonic() - before))
            self._note_transaction(statement)
            self.completed += 1
        self._current = None
        if self._began is not None:
            raise errors.ProgrammingError(
                "the script leaves a transaction open, which has been rolled back"
            )

    def _note_transaction(self, statement: SessionStatement) -> None:
        word = classify.first_word(statement.sql)
        if word in ("BEGIN", "START"):
            self._began = self.completed
        elif word in ("COMMIT", "ROLLBACK") or statement.commits:
            self._began = None

    def failed(self, error: errors.Error) -> DatabaseResult:
        lost = isinstance(error, errors.OutcomeUnknown)
        statement = self._current
        if self._began is not None:
            # what the transaction did is undone with it
            self.completed = self._began
            commits = statement is not None and (
                statement.commits or classify.first_word(statement.sql) == "COMMIT"
            )
            lost = lost and commits
        return DatabaseResult(
            self._place.name,
            State.FAILED,
            self.completed,
            tuple(self.results),
            rollout.message(error),
            error.errno,
            lost,
        )


def _result(statement: SessionStatement, sets: List[ResultSet], seconds: float) -> StatementResult:
    rows = [row for each in sets for row in each.rows]
    has_rows = any(each.columns for each in sets)
    affected = sum(max(0, each.rowcount) for each in sets if not each.columns)
    return StatementResult(statement.sql, affected, tuple(rows) if has_rows else None, seconds)
