"""TLS contexts."""

import os
import pathlib
import ssl
from typing import Any

import pytest

from dualdb import DatabaseConfig
from dualdb.protocol import tls


def config(**changes: Any) -> DatabaseConfig:
    return DatabaseConfig(database="d", user="u", password="p", **changes)


def test_configurations_with_the_same_files_share_a_context() -> None:
    one = tls.context(config(host="a", ssl_mode="required"))
    assert tls.context(config(host="b", ssl_mode="required")) is one
    assert tls.context(config(ssl_mode="verify_identity")) is not one
    assert tls.context(config(ssl_mode="disabled")) is None
    assert tls.context(config(ssl_mode="preferred", unix_socket="/tmp/s")) is None


def test_a_file_that_has_changed_is_read_again(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authorities = tmp_path / "ca.pem"
    authorities.write_text("one")
    read = []

    def create(cafile: str) -> ssl.SSLContext:
        read.append(pathlib.Path(cafile).read_text())
        return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)

    monkeypatch.setattr(ssl, "create_default_context", create)
    verifying = config(ssl_ca=str(authorities))
    one = tls.context(verifying)
    assert tls.context(verifying) is one
    authorities.write_text("another")
    assert tls.context(verifying) is not one
    assert read == ["one", "another"]
    os.remove(authorities)
    with pytest.raises(FileNotFoundError):
        tls.context(verifying)
