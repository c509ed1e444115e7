"""TLS contexts for MySQL's ``ssl_mode`` values, the same for both drivers."""

import os
import ssl
from functools import lru_cache
from typing import Optional, Tuple

from ..config import DatabaseConfig


def context(config: DatabaseConfig) -> Optional[ssl.SSLContext]:
    """Return the TLS context for a configuration, reading its certificate files.

    Configurations with the same files share one, until a file changes: a context with
    the system's certificates takes some 100 KiB. On a unix socket "preferred" means no
    TLS, as in MySQL's own client.

    Returns:
        The context; None for no TLS.

    Raises:
        OSError: A file cannot be read.
        ssl.SSLError: A file contains no certificate.
    """
    if config.ssl_mode == "disabled" or (config.ssl_mode == "preferred" and config.unix_socket):
        return None
    paths = (config.ssl_ca, config.ssl_cert, config.ssl_key)
    versions = tuple([_version(path) for path in paths if path])
    verifies = config.ssl_mode if config.ssl_mode.startswith("verify_") else None
    return _context(verifies, config.ssl_ca, config.ssl_cert, config.ssl_key, versions)


def _version(path: str) -> Tuple[int, int, int]:
    """What changes when a file does."""
    status = os.stat(path)
    return status.st_ino, status.st_size, status.st_mtime_ns


@lru_cache(maxsize=64)
def _context(
    verifies: Optional[str],
    ssl_ca: Optional[str],
    ssl_cert: Optional[str],
    ssl_key: Optional[str],
    versions: Tuple[Tuple[int, int, int], ...],
) -> ssl.SSLContext:
    if verifies is not None:
        made = ssl.create_default_context(cafile=ssl_ca)
        made.check_hostname = verifies == "verify_identity"
        # On by default since Python 3.13, but MySQL's auto-generated certificates do
        # not comply.
        made.verify_flags &= ~ssl.VERIFY_X509_STRICT
    else:
        made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        made.check_hostname = False
        made.verify_mode = ssl.CERT_NONE
    if ssl_cert:
        made.load_cert_chain(ssl_cert, ssl_key)
    return made


def is_required(config: DatabaseConfig) -> bool:
    """Return whether a server without TLS is refused before authentication."""
    return config.ssl_mode not in ("disabled", "preferred")
