"""Tags of statements."""

import random
from urllib.parse import unquote

import pytest

from dualdb.observability.tags import LONGEST_COMMENT, append_comment, comment_of
from dualdb.protocol.commands import Batch
from dualdb.sql.lexer import Kind, tokens


def test_the_format_is_that_of_sqlcommenter() -> None:
    tags = {"route": "/polls 1000", "db_driver": "a'b", "none": None, "n": 7}
    assert comment_of(tags) == b"/*db_driver='a%27b',n='7',route='%2Fpolls%201000'*/"
    assert comment_of({}) == comment_of({"a": None}) == b""


def test_no_tag_ends_its_comment(seed: int) -> None:
    choice = random.Random(seed)
    for _ in range(300):
        value = "".join(choice.choices("*/'\"\\%;-# \n\x00é거a1", k=20))
        comment = comment_of({value: value}).decode("ascii")
        (token,) = tokens(comment)
        assert (token.kind, token.start, token.stop) == (Kind.COMMENT, 0, len(comment))
        assert unquote(comment).count(value) == 2


def test_a_comment_is_not_longer_than_a_kilobyte() -> None:
    comment = comment_of({f"key{number}": "x" * 100 for number in range(100)})
    assert 900 < len(comment) <= LONGEST_COMMENT
    assert comment.endswith(b"'*/")


def test_a_command_stays_what_it_is() -> None:
    """Several statements in one command are a subclass of bytes."""
    batch = append_comment(Batch(b"SELECT 1; SELECT 2"), b"/*a='b'*/")
    assert type(batch) is Batch
    assert batch == b"SELECT 1; SELECT 2 /*a='b'*/"


def test_no_command_becomes_too_long() -> None:
    command = b"INSERT INTO t VALUES ('" + b"x" * 1000 + b"')"
    assert append_comment(command, b"/*a='b'*/", len(command) + 10) is command
    assert append_comment(command, b"/*a='b'*/", len(command) + 100).endswith(b"/*a='b'*/")


@pytest.mark.parametrize("end", [b"", b";", b" ;\n", b"\n;;"])
def test_it_is_appended_before_the_end_of_the_statement(end: bytes) -> None:
    assert append_comment(b"SELECT 1" + end, b"/*a='b'*/") == b"SELECT 1 /*a='b'*/"
    assert append_comment(b"SELECT 1" + end, b"") == b"SELECT 1" + end
