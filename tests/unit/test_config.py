"""The configuration: its fields, where it comes from, what it refuses, and the password
it never shows.
"""

import copy
import json
import pathlib
import pickle
import ssl
import traceback
from typing import Any, Callable, Dict

import pytest
from pydantic import SecretStr, ValidationError

from dualdb import DatabaseConfig
from dualdb.protocol.connection_state import password_for_driver
from dualdb.protocol.tls import context, is_required

CANARY = "c4nary&%/secret"


def config(**changed: Any) -> DatabaseConfig:
    return DatabaseConfig(**{"database": "app", "user": "u", "password": CANARY, **changed})


def test_the_original_s_fields_and_defaults() -> None:
    made = config()
    assert (made.type, made.host, made.port, made.charset, made.pool_size, made.max_overflow) == (
        "mysql",
        "localhost",
        3306,
        "utf8mb4",
        10,
        20,
    )
    assert isinstance(made.password, SecretStr)
    assert made.reveal_password() == CANARY
    assert config(password=SecretStr(CANARY)) == made


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"type": "oracle"}, "Unsupported database type: 'oracle'"),
        ({"hots": "x"}, "unknown field 'hots': did you mean 'host'?"),
        ({"zzz": 1}, "zzz\n  Extra inputs are not permitted"),
        ({"port": 0}, "port"),
        ({"port": "x"}, "port"),
        ({"host": "a b"}, "host"),
        ({"charset": "utf9"}, "unknown charset 'utf9'"),
        ({"pool_size": 0}, "pool_size"),
        ({"max_overflow": -1}, "max_overflow"),
        ({"connect_timeout": 0}, "connect_timeout"),
        (
            {"ssl_mode": "on"},
            (
                "ssl_mode\n  Input should be 'disabled', 'preferred', 'required', "
                "'verify_ca' or 'verify_identity'"
            ),
        ),
        ({"database": ""}, "database"),
        ({"password": 7}, "password"),
    ],
)
def test_what_is_wrong_is_named(changed: Dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**changed)
    assert says in str(caught.value)
    assert CANARY not in str(caught.value)


def test_it_is_immutable_and_hashable() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        config().port = 1
    assert len({config(), config(), config(port=1)}) == 2


def test_the_password_is_shown_nowhere() -> None:
    made = config()
    for text in (
        repr(made),
        str(made),
        made.address,
        repr(made.model_dump()),
        made.model_dump_json(),
        json.dumps(made.model_dump(mode="json")),
    ):
        assert CANARY not in text
    with pytest.raises(TypeError, match="contains a password and cannot be pickled"):
        pickle.dumps(made)
    assert copy.copy(made) == copy.deepcopy(made) == made


@pytest.mark.parametrize(
    "wrong", [{"port": CANARY}, {"hots": CANARY}, {"database": ""}, {"zzz": CANARY}]
)
def test_an_error_tells_no_values_in_any_of_its_forms(wrong: Dict[str, Any]) -> None:
    with pytest.raises(ValidationError) as caught:
        config(**wrong)
    assert CANARY not in str(caught.value) + repr(caught.value.errors()) + caught.value.json()


def test_a_missing_field_does_not_show_the_others() -> None:
    with pytest.raises(ValidationError) as caught:
        DatabaseConfig(user="u", password=CANARY)  # type: ignore[call-arg]
    assert CANARY not in str(caught.value) + repr(caught.value.errors()) + caught.value.json()


def test_a_copy_is_checked() -> None:
    made = config().model_copy(update={"port": "3307", "password": "new"})
    assert (made.port, made.reveal_password(), made.host) == (3307, "new", config().host)
    with pytest.raises(ValidationError, match="greater than 0"):
        made.model_copy(update={"pool_timeout": 0})


@pytest.mark.parametrize("charset", ["ucs2", "utf16", "utf32", "binary", "geostd8", "nonsense"])
def test_a_charset_that_no_connection_can_speak_is_refused(charset: str) -> None:
    with pytest.raises(ValidationError, match="use utf8mb4|utf8mb4 covers every character"):
        config(charset=charset)


def test_from_url() -> None:
    made = DatabaseConfig.from_url(
        "mysql://us%40er:c4nary%26%25%2Fsecret@db.example:3307/app?pool_size=5&ssl_mode=required&read_timeout=1.5"
    )
    assert (made.host, made.port, made.database, made.user, made.reveal_password()) == (
        "db.example",
        3307,
        "app",
        "us@er",
        CANARY,
    )
    assert (made.pool_size, made.ssl_mode, made.read_timeout) == (5, "required", 1.5)
    assert DatabaseConfig.from_url("mariadb://u@h/app", port=3308).port == 3308
    assert DatabaseConfig.from_url("mysql://u:p@[::1]/app").host == "::1"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgres://u:c4nary@h/db", "must begin with mysql:// or mariadb://"),
        ("c4nary:x@h/db", "must begin with mysql:// or mariadb://"),
        ("h/db", "must begin with mysql:// or mariadb://"),
        ("mysql://u:c4nary@[::1/db", "is the ] of an [IPv6 address] missing?"),
        ("mysql://u:c4nary@h:x/db", "the port in the database URL"),
        ("mysql://u:c4nary@h/db?hots=1", "did you mean 'host'?"),
        ("mysql://u:c4nary@h/db?host=other", "host belongs in the URL's address"),
        ("mysql://u:c4nary@h", "database"),
        ("mysql://h/db", "user"),
    ],
)
def test_bad_urls_are_refused_without_being_shown(url: str, says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        DatabaseConfig.from_url(url)
    assert says in str(caught.value)
    assert "c4nary" not in str(caught.value)


def test_from_env() -> None:
    fields = {
        "DUALDB_HOST": "h",
        "DUALDB_DATABASE": "d",
        "DUALDB_USER": "u",
        "DUALDB_PASSWORD": CANARY,
        "DUALDB_POOL_SIZE": "3",
        "PATH": "/",
    }
    made = DatabaseConfig.from_env(environ=fields)
    assert (made.host, made.database, made.user, made.reveal_password(), made.pool_size) == (
        "h",
        "d",
        "u",
        CANARY,
        3,
    )
    url = DatabaseConfig.from_env("APP_", {"APP_URL": "mysql://u:p@h/d", "APP_PASSWORD": CANARY})
    assert (url.host, url.reveal_password()) == ("h", CANARY)


def test_from_env_reads_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHOP_URL", "mysql://u:p@h/d")
    assert DatabaseConfig.from_env("SHOP_").host == "h"


@pytest.mark.parametrize(
    "name", ["SHARD_3", "SHARD_PASSWORD", "S1_PASSWORD", "PASSWORD_A", "PASSWORD_2", "EAST", "PW"]
)
def test_variables_that_rows_refer_to_are_not_fields(name: str) -> None:
    environ = {"DUALDB_URL": "mysql://u:p@h/d", f"DUALDB_{name}": "other"}
    assert DatabaseConfig.from_env(environ=environ).reveal_password() == "p"


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        (
            {"DUALDB_PROT": "1"},
            "DUALDB_PROT is not a field of the configuration: did you mean DUALDB_PORT?",
        ),
        (
            {"DUALDB_HOST": "h", "DUALDB_POOLSIZE": "1"},
            "DUALDB_POOLSIZE is not a field of the configuration: did you mean DUALDB_POOL_SIZE?",
        ),
        ({"DUALDB_HOST": "h", "DUALDB_TIMEOUT": "1"}, "did you mean DUALDB_"),
        ({"DUALDB_ZZZ": "1"}, "no environment variable names a database: set DUALDB_URL"),
        ({"DUALDB_HOST": "h"}, "database"),
    ],
)
def test_a_wrong_environment_is_named(environ: Dict[str, str], says: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - the message is looked at below
        DatabaseConfig.from_env(environ=environ)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("mode", "socket", "tls", "required", "verifies", "hostname"),
    [
        ("disabled", None, False, False, None, None),
        ("preferred", None, True, False, ssl.CERT_NONE, False),
        ("preferred", "/run/s", False, False, None, None),
        ("required", "/run/s", True, True, ssl.CERT_NONE, False),
        ("required", None, True, True, ssl.CERT_NONE, False),
        ("verify_ca", None, True, True, ssl.CERT_REQUIRED, False),
        ("verify_identity", None, True, True, ssl.CERT_REQUIRED, True),
    ],
)
def test_ssl_modes(
    mode: Any, socket: Any, tls: bool, required: bool, verifies: Any, hostname: Any
) -> None:
    made = config(ssl_mode=mode, unix_socket=socket)
    found = context(made)
    assert is_required(made) is required
    assert (found is not None) is tls
    if found is not None:
        assert (found.verify_mode, found.check_hostname) == (verifies, hostname)


@pytest.mark.parametrize(
    ("field", "right", "wrong"),
    [
        ("init_command", ["SET @a = 1", "CALL begin_session()"], ["", " ; ", "SET @a\x00"]),
        ("time_zone", ["+00:00", "-9:30", "SYSTEM", "Europe/Berlin"], ["", "x'y", "+1", "a b"]),
        ("sql_mode", ["", "ANSI_QUOTES", "STRICT_ALL_TABLES, ANSI"], ["a'b", "x;y"]),
        ("isolation", ["READ COMMITTED", "read-committed", "Serializable"], ["", "READ"]),
        ("reset", ["changed", "always"], ["never", ""]),
    ],
)
def test_what_a_session_begins_with(field: str, right: Any, wrong: Any) -> None:
    for value in right:
        config(**{field: value})
    for value in wrong:
        with pytest.raises(ValidationError, match=field):
            config(**{field: value})
    assert config(isolation="read-committed").isolation == "READ COMMITTED"
    assert (config().isolation, config().reset, config().init_command) == (None, "changed", None)


@pytest.mark.parametrize("mode", [{}, {"ssl_mode": "preferred"}, {"ssl_mode": "required"}])
def test_an_authority_is_there_to_verify(mode: Any) -> None:
    assert config(ssl_ca="/ca.pem", **mode).ssl_mode == "verify_ca"
    assert config(**mode).model_copy(update={"ssl_ca": "/ca.pem"}).ssl_mode == "verify_ca"
    assert config(ssl_ca="/ca.pem").model_copy(update={"ssl_ca": None}).ssl_mode == "preferred"
    assert config(ssl_ca="/ca.pem", ssl_mode="verify_identity").ssl_mode == "verify_identity"


def test_a_password_is_looked_up_when_it_is_needed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    given = [CANARY]
    (tmp_path / "secret").write_text(CANARY + "\n")
    monkeypatch.setenv("APP_SECRET", CANARY)
    made = [
        config(password=lambda: given[0]),
        config(password=lambda: SecretStr(given[0])),
        config(password=f"file:{tmp_path}/secret"),
        config(password=SecretStr("env:APP_SECRET")),
        DatabaseConfig.from_url("mysql://u:env%3AAPP_SECRET@h/d"),
        DatabaseConfig.from_env(
            environ={
                "DUALDB_DATABASE": "d",
                "DUALDB_USER": "u",
                "DUALDB_PASSWORD": "env:APP_SECRET",
            }
        ),
    ]
    assert {each.reveal_password() for each in made} == {CANARY}
    given[0] = "rotated"
    (tmp_path / "secret").write_text("rotated")
    monkeypatch.setenv("APP_SECRET", "rotated")
    assert {each.reveal_password() for each in made} == {"rotated"}
    for each in made:
        shown = repr(each) + each.model_dump_json() + repr(each.model_dump())
        assert "rotated" not in shown
        assert "APP_SECRET" not in shown
        assert each.model_copy() == each
        assert hash(each) == hash(each.model_copy())
        assert each.looks_up_password
    assert not config().looks_up_password


def test_a_password_that_cannot_be_looked_up_is_an_error_without_it() -> None:
    def fails() -> str:
        raise KeyError(CANARY)

    wrongs: Any = [fails, lambda: 7, "env:NO_SUCH_VARIABLE", "file:/nowhere"]
    for wrong in wrongs:
        with pytest.raises(ValueError, match="^password: ") as caught:
            config(password=wrong).reveal_password()
        assert CANARY not in str(caught.value)

    async def later() -> str:
        return CANARY

    with pytest.raises(ValidationError, match="must not be a coroutine function"):
        config(password=later)


@pytest.mark.parametrize("scheme", ["mysql", "mariadb", "mysql+pymysql", "mysql+aiomysql"])
def test_urls_of_other_libraries_are_taken(scheme: str) -> None:
    made = DatabaseConfig.from_url(f"{scheme}://u:p@h:3307/d")
    assert (made.host, made.port, made.reveal_password()) == ("h", 3307, "p")


@pytest.mark.parametrize(
    "url",
    ["mysql+psycopg://u:c4nary@h/d", "mysql://u:c4n?ary@h/d", "mysql://u:c4n#ary@h/d"],
)
def test_a_url_is_not_shown_in_parts_either(url: str) -> None:
    with pytest.raises(ValueError, match="a database URL|percent-encoded") as caught:
        DatabaseConfig.from_url(url)
    assert not {"c4nary", "c4n", "ary@h"} & set(str(caught.value).split())
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(caught.tb)][1:]
    assert "c4n" not in repr(frames)


def test_an_empty_environment_names_the_variables() -> None:
    with pytest.raises(ValueError, match="no environment variable names a database: set APP_URL"):
        DatabaseConfig.from_env("APP_", {"PATH": "/"})


def test_a_password_that_cannot_be_sent_is_not_shown() -> None:
    with pytest.raises(ValueError, match="a character that UTF-8 does not encode") as caught:
        password_for_driver(config(password=CANARY + "\ud800"))
    assert CANARY not in repr(caught.value)
    assert caught.value.__context__ is None


def _made(**fields: Any) -> DatabaseConfig:
    return DatabaseConfig(database="a", **fields)


_GIVEN: Dict[str, Any] = {"database": "app", "user": "u", "password": CANARY}

WITH_A_PASSWORD: Dict[str, Callable[[], Any]] = {
    "a wrong field": lambda: config(port=0),
    "a misspelt field": lambda: config(hots=1),
    "an empty field": lambda: config(database=""),
    "a misspelt password": lambda: _made(passwrd=CANARY),
    "an unknown password": lambda: _made(pwd=CANARY),
    "bytes": lambda: config(password=CANARY.encode()),
    "a list": lambda: config(password=[CANARY]),
    "model_validate": lambda: DatabaseConfig.model_validate({**_GIVEN, "port": 0}),
    "model_validate_json": lambda: DatabaseConfig.model_validate_json(json.dumps(_GIVEN) + "}"),
    "model_copy": lambda: config().model_copy(update={"password": CANARY, "port": 0}),
    "from_url": lambda: DatabaseConfig.from_url("mysql://u@h/d", password=CANARY, port=0),
    "from_env": lambda: DatabaseConfig.from_env("", {"PASSWD": CANARY, "USER": "u"}),
}


@pytest.mark.parametrize("wrong", WITH_A_PASSWORD)
def test_no_traceback_of_a_wrong_field_holds_the_password(wrong: str) -> None:
    with pytest.raises(ValueError, match="DatabaseConfig|is not a field") as caught:
        WITH_A_PASSWORD[wrong]()
    frames = [
        frame.f_locals
        for frame, _ in traceback.walk_tb(caught.tb)
        if not frame.f_code.co_filename.endswith("test_config.py")
    ]
    assert frames
    assert CANARY not in repr(frames)
    assert CANARY not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "found", "address"),
    [
        ("n1", [("n1", 4000)], "n1:4000"),
        ("n1:3307", [("n1", 3307)], "n1:3307"),
        ("::1", [("::1", 4000)], "::1:4000"),
        ("[::1]", [("::1", 4000)], "::1:4000"),
        ("n1:1, n2 ,n3:5", [("n1", 1), ("n2", 4000), ("n3", 5)], "n1:1,n2:4000,n3:5"),
        ("[2001:db8::1]:1,n2", [("2001:db8::1", 1), ("n2", 4000)], "[2001:db8::1]:1,n2:4000"),
    ],
)
def test_hosts(host: str, found: Any, address: str) -> None:
    made = config(host=host, port=4000)
    assert list(made.hosts) == found
    assert made.address == f"{address}/app"
    assert made.model_copy(update={"user": "v"}).hosts == made.hosts


def test_the_port_of_one_host_is_the_configuration_s_and_its_copies() -> None:
    made = config(host="n1:3307")
    assert (made.host, made.port, made.model_copy().port) == ("n1", 3307, 3307)


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("n1,,n2", "a host is missing"),
        (",", "a host is missing"),
        (":3306", "a host is missing"),
        ("n1:", "the port of 'n1:' is missing"),
        ("[::1]:", "is missing"),
        ("[::1", "is not [address] or [address]:port"),
        ("[::1]3306", "is not [address] or [address]:port"),
        ("n1:99999", "the port of 'n1' is not a number from 1 to 65535"),
        ("n1:x,n2", "the port of 'n1' is not a number from 1 to 65535"),
        ("n1,n1:3306", "n1:3306 is named twice"),
        ("n" * 256, "a host has at most 255 characters, not 256"),
        (",".join([f"n{number}" for number in range(17)]), "at most 16 hosts"),
        ("n1,n 2", "String should match pattern"),
    ],
)
def test_hosts_that_are_none(host: str, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        config(host=host)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("hosts", "found"),
    [
        ("N1:3306,n2,[::1]:3307", [("n1", 3306), ("n2", 3306), ("::1", 3307)]),
        ("n1,n2:1", [("n1", 3306), ("n2", 1)]),
        ("n1:9", [("n1", 9)]),
    ],
)
def test_hosts_of_a_url(hosts: str, found: Any) -> None:
    made = DatabaseConfig.from_url(f"mysql://u:p%2C@{hosts}/app?endpoint_policy=any")
    assert list(made.hosts) == found
    assert (made.reveal_password(), made.endpoint_policy) == ("p,", "any")


def test_hosts_of_the_environment() -> None:
    variables = {"X_HOST": "n1,n2", "X_DATABASE": "d", "X_USER": "u", "X_PASSWORD": "p"}
    assert DatabaseConfig.from_env("X_", variables).hosts == (("n1", 3306), ("n2", 3306))
