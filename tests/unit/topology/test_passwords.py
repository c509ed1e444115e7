"""Passwords named and not held."""

import os
import pathlib
from typing import Any

import pytest
from shard_rows import BASE, row

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
