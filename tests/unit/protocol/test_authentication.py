"""Which plugins are answered over which line."""

import pathlib
import traceback
from typing import Any

import pymysql.err
import pytest

from dualdb import DatabaseConfig
from dualdb.protocol import authentication


def config(**changes: Any) -> DatabaseConfig:
    return DatabaseConfig(database="d", user="u", password="canary", **changes)


@pytest.mark.parametrize("plugin", ["mysql_clear_password", b"mysql_clear_password", b"dialog"])
@pytest.mark.parametrize(
    ("mode", "encrypted", "allowed"),
    [
        ("disabled", False, False),
        ("preferred", False, False),
        ("preferred", True, False),
        ("required", True, False),
        ("verify_ca", True, True),
        ("verify_identity", True, True),
        ("verify_identity", False, False),
    ],
)
def test_a_password_in_clear_needs_a_verified_certificate(
    plugin: Any, mode: Any, encrypted: bool, allowed: bool
) -> None:
    there = config(ssl_mode=mode)
    if allowed:
        authentication.check_plugin(plugin, there, encrypted=encrypted)
        return
    with pytest.raises(pymysql.err.OperationalError, match="requests the password in clear"):
        authentication.check_plugin(plugin, there, encrypted=encrypted)


@pytest.mark.parametrize(
    "plugin",
    ["mysql_native_password", b"caching_sha2_password", b"client_ed25519", "sha256_password", ""],
)
def test_a_challenge_is_answered_anywhere(plugin: Any) -> None:
    authentication.check_plugin(plugin, config(ssl_mode="disabled"), encrypted=False)


def test_a_broken_plugin_is_answered_nowhere() -> None:
    with pytest.raises(pymysql.err.OperationalError, match="mysql_old_password"):
        authentication.check_plugin(
            b"mysql_old_password", config(ssl_mode="verify_ca"), encrypted=True
        )


@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("127.0.0.1", 3306), True),
        (("127.9.9.9", 3306), True),
        (("::1", 3306, 0, 0), True),
        (("::ffff:127.0.0.1", 3306, 0, 0), True),
        ("/run/s", True),
        (b"/run/s", True),
        ("", True),
        (("10.0.0.1", 3306), False),
        (("fe80::1%eth0", 3306, 0, 2), False),
        (("localhost", 3306), False),
        (None, False),
    ],
)
def test_a_key_that_is_merely_presented(peer: Any, local: bool) -> None:
    assert authentication.is_local(peer) is local
    if local:
        authentication.check_presented_key(config(), peer)
    else:
        with pytest.raises(pymysql.err.OperationalError, match="cannot be verified"):
            authentication.check_presented_key(config(), peer)
    authentication.check_presented_key(config(get_server_public_key=True), peer)


class Connection(authentication.Authentication):
    _secure = False

    def __init__(self, settings: DatabaseConfig) -> None:
        self._config = settings


def test_a_pinned_key_is_used_and_a_presented_one_is_not(tmp_path: pathlib.Path) -> None:
    (tmp_path / "key.pem").write_bytes(b"pinned")
    there = Connection(config(server_public_key=str(tmp_path / "key.pem")))
    there.prepare_authentication(("10.0.0.1", 3306))
    assert there.server_public_key == b"pinned"
    with pytest.raises(pymysql.err.OperationalError):
        there.server_public_key = b"presented"
    there.prepare_authentication(("127.0.0.1", 3306))
    there.server_public_key = b"presented"
    absent = Connection(config(server_public_key="/nowhere/key.pem"))
    with pytest.raises(pymysql.err.OperationalError, match="cannot be read"):
        absent.prepare_authentication(("127.0.0.1", 3306))


def test_local_variables_are_forgotten_behind_an_error() -> None:
    def driver(password: str) -> None:
        packet = password.encode()
        try:
            raise OSError(packet[:0])
        except OSError as error:
            raise ValueError("refused") from error

    try:
        driver("canary")
    except ValueError as error:
        authentication.forget_locals(error)
        for each in (error, error.__cause__):
            frames = list(traceback.walk_tb(each.__traceback__ if each else None))
            assert not any("canary" in repr(frame.f_locals) for frame, _ in frames[1:])
