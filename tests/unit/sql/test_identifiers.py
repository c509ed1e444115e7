"""Names of procedures."""

from typing import Any

import pytest

from dualdb import ParameterError
from dualdb.sql.identifiers import procedure


@pytest.mark.parametrize(
    ("name", "quoted"),
    [
        ("p", "`p`"),
        ("shop.get_user", "`shop`.`get_user`"),
        ("$x1", "`$x1`"),
        ("절차", "`절차`"),
        ("1st", "`1st`"),
        ("end of day", "`end of day`"),
        ("my-shop.end-of-day", "`my-shop`.`end-of-day`"),
        ("p`", "`p```"),
        ("a`b.c`d", "`a``b`.`c``d`"),
        ("`p`", "`p`"),
        ("`a.b`.`c;(d``e)`", "`a.b`.`c;(d``e)`"),
        ("shop.`a.b`", "`shop`.`a.b`"),
        ("x" * 64, "`" + "x" * 64 + "`"),
    ],
)
def test_procedure_names(name: str, quoted: str) -> None:
    assert procedure(name) == quoted


@pytest.mark.parametrize(
    "name",
    [
        "",
        "a.b.c",
        "p(1)",
        "p; DROP TABLE t",
        "p` ()",
        "`p`(",
        "`p``",
        "p -- '",
        " p",
        "p .q",
        "``",
        "`a`b`.`c`.d",
        "\U0001f600",
        ".p",
        "p.",
        "x" * 65,
        None,
        7,
        b"p",
        "p\n",
    ],
)
def test_other_names_are_refused(name: Any) -> None:
    with pytest.raises(ParameterError, match="is not a procedure name"):
        procedure(name)
