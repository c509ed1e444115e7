"""TLS by MySQL's own ``ssl_mode`` words, with one meaning for both drivers."""

import ssl
from typing import Optional

from ..config import DatabaseConfig


def context(config: DatabaseConfig) -> Optional[ssl.SSLContext]:
    """The context for a configuration, None for no TLS.

    Reads the certificate files it names.

    On a unix socket "preferred" means no TLS, as in MySQL's own client: nobody listens
    there.

    Raises:
        OSError, ssl.SSLError: a file cannot be read or holds no certificate.
    """
    if config.ssl_mode == "disabled" or (config.ssl_mode == "preferred" and config.unix_socket):
        return None
    if config.ssl_mode.startswith("verify_"):
        made = ssl.create_default_context(cafile=config.ssl_ca)
        made.check_hostname = config.ssl_mode == "verify_identity"
        # On by default from Python 3.13; the certificates that MySQL makes for itself
        # do not pass it.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if config.ssl_cert:
        made.load_cert_chain(config.ssl_cert, config.ssl_key)
    return made


def is_required(config: DatabaseConfig) -> bool:
    """True if a server without TLS is refused before it is told a password."""
    return config.ssl_mode not in ("disabled", "preferred")
