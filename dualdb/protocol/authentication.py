"""Restrictions on authentication plugins: no password is sent in clear text, or
encrypted with an unverified key.

The server chooses the plugin, in its greeting or in an authentication switch request,
and so does an attacker that impersonates it.
"""

import ipaddress
import traceback
from typing import Any, Optional, Set, Union

import pymysql.err
from pymysql.constants import CR

from ..config import DatabaseConfig

#: Plugins that send the password as it is (PAM, LDAP): MySQL manual, "Client-Side
#: Cleartext Pluggable Authentication"; MariaDB, "Authentication Plugin - PAM".
CLEAR_TEXT = frozenset({"mysql_clear_password", "dialog"})

#: Plugins whose response reveals the password within seconds.
BROKEN = frozenset({"mysql_old_password"})

CR_AUTH_PLUGIN_ERR = 2061


def refused(message: str) -> pymysql.err.OperationalError:
    """Make the error for a login that this package refuses."""
    return pymysql.err.OperationalError(CR_AUTH_PLUGIN_ERR, message)


def check_plugin(plugin: Union[str, bytes], config: DatabaseConfig, *, encrypted: bool) -> None:
    """Check that an authentication plugin is safe to use.

    Args:
        plugin: The plugin's name, as the server sent it.
        config: The configuration, which decides whether certificates are verified.
        encrypted: Whether the connection already uses TLS.

    Raises:
        pymysql.err.OperationalError: It is not; nothing of the password was sent.
    """
    name = plugin.decode("ascii", "replace") if isinstance(plugin, bytes) else plugin
    if name in BROKEN:
        raise refused(f"the server requests {name}, which does not protect the password")
    verified = encrypted and config.ssl_mode in ("verify_ca", "verify_identity")
    if name in CLEAR_TEXT and not verified:
        raise refused(
            f"the server requests the password in clear text ({name}), which is only sent over TLS "
            "with a verified certificate: set ssl_mode to verify_identity or verify_ca"
        )


def check_presented_key(config: DatabaseConfig, peer: object) -> None:
    """Check that the password may be encrypted with a key that the server presented.

    Args:
        config: The configuration; ``get_server_public_key`` allows it for all servers.
        peer: The address of the server, as ``getpeername`` returns it.

    Raises:
        pymysql.err.OperationalError: It may not.
    """
    if config.get_server_public_key or is_local(peer):
        return
    raise refused(
        "the server requests the password encrypted with a key that cannot be verified: use TLS, "
        "name the key's file in server_public_key, or set get_server_public_key"
    )


def is_local(peer: object) -> bool:
    """Return whether an address is loopback or a unix socket."""
    if not isinstance(peer, tuple):
        return isinstance(peer, (str, bytes))
    try:
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


class Authentication:
    """A mixin for the drivers' connections that checks authentication requests."""

    _config: DatabaseConfig
    _secure: bool
    _peer: Any = None
    _key: Optional[bytes] = None

    @property
    def server_public_key(self) -> Optional[bytes]:
        """The RSA key with which the drivers encrypt the password.

        They set it to the key that the server presents, which is checked here.
        """
        return self._key

    @server_public_key.setter
    def server_public_key(self, key: Optional[bytes]) -> None:
        if key is not None:
            check_presented_key(self._config, self._peer)
        self._key = key

    def prepare_authentication(self, peer: object) -> None:
        """Load the pinned key; called when the server's greeting has been read.

        Args:
            peer: The address of the server, as ``getpeername`` returns it.
        """
        self._key = _pinned_key(self._config)
        self._peer = peer

    def check_plugin(self, plugin: Union[str, bytes]) -> None:
        """Check that an authentication plugin is safe to use.

        Raises:
            pymysql.err.OperationalError: It is not; nothing of the password was sent.
        """
        encrypted = self._secure and self._config.unix_socket is None
        check_plugin(plugin, self._config, encrypted=encrypted)


def _pinned_key(config: DatabaseConfig) -> Optional[bytes]:
    if config.server_public_key is None:
        return None
    try:
        with open(config.server_public_key, "rb") as file:
            return file.read()
    except OSError as error:
        raise refused(
            f"server_public_key {config.server_public_key!r} cannot be read "
            f"({type(error).__name__})"
        ) from None


def forget_locals(error: BaseException) -> None:
    """Clear the local variables in the traceback frames of an error and its causes,
    because frames of the drivers contain the password.
    """
    seen: Set[int] = set()
    pending = [error]
    while pending:
        each = pending.pop()
        if id(each) in seen:
            continue
        seen.add(id(each))
        traceback.clear_frames(each.__traceback__)
        pending += [other for other in (each.__cause__, each.__context__) if other is not None]


def lookup_failed(error: Exception) -> pymysql.err.OperationalError:
    """Make the error for a login whose password could not be resolved."""
    return pymysql.err.OperationalError(CR.CR_UNKNOWN_ERROR, str(error))
