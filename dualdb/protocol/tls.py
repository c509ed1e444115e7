"""TLS contexts for MySQL's ``ssl_mode`` values, the same for both drivers."""

import ssl
from typing import Optional

from ..config import DatabaseConfig


def context(config: DatabaseConfig) -> Optional[ssl.SSLContext]:
    """Make the TLS context for a configuration, reading its certificate files.

    On a unix socket "preferred" means no TLS, as in MySQL's own client.

    Returns:
        The context; None for no TLS.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file contains no certificate.
    """
    if config.ssl_mode == "disabled" or (config.ssl_mode == "preferred" and config.unix_socket):
        return None
    if config.ssl_mode.startswith("verify_"):
        made = ssl.create_default_context(cafile=config.ssl_ca)
        made.check_hostname = config.ssl_mode == "verify_identity"
        # On by default since Python 3.13, but MySQL's auto-generated certificates do
        # not comply.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if config.ssl_cert:
        made.load_cert_chain(config.ssl_cert, config.ssl_key)
    return made


def is_required(config: DatabaseConfig) -> bool:
    """Return whether a server without TLS is refused before authentication."""
    return config.ssl_mode not in ("disabled", "preferred")
