"""Where the command finds its database."""

import pathlib
from typing import Any

import pytest

from dualdb import HashBuckets, KeyFunction, LookupTable
from dualdb.cli import settings
from dualdb.cli.settings import SettingsError

URL = "mysql://app:s3cret@db1/app_global"


@pytest.fixture(autouse=True)
def directory(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_url_comes_before_the_environment() -> None:
    found = settings.load(URL, None, {"DUALDB_URL": "mysql://x:y@db2/other"})
    assert found.config.address == "db1:3306/app_global"


def test_a_url_without_a_password_takes_that_of_the_environment() -> None:
    found = settings.load("mysql://app@db1/app_global", None, {"DUALDB_PASSWORD": "from-env"})
    assert found.config.reveal_password() == "from-env"


def test_the_environment_comes_before_the_file_of_the_directory(directory: Any) -> None:
    (directory / "dualdb.toml").write_text('[database]\nurl = "mysql://x:y@db2/other"\n')
    assert settings.load(None, None, {"DUALDB_URL": URL}).config.host == "db1"
    assert settings.load(None, None, {}).config.host == "db2"


def test_a_named_file_comes_before_the_environment(directory: Any) -> None:
    (directory / "mine.toml").write_text('[database]\nurl = "mysql://x:y@db2/other"\n')
    assert settings.load(None, "mine.toml", {"DUALDB_URL": URL}).config.host == "db2"


def test_the_passwords_of_shards_may_be_in_the_environment() -> None:
    environ = {"DUALDB_URL": URL, "DUALDB_SHARD_3": "x", "DUALDB_SHARD_PASSWORD": "y"}
    assert settings.load(None, None, environ).config.host == "db1"


def test_the_other_sections_are_used_with_any_database(directory: Any) -> None:
    (directory / "dualdb.toml").write_text('[service]\nabsent_shard = "error"\n')
    assert settings.load(URL, None, {}).service == {"absent_shard": "error"}


@pytest.mark.parametrize("reference", ["env:SECRET", "file:secret.txt"])
def test_a_password_of_the_file_may_be_a_reference(
    directory: Any, reference: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "p@ss word")
    (directory / "secret.txt").write_text("p@ss word\n")
    (directory / "dualdb.toml").write_text(
        f'[database]\nhost = "db1"\ndatabase = "a"\nuser = "b"\npassword = "{reference}"\n'
    )
    found = settings.load(None, None, {})
    assert found.config.reveal_password() == "p@ss word"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", LookupTable()),
        ('[directory]\ntable = "users"\nkey_column = "id"', LookupTable("users", "id")),
        ('[directory]\nkind = "buckets"\nbuckets = 64', HashBuckets(64)),
    ],
)
def test_the_directory_is_one_of_three_kinds(directory: Any, text: str, expected: Any) -> None:
    (directory / "dualdb.toml").write_text(text)
    assert settings.directory_source(settings.load(URL, None, {}).directory) == expected


def test_a_function_is_imported_from_the_working_directory(directory: Any) -> None:
    (directory / "shard_rule_of_test.py").write_text("def shard(key):\n    return key % 2 + 1\n")
    found = settings.directory_source({"kind": "function", "function": "shard_rule_of_test:shard"})
    assert isinstance(found, KeyFunction)
    assert found.function(7) == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[databse]", "unknown section [databse]"),
        ("[service]\nshard_tabel = 1", "unknown option 'shard_tabel'"),
        ("service = 1", "must be a section"),
        ("[service", "is not TOML"),
        ('[database]\nurl = "postgres://x"', "begin with mysql://"),
        ('[database]\nhost = "x"\npool_sise = 3', "did you mean 'pool_size'"),
        ("", "no database is given"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(directory: Any, text: str, message: str) -> None:
    (directory / "dualdb.toml").write_text(text)
    with pytest.raises(SettingsError) as caught:
        settings.load(None, None, {})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({"kind": "magic"}, "kind must be"),
        ({"kind": "buckets", "buckets": 0}, "from 1 to"),
        ({"tabel": "x"}, "unexpected keyword"),
        ({"kind": "function", "function": "nowhere.at.all:f"}, "nowhere"),
        ({"kind": "function", "function": "os:nothing"}, "nothing"),
        ({"kind": "function", "function": "os"}, "module:function"),
    ],
)
def test_a_wrong_directory_is_refused(table: Any, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        settings.directory_source(table)


def test_no_message_shows_a_password() -> None:
    for url in (f"{URL}?pool_size=x", "mysql://app:s3cret@db1:x/a", "mysql://app:s3cret@[/a"):
        with pytest.raises(SettingsError) as caught:
            settings.load(url, None, {})
        assert "s3cret" not in str(caught.value)
