"""What the command decides without a server."""

import datetime
import decimal
import json
import pathlib
import uuid
from typing import Any

import click
import pytest

from dualdb import errors
from dualdb.cli import base, output
from dualdb.cli.keys import key_of
from dualdb.cli.prompt import History, is_complete
from dualdb.cli.settings import SettingsError
from dualdb.cli.sql import ReportFile
from dualdb.operations import DatabaseResult, SqlReport, State


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", True),
        ("SELECT 1", False),
        ("SELECT 1;", True),
        ("SELECT ';", False),
        ("SELECT ';';", True),
        ("SELECT 1; SELECT", False),
        ("SELECT 1 -- ;", False),
        ("SELECT 1\\G", True),
        ("\\shard 2", True),
        ("exit", True),
        ("CREATE PROCEDURE p() BEGIN SELECT 1;", False),
        ("CREATE PROCEDURE p() BEGIN SELECT 1; END;", True),
        ("DELIMITER //\nSELECT 1;", False),
        ("DELIMITER //\nSELECT 1;//", True),
    ],
)
def test_the_prompt_knows_when_a_statement_is_whole(text: str, expected: bool) -> None:
    assert is_complete(text) is expected


def test_the_history_leaves_out_what_sets_passwords(tmp_path: pathlib.Path) -> None:
    history = History(str(tmp_path / "history"))
    history.append_string("SELECT 1;")
    history.append_string("CREATE USER a IDENTIFIED BY 'h1dden';")
    assert "h1dden" not in (tmp_path / "history").read_text()
    assert list(History(str(tmp_path / "history")).load_history_strings()) == ["SELECT 1;"]


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("7", "auto", 7),
        ("-7", "auto", -7),
        ("ann", "auto", "ann"),
        ("7", "text", "7"),
        ("0aff", "hex", b"\x0a\xff"),
        ("6ba7b810-9dad-11d1-80b4-00c04fd430c8", "uuid", uuid.NAMESPACE_DNS),
    ],
)
def test_keys_of_arguments(text: str, kind: str, expected: Any) -> None:
    assert key_of(text, kind) == expected


def test_a_key_of_a_wrong_kind_is_refused() -> None:
    for text, kind in (("x", "int"), ("x", "uuid"), ("x", "hex")):
        with pytest.raises(click.BadParameter):
            key_of(text, kind)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (SettingsError("x"), base.USAGE),
        (errors.ConnectionFailed(2003, "refused"), base.UNAVAILABLE),
        (errors.PoolTimeout("full"), base.UNAVAILABLE),
        (errors.ParameterError("wrong"), base.REFUSED),
        (errors.ProgrammingError(1064, "syntax"), base.REFUSED),
        (errors.OutcomeUnknown(2013, "lost"), base.UNKNOWN),
        (errors.WriteTimedOut("late"), base.UNKNOWN),
        (KeyError("x"), base.FAULT),
    ],
)
def test_errors_have_exit_codes(error: Exception, code: int) -> None:
    assert base.exit_code(error) == code


def test_an_error_is_one_line_with_its_place_and_code() -> None:
    error = errors.ProgrammingError(1064, "wrong\n  here").with_context("shard 2", 2)
    assert base.one_line(error) == "shard 2: wrong here (error 1064)"
    unavailable = errors.shard_unavailable(7, "it is suspended")
    assert base.one_line(unavailable) == "Shard 7 not available: it is suspended"


def test_json_has_a_word_for_every_value() -> None:
    values = [
        decimal.Decimal("1.50"),
        datetime.datetime(2026, 1, 2, 3, 4, 5),
        datetime.timedelta(hours=1),
        b"\x01\xff",
        uuid.NAMESPACE_DNS,
        {2, 1},
        State.DONE,
    ]
    text = json.dumps(values, default=output.plain)
    assert json.loads(text) == [
        "1.50",
        "2026-01-02T03:04:05",
        "01:00:00",
        "0x01ff",
        str(uuid.NAMESPACE_DNS),
        [1, 2],
        "done",
    ]


def test_control_characters_do_not_reach_the_terminal() -> None:
    assert "\x1b" not in output.cell("\x1b[31mred\x07").plain
    assert output.cell(None).plain == "NULL"


def planned(*databases: str) -> SqlReport:
    results = [DatabaseResult(name, State.NOT_BEGUN) for name in databases]
    return SqlReport(("SELECT 1",), "digest", tuple(results), dry_run=True)


def states(path: pathlib.Path) -> Any:
    kept = SqlReport.from_dict(json.loads(path.read_text()))
    assert not kept.dry_run
    return {each.database: (each.state.value, each.in_doubt) for each in kept.databases}


def test_the_report_of_a_run_says_what_may_be_at_work(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "report.json"
    kept = ReportFile(str(path), planned("1", "2", "3", "4"), parallel=2, canary=True)
    assert states(path) == {
        "1": ("failed", True),
        "2": ("not begun", False),
        "3": ("not begun", False),
        "4": ("not begun", False),
    }
    kept.add(DatabaseResult("1", State.DONE, 1))
    assert states(path)["1"] == ("done", False)
    assert [states(path)[name][1] for name in ("2", "3", "4")] == [True, True, False]
    kept.add(DatabaseResult("3", State.DONE, 1))
    assert [states(path)[name][1] for name in ("2", "3", "4")] == [True, False, True]
    assert [each.name for each in tmp_path.iterdir()] == ["report.json"]
