"""Passwords named and not held."""

import os
import pathlib
from typing import Any

import pytest
from shard_rows import BASE, row

from dualdb.topology.passwords import DEFAULT_REFERENCES, AllowedReferences
from dualdb.topology.shard_map import parse_shard_table


def test_a_password_may_be_named_and_not_held(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "one")
    (tmp_path / "secret").write_text("two\n")
    (tmp_path / "long").write_text("x" * 5000)

    def password(reference: str) -> Any:
        shard = parse_shard_table([row(password=reference)], BASE).shards[1]
        return shard.reason if shard.config is None else shard.config.reveal_password()

    assert (password("env:SECRET"), password(f"file:{tmp_path}/secret"), password("secret:x")) == (
        "one",
        "two",
        "secret:x",
    )
    assert password("env:ABSENT") == "password: there is no environment variable 'ABSENT'"
    assert password("file:/absent") == "password: there is no file '/absent'"
    os.mkfifo(tmp_path / "pipe")
    assert "there is no file" in password(f"file:{tmp_path}/pipe")
    assert "is longer than" in password(f"file:{tmp_path}/long")


@pytest.mark.parametrize(
    ("allowed", "reference", "is_allowed"),
    [
        (DEFAULT_REFERENCES, "env:DUALDB_SHARD_1", True),
        (DEFAULT_REFERENCES, "env:CLOUD_SECRET", False),
        (DEFAULT_REFERENCES, "env:XDUALDB_A", False),
        (DEFAULT_REFERENCES, "env:dualdb_a", False),
        (DEFAULT_REFERENCES, "file:/run/secrets/a", False),
        (["file:/run/secrets/*"], "file:/run/secrets/a", True),
        (["file:/run/secrets/*"], "file:/run/secrets/../../etc/shadow", False),
        (["file:/run/secrets/*"], "file:/run/secrets/a/b", False),
        (["file:/run/*/../x"], "file:/run/a/../x", False),
        ([], "env:DUALDB_A", False),
        (None, "env:ANY", True),
    ],
)
def test_a_row_refers_to_what_is_allowed(allowed: Any, reference: str, is_allowed: bool) -> None:
    assert AllowedReferences(allowed).allows(reference) is is_allowed


@pytest.mark.parametrize("wrong", ["env:A", ["A"], ["env:"], ["vault:x"], [None]])
def test_what_is_no_reference_cannot_be_allowed(wrong: Any) -> None:
    with pytest.raises(ValueError, match="allowed_references"):
        AllowedReferences(wrong)
