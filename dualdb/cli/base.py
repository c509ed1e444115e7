"""What all commands share: their options, their exit codes, how errors are shown."""

import functools
import logging
import math
import os
import sys
import traceback
from contextlib import ExitStack, contextmanager
from typing import Any, Callable, Dict, Iterator, List, NoReturn, Optional, Sequence

import click
from pydantic import ValidationError

from .. import errors
from ..passwords import PasswordLookupError
from ..sync_impl import DatabaseService
from . import settings
from .output import write_json, write_json_line

#: The exit codes of every command; see docs/cli.md.
OK = 0
PROBLEM = 1
USAGE = 2
UNAVAILABLE = 3
REFUSED = 4
UNKNOWN = 5
FAULT = 70
INTERRUPTED = 130

_UNAVAILABLE = (
    errors.ConnectionFailed,
    errors.ConnectionLost,
    errors.ShardUnavailable,
    errors.PoolTimeout,
    errors.DeadlineExceeded,
)


class Failure(click.ClickException):
    """Ends a command with one line on standard error and an exit code.

    Args:
        message: The line.
        exit_code: The exit code.
        kind: The name of the error's class, if it is one of the package.
    """

    def __init__(self, message: str, exit_code: int = REFUSED, kind: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        # click declares a class variable, and reads it from the instance.
        self.exit_code = exit_code  # type: ignore[misc]

    def show(self, file: Any = None) -> None:
        click.echo(f"dualdb: {self.format_message()}", err=True)


class State:
    """The options of a call, and what it has opened."""

    def __init__(self) -> None:
        self.url: Optional[str] = None
        self.file: Optional[str] = None
        self.json = False
        self.debug = False
        self.stack = ExitStack()

    @functools.cached_property
    def settings(self) -> settings.Settings:
        """Where the database is."""
        return settings.load(self.url, self.file)

    def service(self) -> DatabaseService:
        """A service, not yet open."""
        options = dict(self.settings.service)
        source = settings.directory_source(self.settings.directory)
        outbox = settings.outbox_table(self.settings.outbox)
        replicas = settings.replica_options(self.settings.replicas)
        options.update(directory=source, outbox=outbox, replicas=replicas)
        try:
            return DatabaseService(self.settings.config, **options)
        except (TypeError, ValueError) as error:
            raise settings.SettingsError(f"[service]: {error}") from None

    def open(self) -> DatabaseService:
        """An open service, which is closed when the command ends."""
        return self.stack.enter_context(self.service())


def exit_code(error: BaseException) -> int:
    """The exit code that says what kind of error this is."""
    if isinstance(error, (settings.SettingsError, PasswordLookupError, ValidationError)):
        return USAGE
    if isinstance(error, errors.OutcomeUnknown):
        return UNKNOWN
    if isinstance(error, _UNAVAILABLE):
        return UNAVAILABLE
    if isinstance(error, (errors.Error, OSError, RuntimeError)):
        return REFUSED
    return FAULT


def _with_code(error: errors.Error) -> str:
    code = "" if error.errno is None else f" (error {error.errno})"
    return f"{error.message}{code}"


def one_line(error: BaseException) -> str:
    """An error in one line: its message, the server's code, and where it happened."""
    if isinstance(error, ValidationError):
        return settings.one_line(error)
    if not isinstance(error, errors.Error):
        text = " ".join(str(error).split())
        if exit_code(error) != FAULT and text:
            return text
        return f"a fault of dualdb, which --debug shows: {type(error).__name__}: {text}"
    text = _with_code(error)
    cause = error.__cause__
    reason = _with_code(cause) if isinstance(cause, errors.Error) else getattr(error, "reason", "")
    if reason and str(reason) not in text:
        text = f"{text}: {reason}"
    target = error.target
    if target and target.lower() not in text.lower():
        text = f"{target}: {text}"
    return " ".join(text.split())


@contextmanager
def shown_errors(state: State) -> Iterator[None]:
    """Turn the package's errors into one line and an exit code."""
    try:
        yield
    except (click.ClickException, click.exceptions.Exit, click.Abort, BrokenPipeError):
        raise
    except KeyboardInterrupt:
        raise Failure("interrupted", INTERRUPTED) from None
    except Exception as error:
        if state.debug:
            traceback.print_exc()
        kind = type(error).__name__ if isinstance(error, errors.Error) else ""
        raise Failure(one_line(error), exit_code(error), kind) from None


class Command(click.Command):
    """A command with the options that all have."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example
        self.params = [*self.params, *common_options()]

    def invoke(self, ctx: click.Context) -> Any:
        state = ctx.ensure_object(State)
        with _log_to_stderr(state), shown_errors(state), state.stack:
            return super().invoke(ctx)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"{'':{formatter.current_indent}}{line}\n")


class Group(click.Group):
    """A group whose commands have the options that all have."""

    command_class = Command
    group_class = type

    def list_commands(self, ctx: click.Context) -> List[str]:
        return list(self.commands)


class Root(Group):
    """The group of all commands. With ``--json``, an error is a JSON document, too."""

    def list_commands(self, ctx: click.Context) -> List[str]:
        return sorted(self.commands)

    def main(self, args: Optional[Sequence[str]] = None, *more: Any, **options: Any) -> Any:
        arguments = list(sys.argv[1:] if args is None else args)
        options["standalone_mode"] = False
        try:
            code = super().main(arguments, *more, **options)
        except click.Abort:
            click.echo("Aborted!", err=True)
            code = PROBLEM
            _write_error(arguments, "aborted", code)
        except click.ClickException as error:
            error.show()
            code = error.exit_code
            kind = error.kind if isinstance(error, Failure) else ""
            _write_error(arguments, error.format_message(), code, kind)
        sys.exit(code if isinstance(code, int) else OK)


def _write_error(arguments: Sequence[str], message: str, code: int, kind: str = "") -> None:
    """Write the document that ``--json`` promises, where a command has none."""
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    if "--json" not in own:
        return
    try:
        write_json_line({"error": message, "type": kind or None, "exit_code": code})
    except OSError:  # nobody reads it: the exit code is still the error's
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def command(
    group: click.Group, example: str, name: Optional[str] = None
) -> Callable[[Callable[..., Any]], click.Command]:
    """A decorator that makes a function a command of a group.

    Args:
        group: The group.
        example: Shown by ``--help``.
        name: Of the command, if it is not the function's.
    """
    return group.command(name, cls=Command, example=example)


def _set(name: str) -> Callable[..., None]:
    def set_in_state(ctx: click.Context, param: click.Parameter, value: object) -> None:
        if value not in (None, False):
            setattr(ctx.ensure_object(State), name, value)

    return set_in_state


def common_options() -> List[click.Parameter]:
    return [
        click.Option(
            ["--url"],
            expose_value=False,
            callback=_set("url"),
            metavar="URL",
            help="The global database: mysql://user@host:3306/database. The password may be in "
            "the variable DUALDB_PASSWORD.",
        ),
        click.Option(
            ["--config", "config_file"],
            expose_value=False,
            callback=_set("file"),
            metavar="FILE",
            type=click.Path(exists=True, dir_okay=False),
            help="A TOML file; the default is dualdb.toml.",
        ),
        click.Option(
            ["--json", "as_json"],
            is_flag=True,
            expose_value=False,
            callback=_set("json"),
            help="Write JSON to standard output, an error too.",
        ),
        click.Option(
            ["--debug"],
            is_flag=True,
            expose_value=False,
            callback=_set("debug"),
            help="Show the log, and the traceback of an error.",
        ),
    ]


@contextmanager
def _log_to_stderr(state: State) -> Iterator[None]:
    """Show the package's log for --debug alone: what matters is in the output.

    The level is put back: a program may run a command in its own process.
    """
    log = logging.getLogger("dualdb")
    before = log.level
    if state.debug and not log.handlers:
        logging.basicConfig(stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
        log.setLevel(logging.INFO)
    elif not state.debug:
        log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)


def fail(message: str, code: int = REFUSED) -> NoReturn:
    """End the command."""
    raise Failure(message, code)


def dry_run_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dry-run``, which every command has that changes something."""
    return click.option(
        "--dry-run", is_flag=True, help="Say what would be done, and change nothing."
    )(command)


def yes_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--yes``, for what cannot be taken back."""
    return click.option("--yes", is_flag=True, help="Do not ask whether to go on.")(command)


def confirm(text: str, yes: bool) -> None:
    """Say what will be done, and have somebody agree.

    Raises:
        click.Abort: Nobody did.
        Failure: Nobody can be asked.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        fail(f"{text}: give --yes where nobody can be asked", USAGE)
    click.confirm(f"{text}. Go on?", abort=True, err=True)


def report(state: State, actions: Sequence[str], *, dry_run: bool, **more: Any) -> None:
    """Say what was done, or would be.

    As JSON it is ``{"dry_run": ..., "actions": [...]}`` with ``more``.
    """
    if state.json:
        found: Dict[str, Any] = {"dry_run": dry_run, "actions": list(actions), **more}
        write_json(found)
        return
    for action in actions:
        click.echo(f"would {action}" if dry_run else f"done: {action}")


def shard_ids(text: str) -> Optional[List[int]]:
    """``all`` (None), ``global`` (no shard) or ``1,3,7-9``.

    Raises:
        click.BadParameter: It is none of these.
    """
    if text == "all":
        return None
    if text == "global":
        return []
    found: List[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.partition("-")
            found += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise click.BadParameter(f"{text!r} is none of all, global and 1,3,7-9") from None
    return sorted(set(found))


def limit(number: Callable[[str], float], least: float) -> Callable[[str], Optional[float]]:
    """The type of an option that is a number, or ``off`` for no limit (None)."""

    def convert(text: str) -> Optional[float]:
        if text == "off":
            return None
        try:
            value = number(text)
        except ValueError:
            value = math.nan
        if not least <= value < math.inf:
            raise click.BadParameter(f"{text!r} is neither off nor a number from {least:g} up")
        return value

    return convert


pass_state = click.make_pass_decorator(State, ensure=True)
